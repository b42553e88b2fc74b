import type { Tenant } from "../../contracts/tenant.ts";

/** An API key as it is kept. Times are milliseconds since 1970. */
export interface KeyRecord {
  /** 8 characters, public. */
  readonly id: string;
  readonly tenant: string;
  /** What lists show of the key: `pk-<id>`. */
  readonly prefix: string;
  /** What the key is for, in the words of whoever created it. */
  readonly name: string;
  readonly isAdmin: boolean;
  /** SHA-256 of the whole key, in hex. */
  readonly hash: string;
  readonly createdMs: number;
  /** Not valid from then on; null for never. */
  readonly expiresMs: number | null;
  /** Not valid from then on. Lies ahead while a rotated key is still accepted. */
  readonly revokedMs: number | null;
  /** To the minute. */
  readonly lastUsedMs: number | null;
}

/** What checking a credential needs of a record store. Every method rejects when the store cannot be reached. */
export interface IdentityRecords {
  key(id: string): Promise<KeyRecord | undefined>;
  tenant(id: string): Promise<Tenant | undefined>;
  /** Notes when keys were last used: id -> ms. A key that is gone is no error. */
  touchKeys(used: ReadonlyMap<string, number>): Promise<void>;
}

/** What managing keys and tenants needs beyond that. */
export interface ManagedRecords extends IdentityRecords {
  /** Every key, or those of one tenant. */
  keys(tenant?: string): Promise<readonly KeyRecord[]>;
  /** Rejects when the id is taken. */
  addKey(key: KeyRecord): Promise<void>;
  /** From `atMs`, unless the key is revoked earlier than that. False when nothing changed. */
  revokeKey(id: string, atMs: number): Promise<boolean>;
  /** Every tenant. */
  tenants(): Promise<readonly Tenant[]>;
  /** Creates or replaces. */
  putTenant(tenant: Tenant): Promise<void>;
  /** Removes a tenant and its keys. False when there is none. */
  deleteTenant(id: string): Promise<boolean>;
}
