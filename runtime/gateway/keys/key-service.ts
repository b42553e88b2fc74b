import { PenstockError } from "../../contracts/errors.ts";
import type { Tenant } from "../../contracts/tenant.ts";
import { AddressList } from "../identity/addresses.ts";
import { keyPrefix, newApiKey } from "../identity/api-key.ts";
import type { IdentityRecords, KeyRecord } from "../identity/key-records.ts";

const hourMs = 3_600_000;

/** A key as lists show it. Times are ISO 8601. */
export interface KeyView {
  readonly id: string;
  readonly prefix: string;
  readonly tenant: string;
  readonly name: string;
  readonly admin: boolean;
  readonly state: "active" | "expired" | "revoked";
  readonly created: string;
  readonly expires: string | null;
  readonly revoked: string | null;
  readonly used: string | null;
}

/** A key that was just made, with the secret that is never shown again. */
export interface NewKeyView extends KeyView {
  readonly key: string;
}

export interface NewKey {
  readonly tenantId: string;
  readonly name: string;
  readonly isAdmin: boolean;
  /** Null for a key that does not expire. */
  readonly expiresInDays: number | null;
}

/** Creates and revokes keys and tenants: what the command line and the admin API share. */
export class KeyService {
  readonly #records: IdentityRecords;

  constructor(records: IdentityRecords) {
    this.#records = records;
  }

  /** Every key, or those of one tenant. */
  async listKeys(tenantId?: string): Promise<KeyView[]> {
    return (await this.#records.keys.list(tenantId)).map(keyView);
  }

  /** Throws `not_found` when there is no such tenant. */
  async createKey({ tenantId, name, isAdmin, expiresInDays }: NewKey): Promise<NewKeyView> {
    await this.findTenant(tenantId);
    const expiresAt = expiresInDays === null ? null : Date.now() + expiresInDays * 24 * hourMs;
    return this.#insert({ tenantId, name, isAdmin, expiresAt });
  }

  /** Throws `not_found`. A key that was revoked stays so. */
  async revokeKey(id: string): Promise<KeyView> {
    await this.#records.keys.revoke(id, Date.now());
    return keyView(await this.#findKey(id));
  }

  /** A new key in the place of `id`, which is accepted for `graceHours` more. Throws `not_found`, or `invalid_value`. */
  async rotateKey(id: string, graceHours: number): Promise<NewKeyView> {
    const old = await this.#findKey(id);
    if (keyView(old).state !== "active") {
      throw new PenstockError("invalid_value", `Key ${keyPrefix(id)} is not active; create a new one.`, {
        param: "id",
      });
    }
    const { tenantId, name, isAdmin, createdAt, expiresAt } = old;
    // A key that was made for 90 days is followed by one for 90 days.
    const added = await this.#insert({
      tenantId,
      name,
      isAdmin,
      expiresAt: expiresAt === null ? null : Date.now() + (expiresAt - createdAt),
    });
    await this.#records.keys.revoke(id, Date.now() + graceHours * hourMs);
    return added;
  }

  async listTenants(): Promise<readonly Tenant[]> {
    return this.#records.tenants.list();
  }

  /** Throws `not_found`. */
  async findTenant(id: string): Promise<Tenant> {
    const tenant = await this.#records.tenants.find(id);
    if (tenant === undefined) throw new PenstockError("not_found", `There is no tenant \`${id}\`; create it first.`);
    return tenant;
  }

  /** Creates or replaces a tenant. Throws `invalid_config` that names an address range that is none. */
  async putTenant(tenant: Tenant): Promise<Tenant> {
    void new AddressList(tenant.allowedAddresses);
    await this.#records.tenants.put(tenant);
    return tenant;
  }

  /** Revokes the keys of a tenant and removes it. Throws `not_found`. */
  async removeTenant(id: string): Promise<void> {
    await this.findTenant(id);
    // A tenant of the same name that is created later must not get these keys.
    for (const key of await this.#records.keys.list(id)) await this.#records.keys.revoke(key.id, Date.now());
    await this.#records.tenants.remove(id);
  }

  async #findKey(id: string): Promise<KeyRecord> {
    const record = await this.#records.keys.find(id);
    if (record === undefined) throw new PenstockError("not_found", `There is no key ${keyPrefix(id)}.`);
    return record;
  }

  async #insert(fields: Pick<KeyRecord, "tenantId" | "name" | "isAdmin" | "expiresAt">): Promise<NewKeyView> {
    const { id, key, hash } = newApiKey();
    const record = { ...fields, id, hash, createdAt: Date.now(), revokedAt: null, usedAt: null };
    await this.#records.keys.insert(record);
    return { key, ...keyView(record) };
  }
}

function keyView({ id, tenantId, name, isAdmin, ...times }: KeyRecord): KeyView {
  const { createdAt, expiresAt, revokedAt, usedAt } = times;
  const now = Date.now();
  const isPast = (time: number | null): boolean => time !== null && time <= now;
  return {
    id,
    prefix: keyPrefix(id),
    tenant: tenantId,
    name,
    admin: isAdmin,
    state: isPast(revokedAt) ? "revoked" : isPast(expiresAt) ? "expired" : "active",
    created: new Date(createdAt).toISOString(),
    expires: isoTime(expiresAt),
    revoked: isoTime(revokedAt),
    used: isoTime(usedAt),
  };
}

function isoTime(time: number | null): string | null {
  return time === null ? null : new Date(time).toISOString();
}
