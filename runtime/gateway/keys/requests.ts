import { z } from "zod";
import { tenantId } from "../../contracts/tenant.ts";

/** Fields of a new key, as the admin API and the command line take them. */
export const newKeyRequest = z.strictObject({
  tenant: tenantId,
  /** What the key is for. */
  name: z.string().trim().min(1).max(100),
  admin: z.boolean().default(false),
  expiresInDays: z.number().positive().max(3_650).nullable().default(null),
});

export type NewKey = z.infer<typeof newKeyRequest>;

/** How long the old key of a rotation is still accepted. */
export const rotateRequest = z.strictObject({ graceHours: z.number().min(0).max(720).default(0) });

/** The public part of a key; the prefix that lists show, `pk-<id>`, is taken too. */
export const keyIdText = z
  .string()
  .transform((text) => text.replace(/^pk-/, ""))
  .pipe(z.string().regex(/^[0-9A-Za-z]{8}$/, "must be the 8 characters after `pk-`"));
