import type { Tenant } from "../../contracts/tenant.ts";
import type { ManagedRecords } from "../identity/key-records.ts";

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
export interface RecordStore extends ManagedRecords, Usage, Settings, AsyncDisposable {
  /** Creates or replaces all of them, or changes nothing. */
  putTenants(tenants: readonly Tenant[]): Promise<void>;
}
