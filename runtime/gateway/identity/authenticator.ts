import type { Principal, Tenant } from "../../contracts/tenant.ts";
import { AddressList } from "./addresses.ts";

/** What a credential that was checked gives. */
export interface Grant {
  readonly principal: Principal;
  /** Addresses that it may be used from; null for any. */
  readonly addresses: AddressList | null;
}

/** One way to prove who sends a request. */
export interface Authenticator {
  /**
   * What the credential gives; undefined when it is of another kind.
   * Throws `invalid_api_key` or `forbidden`, or `overloaded` when it cannot be decided now.
   */
  authenticate(credential: string): Grant | undefined | Promise<Grant | undefined>;
}

/** A tenant with its addresses read. */
export interface KnownTenant {
  readonly tenant: Tenant;
  readonly addresses: AddressList | null;
}

export function knownTenant(tenant: Tenant): KnownTenant {
  const { allowedAddresses } = tenant;
  return { tenant, addresses: allowedAddresses.length === 0 ? null : AddressList.lenient(allowedAddresses) };
}

/** The grant of a credential that belongs to a tenant. */
export function grantOf(
  { tenant, addresses }: KnownTenant,
  credential: { readonly id: string; readonly isAdmin: boolean },
): Grant {
  return { principal: { tenant, credentialId: credential.id, isAdmin: credential.isAdmin }, addresses };
}
