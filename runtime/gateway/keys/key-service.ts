import { PenstockError } from "../../contracts/errors.ts";
import type { Tenant } from "../../contracts/tenant.ts";
import { AddressList } from "../identity/addresses.ts";
import { keyPrefix, newApiKey } from "../identity/api-key.ts";
import type { KeyRecord, ManagedRecords } from "../identity/key-records.ts";
import type { NewKey } from "./requests.ts";

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

type KeyFields = Pick<KeyRecord, "tenant" | "name" | "isAdmin"> & { readonly lifetimeMs: number | null };

/** Creates and revokes keys and tenants: what the command line and the admin API share. */
export class KeyService {
  readonly #records: ManagedRecords;

  constructor(records: ManagedRecords) {
    this.#records = records;
  }

  /** Every key, or those of one tenant. */
  async listKeys(tenantId?: string): Promise<KeyView[]> {
    return (await this.#records.keys(tenantId)).map(keyView);
  }

  /** Throws `not_found` when there is no such tenant. */
  async createKey({ tenant, name, admin, expiresInDays }: NewKey): Promise<NewKeyView> {
    await this.findTenant(tenant);
    const lifetimeMs = expiresInDays === null ? null : Math.ceil(expiresInDays * 24 * hourMs);
    return this.#insert({ tenant, name, isAdmin: admin, lifetimeMs });
  }

  /** Throws `not_found`. A key that was revoked stays so. */
  async revokeKey(id: string): Promise<KeyView> {
    await this.#records.revokeKey(id, Date.now());
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
    const { tenant, name, isAdmin, createdMs } = old;
    // A key that was made for 90 days is followed by one for 90 days.
    const lifetimeMs = old.expiresMs === null ? null : old.expiresMs - createdMs;
    const added = await this.#insert({ tenant, name, isAdmin, lifetimeMs });
    await this.#records.revokeKey(id, Date.now() + Math.ceil(graceHours * hourMs));
    return added;
  }

  async listTenants(): Promise<readonly Tenant[]> {
    return this.#records.tenants();
  }

  /** Throws `not_found`. */
  async findTenant(id: string): Promise<Tenant> {
    const tenant = await this.#records.tenant(id);
    if (tenant === undefined) throw new PenstockError("not_found", `There is no tenant \`${id}\`; create it first.`);
    return tenant;
  }

  /** Creates or replaces a tenant. Throws `invalid_config` that names an address range that is none. */
  async putTenant(tenant: Tenant): Promise<Tenant> {
    void new AddressList(tenant.allowedAddresses);
    await this.#records.putTenant(tenant);
    return tenant;
  }

  /** Removes a tenant and its keys. Throws `not_found`. */
  async removeTenant(id: string): Promise<void> {
    if (!(await this.#records.deleteTenant(id))) throw new PenstockError("not_found", `There is no tenant \`${id}\`.`);
  }

  async #findKey(id: string): Promise<KeyRecord> {
    const record = await this.#records.key(id);
    if (record === undefined) throw new PenstockError("not_found", `There is no key ${keyPrefix(id)}.`);
    return record;
  }

  async #insert({ lifetimeMs, ...fields }: KeyFields): Promise<NewKeyView> {
    const { key, ...made } = newApiKey();
    const createdMs = Date.now();
    const expiresMs = lifetimeMs === null ? null : createdMs + lifetimeMs;
    const record = { ...fields, ...made, createdMs, expiresMs, revokedMs: null, lastUsedMs: null };
    await this.#records.addKey(record);
    return { key, ...keyView(record) };
  }
}

function keyView({ id, prefix, tenant, name, isAdmin, ...times }: KeyRecord): KeyView {
  const now = Date.now();
  const isPast = (time: number | null): boolean => time !== null && time <= now;
  return {
    id,
    prefix,
    tenant,
    name,
    admin: isAdmin,
    state: isPast(times.revokedMs) ? "revoked" : isPast(times.expiresMs) ? "expired" : "active",
    created: new Date(times.createdMs).toISOString(),
    expires: isoTime(times.expiresMs),
    revoked: isoTime(times.revokedMs),
    used: isoTime(times.lastUsedMs),
  };
}

function isoTime(time: number | null): string | null {
  return time === null ? null : new Date(time).toISOString();
}
