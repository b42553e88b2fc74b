import { z } from "zod";
import { tenantId } from "../../contracts/tenant.ts";

/** Signatures that tokens may have. Only asymmetric ones: a shared secret would let every holder issue tokens. */
export const tokenAlgorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
] as const;

const secureUrl = z.url().refine((text) => isSecure(new URL(text)), "must be https (http only for this machine)");

/** Whether an issuer may be asked there: keys that came over a network in clear text would prove nothing. */
export function isSecure(url: URL): boolean {
  return (
    url.protocol === "https:" ||
    (url.protocol === "http:" && ["127.0.0.1", "[::1]", "localhost"].includes(url.hostname))
  );
}

/** An issuer of tokens (OpenID Connect: Entra ID, Cognito, Keycloak, ...), and what its claims mean here. */
export const issuer = z.strictObject({
  /** Exactly what its tokens carry as `iss`. Its keys are found through `<issuer>/.well-known/openid-configuration`. */
  issuer: secureUrl,
  /** Where its keys are, for an issuer without discovery. */
  jwksUri: secureUrl.optional(),
  /** What its tokens must carry in `aud`. */
  audience: z.string().min(1),
  /** Which tenant a token belongs to. */
  tenant: z.strictObject({
    /** Name of the claim, exactly. Its value is a text or a list of texts, of which one must name a tenant. */
    claim: z.string().min(1),
    /** Only values that begin with this count, and it is cut off. */
    prefix: z.string().min(1).optional(),
    /** Value of the claim -> tenant. Values that are not in it count for nothing. Without a table the value is the tenant. */
    table: z.record(z.string(), tenantId).optional(),
  }),
  /** Tokens whose claim is, or contains, this value may use the admin API. */
  admin: z.strictObject({ claim: z.string().min(1), value: z.string().min(1) }).optional(),
  algorithms: z.array(z.enum(tokenAlgorithms)).min(1).default(["RS256", "PS256", "ES256", "EdDSA", "Ed25519"]),
  /** How far clocks may be apart. */
  clockToleranceSeconds: z.number().min(0).max(300).default(30),
});

export type Issuer = z.infer<typeof issuer>;
/** An issuer as it is written, with its defaults left out. */
export type IssuerInput = z.input<typeof issuer>;
