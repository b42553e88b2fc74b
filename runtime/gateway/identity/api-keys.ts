import { timingSafeEqual } from "node:crypto";
import { PenstockError } from "../../contracts/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { hashOf, keyId } from "./api-key.ts";
import { grantOf, knownTenant, type Authenticator, type Grant } from "./authenticator.ts";
import { FreshCache } from "./fresh-cache.ts";
import type { IdentityRecords, KeyRecord } from "./key-records.ts";

/** Times and bounds of the caches in front of the record store. */
export interface RecordCacheOptions {
  /** A revoked key or a changed tenant is noticed within this time. */
  readonly freshMs: number;
  /** While the record store cannot be reached, known keys go on working for this long. */
  readonly staleMs: number;
  readonly maxEntries: number;
  readonly maxLoads: number;
}

export const recordCacheDefaults: RecordCacheOptions = {
  freshMs: 1_000,
  staleMs: 3_600_000,
  maxEntries: 20_000,
  maxLoads: 256,
};

interface CachedKey {
  readonly record: KeyRecord;
  readonly hash: Buffer;
  readonly grant: Grant;
  touchedAt: number;
}

/** A hash that belongs to no key: what an unknown key is compared with, so that it takes the path of a wrong one. */
const nobody = Buffer.alloc(32);
/** No name of a tenant, so nothing is found. */
const noTenant = "-";
const touchEveryMs = 60_000;

/** Keys `pk-<id>-<secret>` of a record store. */
export class ApiKeys implements Authenticator {
  readonly #records: IdentityRecords;
  readonly #log: Logger;
  readonly #cache: FreshCache<CachedKey>;

  constructor(records: IdentityRecords, log: Logger, cache: Partial<RecordCacheOptions> = {}) {
    this.#records = records;
    this.#log = log;
    this.#cache = new FreshCache({
      ...recordCacheDefaults,
      ...cache,
      load: (id) => this.#load(id),
      onFailure: (err) => log.error({ err }, "the record store cannot be reached; known keys go on working"),
    });
  }

  authenticate(credential: string): Grant | undefined | Promise<Grant> {
    const id = keyId(credential);
    if (id === undefined) return undefined;
    const digest = hashOf(credential);
    const found = this.#cache.get(id);
    return found instanceof Promise ? found.then((key) => this.#check(key, digest)) : this.#check(found, digest);
  }

  /** Makes a change of one key, or of everything, count at once instead of within `freshMs`. */
  invalidate(id?: string): void {
    this.#cache.invalidate(id);
  }

  #check(key: CachedKey | undefined, digest: Buffer): Grant {
    const isRight = timingSafeEqual(digest, key?.hash ?? nobody);
    if (key === undefined || !isRight) {
      throw new PenstockError("invalid_api_key", "This API key is not valid. Check that it was copied in full.");
    }
    const now = Date.now();
    const { id, revokedMs, expiresMs } = key.record;
    if (revokedMs !== null && revokedMs <= now) {
      throw new PenstockError("invalid_api_key", `API key pk-${id} was revoked; use another one.`);
    }
    if (expiresMs !== null && expiresMs <= now) {
      throw new PenstockError("invalid_api_key", `API key pk-${id} has expired; use another one.`);
    }
    if (now - key.touchedAt >= touchEveryMs) {
      key.touchedAt = now;
      this.#records
        .touchKeys(new Map([[id, now]]))
        .catch((err: unknown) => this.#log.debug({ err, id }, "key use not recorded"));
    }
    return key.grant;
  }

  async #load(id: string): Promise<CachedKey | undefined> {
    const record = await this.#records.key(id);
    // Asked for an unknown key too, so that its answer takes as long as that to a wrong one.
    const tenant = await this.#records.tenant(record?.tenant ?? noTenant);
    if (record === undefined) return undefined;
    const hash = Buffer.from(record.hash, "hex");
    if (tenant === undefined || hash.length !== nobody.length) {
      this.#log.warn({ id, tenant: record.tenant }, "a key without a tenant or with a broken hash is refused");
      return undefined;
    }
    return { record, hash, grant: grantOf(knownTenant(tenant), record), touchedAt: record.lastUsedMs ?? 0 };
  }
}
