import { z } from "zod";
import { modelId } from "./model.ts";

/** Name of a tenant: part of metrics and of store keys, so it is short and plain. */
export const tenantId = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "must be 1 to 63 of a-z, 0-9 and `-`");

/** An IPv4 or IPv6 address, or a range in CIDR notation. */
const addressRange = z
  .string()
  .regex(/^[0-9a-fA-F.:]+(\/\d{1,3})?$/, "must be an IP address or a range such as 10.0.0.0/8");

/** Where data is kept and handled, in words of the operator such as `eu`. */
export const residency = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "must be 1 to 63 of a-z, 0-9 and `-`");

/** What a tenant may use. An absent limit is no limit. */
export const tenantLimits = z.strictObject({
  requestsPerMinute: z.int().min(1).optional(),
  /** Prompt and answer together. */
  tokensPerMinute: z.int().min(1).optional(),
  concurrentRequests: z.int().min(1).optional(),
  budget: z.strictObject({ usd: z.number().positive(), period: z.enum(["day", "month"]).default("month") }).optional(),
});

/** Who a credential belongs to. */
export const tenant = z.strictObject({
  id: tenantId,
  /** Models and `model:adapter` names that it may use; `*` for all. */
  models: z
    .array(z.union([z.literal("*"), modelId, z.string().regex(/^[^:\s]+:[^:\s]+$/)]))
    .min(1)
    .default(["*"]),
  /** Of two requests that wait, the one with the higher priority goes first. */
  priority: z.int().min(0).max(9).default(5),
  /** Share among tenants of the same priority when there is not enough for all. */
  weight: z.number().positive().max(1_000).default(1),
  limits: tenantLimits.prefault({}),
  /** Addresses that its requests may come from; empty for any. */
  allowedAddresses: z.array(addressRange).max(100).default([]),
  /** Where its requests may go when a provider answers in place of this gateway's fleets: empty for nowhere, absent for anywhere. */
  residencies: z.array(residency).max(100).optional(),
});

export type Tenant = z.infer<typeof tenant>;
export type TenantLimits = z.infer<typeof tenantLimits>;

/** Who sent a request, as its credential says. */
export interface Principal {
  readonly tenant: Tenant;
  /** Id of the API key, or `issuer subject` of a token: for the ledger and logs, never the secret. */
  readonly credentialId: string;
  /** May use the admin API and see routing decisions. */
  readonly isAdmin: boolean;
}
