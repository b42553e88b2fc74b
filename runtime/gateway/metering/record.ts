import { z } from "zod";
import { tenantId } from "../../contracts/tenant.ts";
import { endpointPaths } from "../api/endpoints.ts";

/** Kinds of requests that are reported apart. */
export const requestClasses = ["interactive", "batch", "embedding", "audio"] as const;

/** How a request that an engine was asked to answer ended. */
export const usageOutcomes = ["complete", "client_left", "cut", "refused"] as const;

const count = z.number().min(0);

/**
 * What one request cost: one line of the usage export and one row of the ledger. It never holds a prompt, an answer or
 * a secret.
 */
export const usageRecord = z.strictObject({
  /** When the request ended, in ISO 8601. */
  time: z.iso.datetime(),
  /** Names the record: it is settled once, so a writer that sees an id again has it already. */
  requestId: z.string().min(1),
  tenant: tenantId,
  credentialId: z.string(),
  model: z.string(),
  adapter: z.string().nullable(),
  endpoint: z.enum(endpointPaths),
  class: z.enum(requestClasses),
  /** All tokens of the prompt; `cachedTokens` of them came from the engine's cache. */
  promptTokens: count,
  cachedTokens: count,
  completionTokens: count,
  audioSeconds: count,
  /** The engine did not tell the counts, or not all of them. */
  estimated: z.boolean(),
  durationMs: count,
  /** Time until the first byte of the answer's body; null when none came. */
  ttftMs: count.nullable(),
  outcome: z.enum(usageOutcomes),
  /** HTTP status that the client saw. */
  status: z.int(),
  /** The replica that answered; null when none did. */
  replica: z.string().nullable(),
  /** Who answered when no fleet of this gateway did. */
  provider: z.string().nullable().default(null),
  /** At the prices of the provider, or of this gateway. */
  costUsd: count,
  /** Time that a replica needed to become ready because of this request; 0 when one was. */
  coldStartSeconds: count,
});

export type UsageRecord = z.infer<typeof usageRecord>;
export type RequestClass = UsageRecord["class"];
export type UsageOutcome = UsageRecord["outcome"];

/** Where records go in the end: a ledger, a file. */
export interface UsageSink {
  /**
   * Keeps the records; resolves once they are safe. May be called again with the same records after it failed, so it
   * keeps one for each `requestId`.
   */
  append(records: readonly UsageRecord[]): Promise<void>;
}
