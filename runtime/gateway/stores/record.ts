import type { Tenant } from "../../contracts/tenant.ts";

/** An API key as it is stored: its hash, never itself. Times are Unix time in ms. */
export interface ApiKey {
  readonly id: string;
  readonly tenant: string;
  /** SHA-256 of the key, in hex. */
  readonly hash: string;
  /** The first characters of the key, to tell keys apart by. */
  readonly prefix: string;
  readonly name: string;
  readonly isAdmin: boolean;
  readonly createdMs: number;
  readonly revokedMs: number | null;
  /** Coarse: written with a delay. */
  readonly lastUsedMs: number | null;
}

/** One request, as it is billed. */
export interface UsageEntry {
  /** The request's id: an entry that is written twice counts once. */
  readonly id: string;
  readonly atMs: number;
  readonly tenant: string;
  readonly credentialId: string;
  readonly model: string;
  readonly adapter: string | null;
  /** What kind of request it was, such as `chat` or `embeddings`. */
  readonly requestClass: string;
  /** HTTP status, `client_left` or `cut`. */
  readonly status: string;
  readonly promptTokens: number;
  /** Of the prompt's tokens, those that an engine had cached. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** Cost in 1e-9 USD. */
  readonly nanoUsd: number;
  readonly durationMs: number;
}

/** Which entries: from `fromMs`, up to but not at `toMs`. */
export interface UsageFilter {
  readonly fromMs: number;
  readonly toMs: number;
  readonly tenant?: string;
  readonly model?: string;
}

/** What sums can be broken down by; `day` is the start of a UTC day in ms. */
export const usageDimensions = ["tenant", "credentialId", "model", "adapter", "requestClass", "day"] as const;
export type UsageDimension = (typeof usageDimensions)[number];

/** The sum of a group of entries. */
export interface UsageSum {
  /** The values that the group shares, for the dimensions that were asked for. */
  readonly group: Readonly<Partial<Record<UsageDimension, string | number | null>>>;
  readonly requests: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly nanoUsd: number;
}

/** Who may use the gateway. */
export interface Tenants {
  tenants(): Promise<Tenant[]>;
  tenant(id: string): Promise<Tenant | undefined>;
  putTenant(tenant: Tenant): Promise<void>;
  /** Removes the tenant and revokes nothing: its keys go with it. False when there is none. */
  deleteTenant(id: string): Promise<boolean>;
}

/** API keys. */
export interface ApiKeys {
  /** Newest first; with `tenant` only that tenant's. Revoked ones too. */
  keys(tenant?: string): Promise<ApiKey[]>;
  keyByHash(hash: string): Promise<ApiKey | undefined>;
  /** Throws `invalid_value` when its id or hash is taken or its tenant does not exist. */
  addKey(key: ApiKey): Promise<void>;
  /** False when there is no such key, or it was revoked before. */
  revokeKey(id: string, atMs: number): Promise<boolean>;
  /** Notes when keys were last used: id -> ms. An earlier time than the known one changes nothing. */
  touchKeys(used: ReadonlyMap<string, number>): Promise<void>;
}

/** The usage ledger. Entries are only added. */
export interface Usage {
  /** All entries or none. Those whose id is known are left out. */
  appendUsage(entries: readonly UsageEntry[]): Promise<void>;
  sumUsage(filter: UsageFilter, groupBy: readonly UsageDimension[]): Promise<UsageSum[]>;
  /** Every entry, oldest first, read page by page. */
  usage(filter: UsageFilter): AsyncIterable<UsageEntry>;
}

/** Settings that are changed while the gateway runs, as JSON text. */
export interface Settings {
  setting(name: string): Promise<string | undefined>;
  putSetting(name: string, value: string): Promise<void>;
}

/** State that must not be lost. Methods reject when the store cannot be reached. */
export interface RecordStore extends Tenants, ApiKeys, Usage, Settings, AsyncDisposable {}
