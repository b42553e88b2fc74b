import { decodeJwt, errors, jwtVerify, type JWTPayload } from "jose";
import { tenantId, type Principal } from "../../contracts/tenant.ts";
import { PenstockError } from "../../contracts/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { hashOf } from "./api-key.ts";
import { recordCacheDefaults, type RecordCacheOptions } from "./api-keys.ts";
import { grantOf, knownTenant, type Authenticator, type Grant, type KnownTenant } from "./authenticator.ts";
import { FreshCache } from "./fresh-cache.ts";
import { IssuerKeys, type IssuerKeyOptions } from "./issuer-keys.ts";
import type { Issuer } from "./issuer.ts";
import type { IdentityRecords } from "./key-records.ts";

export interface TokensOptions {
  readonly issuers: readonly Issuer[];
  readonly records: Pick<IdentityRecords, "tenant">;
  readonly log: Logger;
  readonly keys?: Partial<IssuerKeyOptions>;
  readonly cache?: Partial<RecordCacheOptions>;
}

/** What a verified token says. */
interface Claims {
  readonly tenantId: string;
  readonly credential: Pick<Principal, "isAdmin"> & { readonly id: string };
  /** Verified again from then on, in milliseconds since 1970. */
  readonly until: number;
}

interface KnownIssuer {
  readonly issuer: Issuer;
  readonly keys: IssuerKeys;
}

/** A signed token in compact form (RFC 7519): three parts. Encrypted ones have five and are not taken. */
const tokenForm = /^[\w-]+\.[\w-]+\.[\w-]*$/;
/** A verified token is believed for this long without checking its signature, which costs about 100 µs, again. */
const believeMs = 60_000;
const maxBelieved = 10_000;

/** Tokens (JWT) of OpenID Connect issuers. */
export class Tokens implements Authenticator {
  readonly #issuers: ReadonlyMap<string, KnownIssuer>;
  readonly #tenants: FreshCache<KnownTenant>;
  /** By hash, so that no token is kept. */
  readonly #believed = new Map<string, Claims>();

  constructor({ issuers, records, log, keys, cache }: TokensOptions) {
    this.#issuers = new Map(
      issuers.map((each) => [each.issuer, { issuer: each, keys: new IssuerKeys(each, log, keys) }]),
    );
    this.#tenants = new FreshCache({
      ...recordCacheDefaults,
      ...cache,
      load: (id) => records.tenant(id).then((tenant) => tenant && knownTenant(tenant)),
      onFailure: (err) => log.error({ err }, "the record store cannot be reached; known tenants go on working"),
    });
  }

  authenticate(credential: string): undefined | Promise<Grant> {
    return tokenForm.test(credential) ? this.#authenticate(credential) : undefined;
  }

  /** Makes a change of one tenant, or of all, count at once. */
  invalidate(tenant?: string): void {
    this.#tenants.invalidate(tenant);
  }

  async #authenticate(token: string): Promise<Grant> {
    const digest = hashOf(token).toString("base64");
    let claims = this.#believed.get(digest);
    if (claims === undefined || claims.until <= Date.now()) {
      claims = await this.#verify(token);
      this.#believe(digest, claims);
    }
    const tenant = await this.#tenants.get(claims.tenantId);
    if (tenant === undefined) {
      throw new PenstockError("forbidden", `The token's tenant \`${claims.tenantId}\` does not exist here.`);
    }
    return grantOf(tenant, claims.credential);
  }

  async #verify(token: string): Promise<Claims> {
    const known = this.#issuers.get(issuerOf(token));
    if (known === undefined) throw new PenstockError("invalid_api_key", "Tokens of this issuer are not accepted here.");
    const { issuer } = known;
    try {
      const { payload } = await jwtVerify(token, known.keys.find, {
        issuer: issuer.issuer,
        audience: issuer.audience,
        algorithms: issuer.algorithms,
        clockTolerance: issuer.clockToleranceSeconds,
        requiredClaims: ["exp", "sub"],
      });
      return claimsOf(payload, issuer);
    } catch (error) {
      throw error instanceof errors.JOSEError ? refusal(error, issuer) : error;
    }
  }

  #believe(digest: string, claims: Claims): void {
    this.#believed.delete(digest);
    this.#believed.set(digest, claims);
    if (this.#believed.size <= maxBelieved) return;
    for (const oldest of this.#believed.keys()) {
      this.#believed.delete(oldest);
      break;
    }
  }
}

/** Whom the token claims to be of: nothing is verified yet. */
function issuerOf(token: string): string {
  try {
    return decodeJwt(token).iss ?? "";
  } catch (cause) {
    throw new PenstockError("invalid_api_key", "This token is not a JWT.", { cause });
  }
}

function claimsOf(payload: JWTPayload, issuer: Issuer): Claims {
  const { admin, clockToleranceSeconds } = issuer;
  const expiresAt = ((payload.exp ?? 0) + clockToleranceSeconds) * 1_000;
  return {
    tenantId: tenantOf(payload, issuer),
    credential: {
      id: `${issuer.issuer} ${payload.sub ?? ""}`,
      isAdmin: admin !== undefined && texts(payload, admin.claim).includes(admin.value),
    },
    until: Math.min(expiresAt, Date.now() + believeMs),
  };
}

/** The one tenant that the claim names. Two are refused rather than guessed. */
function tenantOf(payload: JWTPayload, { tenant: { claim, prefix = "", table } }: Issuer): string {
  const named = texts(payload, claim)
    .filter((value) => value.startsWith(prefix))
    .map((value) => value.slice(prefix.length))
    .map((value) => (table === undefined ? value : Object.hasOwn(table, value) ? table[value] : undefined))
    .filter((value) => tenantId.safeParse(value).success);
  const [only, another] = new Set(named);
  if (only === undefined || another !== undefined) {
    const found = only === undefined ? "no tenant" : "more than one tenant";
    throw new PenstockError("forbidden", `The token's claim \`${claim}\` names ${found} of this gateway.`);
  }
  return only;
}

function texts(payload: JWTPayload, claim: string): string[] {
  const value = Object.hasOwn(payload, claim) ? payload[claim] : undefined;
  return (Array.isArray(value) ? value : [value]).filter((each) => typeof each === "string");
}

function refusal(cause: errors.JOSEError, { audience, algorithms }: Issuer): PenstockError {
  const because = (message: string) => new PenstockError("invalid_api_key", message, { cause });
  if (cause instanceof errors.JWTExpired) return because("This token has expired; get a new one.");
  if (cause instanceof errors.JOSEAlgNotAllowed)
    return because(`Tokens must be signed with ${algorithms.join(" or ")}.`);
  if (cause instanceof errors.JWTClaimValidationFailed) {
    return because(
      cause.claim === "aud"
        ? `This token is not for this gateway; request one for the audience \`${audience}\`.`
        : `The token's claim \`${cause.claim}\` is not valid here.`,
    );
  }
  return because("This token is not valid: its signature could not be checked with a key of its issuer.");
}
