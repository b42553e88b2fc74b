import { timingSafeEqual } from "node:crypto";
import type { Tenant } from "../../contracts/tenant.ts";
import { hashOf } from "./api-key.ts";
import { grantOf, knownTenant, type Authenticator, type Grant } from "./authenticator.ts";

/** The one key of a configuration: for a single machine, and to create the first keys of a record store. */
export class StaticKey implements Authenticator {
  readonly #hash: Buffer;
  #grant: Grant;

  constructor(key: string, tenant: Tenant) {
    this.#hash = hashOf(key);
    this.#grant = grantTo(tenant);
  }

  /** Whose key it is from now on, or the same tenant with other limits. */
  set tenant(tenant: Tenant) {
    this.#grant = grantTo(tenant);
  }

  authenticate(credential: string): Grant | undefined {
    return timingSafeEqual(hashOf(credential), this.#hash) ? this.#grant : undefined;
  }
}

function grantTo(tenant: Tenant): Grant {
  return grantOf(knownTenant(tenant), { id: "static", isAdmin: true });
}
