import type { IncomingHttpHeaders } from "node:http";
import { PenstockError } from "../../contracts/errors.ts";
import type { Principal } from "../../contracts/tenant.ts";
import type { AddressList } from "./addresses.ts";
import type { Authenticator } from "./authenticator.ts";

/** Longest credential that is looked at. Tokens with many groups come near 8 KB; headers end at 16 KB. */
const maxCredentialLength = 12_000;

export interface IdentityOptions {
  /** Asked in this order; the first one whose kind of credential it is decides. */
  readonly authenticators: readonly Authenticator[];
  /** Addresses that may use this gateway at all; null for any. */
  readonly allowedAddresses: AddressList | null;
}

/** Says who sent a request. Only the credential counts: no header names a tenant, a user or an organisation. */
export class Identity {
  readonly #options: IdentityOptions;

  constructor(options: IdentityOptions) {
    this.#options = options;
  }

  /**
   * Who sent a request with these headers from this address (of `clientAddress`).
   * Throws `invalid_api_key`, `forbidden`, or `overloaded` when it cannot be decided at the moment.
   */
  async authenticate(headers: IncomingHttpHeaders, address: string | undefined): Promise<Principal> {
    checkAddress(this.#options.allowedAddresses, address);
    const credential = credentialOf(headers);
    for (const authenticator of this.#options.authenticators) {
      const answer = authenticator.authenticate(credential);
      // Not awaited where it is known: a microtask for each request and authenticator would be the larger part.
      const grant = answer instanceof Promise ? await answer : answer;
      if (grant === undefined) continue;
      checkAddress(grant.addresses, address);
      return grant.principal;
    }
    throw new PenstockError("invalid_api_key", "This API key is not valid. Check that it was copied in full.");
  }
}

/** Whether a principal may use a model, or an adapter as `model:adapter`. */
export function mayUseModel({ tenant }: Principal, name: string): boolean {
  return tenant.models.includes("*") || tenant.models.includes(name);
}

/**
 * Throws `model_not_found` for a model that the principal may not use: its existence is no business of this tenant, so
 * call it before the model is looked up.
 */
export function authorizeModel(principal: Principal, name: string): void {
  if (mayUseModel(principal, name)) return;
  throw new PenstockError(
    "model_not_found",
    `The model \`${name.slice(0, 256)}\` does not exist or your key may not use it. GET /v1/models lists those it may.`,
    { param: "model" },
  );
}

/** `Authorization: Bearer`, or `x-api-key`, which Anthropic's clients send. */
function credentialOf(headers: IncomingHttpHeaders): string {
  const { authorization } = headers;
  const apiKey = headers["x-api-key"];
  const given = authorization === undefined ? apiKey : /^Bearer +(\S+)$/i.exec(authorization)?.[1];
  if (typeof given !== "string" || given === "") {
    throw new PenstockError("invalid_api_key", "Send your key as `Authorization: Bearer <key>`.");
  }
  if (given.length > maxCredentialLength) {
    throw new PenstockError("invalid_api_key", `The credential is longer than ${maxCredentialLength} characters.`);
  }
  return given;
}

function checkAddress(allowed: AddressList | null, address: string | undefined): void {
  if (allowed === null || (address !== undefined && allowed.has(address))) return;
  throw new PenstockError("forbidden", "Requests from this address are not allowed; ask your administrator.");
}
