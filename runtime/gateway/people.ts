import type { IncomingMessage } from "node:http";
import type { Hono } from "hono";
import { tenant, type Principal, type Tenant } from "../contracts/tenant.ts";
import type { Logger } from "../lib/log.ts";
import { peerAddress } from "../lib/proxy-protocol.ts";
import { AddressList } from "./identity/addresses.ts";
import { ApiKeys } from "./identity/api-keys.ts";
import { clientAddress } from "./identity/client-address.ts";
import { Identity } from "./identity/identity.ts";
import { StaticKey } from "./identity/static-key.ts";
import { Tokens } from "./identity/tokens.ts";
import { adminApp, type AdminEnv } from "./keys/admin-app.ts";
import { KeyService } from "./keys/key-service.ts";
import type { GatewayOptions } from "./options.ts";
import type { RecordStore } from "./stores/record.ts";

/** Who may use a gateway. */
export interface People {
  /** Who sends a request: by its credential, from an address that may. */
  readonly identify: (incoming: IncomingMessage) => Promise<Principal>;
  /** The admin API; null without a record store. */
  readonly admin: Hono<AdminEnv> | null;
  /** Writes tenants of a changed config down, all or none. */
  readonly writeTenants: (tenants: readonly Tenant[]) => Promise<void>;
  /** Their limits hold from the next request on. */
  readonly useTenants: (tenants: readonly Tenant[]) => void;
}

/** Identity, keys and the admin API, from the configuration and the record store. */
export function peopleOf(
  options: GatewayOptions,
  { records, log }: { records: RecordStore | null; log: Logger },
): People {
  const { apiKey, allowedAddresses, proxies, issuers = [] } = options;
  const keys = records === null ? null : new ApiKeys(records, log);
  const tokens = records === null || issuers.length === 0 ? null : new Tokens({ issuers, records, log });
  const staticKey = apiKey === null ? null : new StaticKey(apiKey, ownerOf(options.tenants));
  const identity = new Identity({
    // The configured key first: it may look like one of another kind.
    authenticators: [staticKey, keys, tokens].filter((each) => each !== null),
    allowedAddresses: allowedAddresses === undefined ? null : new AddressList(allowedAddresses),
  });
  const trust = {
    trustedProxies: new AddressList(proxies?.trusted ?? []),
    header: proxies?.header ?? ("x-forwarded-for" as const),
  };
  const identify = ({ headers, socket }: IncomingMessage): Promise<Principal> =>
    identity.authenticate(headers, clientAddress(peerAddress(socket), headers, trust));
  const onChange = (): void => {
    keys?.invalidate();
    tokens?.invalidate();
  };
  const writeTenants = async (tenants: readonly Tenant[]): Promise<void> => records?.putTenants(tenants);
  const useTenants = (tenants: readonly Tenant[]): void => {
    if (staticKey !== null) staticKey.tenant = ownerOf(tenants);
    onChange();
  };
  const admin =
    records === null ? null : adminApp({ keys: new KeyService(records), principalOf: identify, onChange, log });
  return { identify, admin, writeTenants, useTenants };
}

/** The tenant of the configuration's own key. */
function ownerOf(tenants: readonly Tenant[] = []): Tenant {
  return tenants.find(({ id }) => id === "default") ?? tenant.parse({ id: "default" });
}
