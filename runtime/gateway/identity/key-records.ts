import type { Tenant } from "../../contracts/tenant.ts";

/** An API key as it is kept. Times are milliseconds since 1970. */
export interface KeyRecord {
  /** 8 characters, public: it is the part of the key that lists and logs show. */
  readonly id: string;
  readonly tenantId: string;
  /** What the key is for, in the words of whoever created it. */
  readonly name: string;
  readonly isAdmin: boolean;
  /** SHA-256 of the whole key, in hex. */
  readonly hash: string;
  readonly createdAt: number;
  /** Not valid from then on; null for never. */
  readonly expiresAt: number | null;
  /** Not valid from then on. Lies ahead while a rotated key is still accepted. */
  readonly revokedAt: number | null;
  /** To the minute. */
  readonly usedAt: number | null;
}

/** API keys in a record store. Every method rejects when the store cannot be reached. */
export interface KeyRecords {
  find(id: string): Promise<KeyRecord | undefined>;
  /** Rejects when the id is taken. */
  insert(record: KeyRecord): Promise<void>;
  /** Sets `revokedAt` unless the key was revoked for an earlier time. False when there is no such key. */
  revoke(id: string, at: number): Promise<boolean>;
  /** Every key, or those of one tenant, by creation time. */
  list(tenantId?: string): Promise<readonly KeyRecord[]>;
  /** Sets `usedAt`. A key that is gone is no error. */
  touch(id: string, at: number): Promise<void>;
}

/** Tenants in a record store. Every method rejects when the store cannot be reached. */
export interface TenantRecords {
  find(id: string): Promise<Tenant | undefined>;
  /** Creates or replaces. */
  put(tenant: Tenant): Promise<void>;
  /** False when there is no such tenant. */
  remove(id: string): Promise<boolean>;
  /** Every tenant, by id. */
  list(): Promise<readonly Tenant[]>;
}

/** What identity needs of a record store. */
export interface IdentityRecords {
  readonly keys: KeyRecords;
  readonly tenants: TenantRecords;
}
