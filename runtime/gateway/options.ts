import type { IdlePolicy } from "../contracts/agent.ts";
import type { Tenant } from "../contracts/tenant.ts";
import type { TlsFiles } from "../lib/tls.ts";
import type { QueueLimits } from "./admission/fair-queue.ts";
import type { ProxyTrust } from "./identity/client-address.ts";
import type { Issuer } from "./identity/issuer.ts";
import type { HookOptions } from "../contracts/hooks.ts";
import type { ModelPrice } from "./metering/prices.ts";
import type { ProviderOptions, SpillRule } from "./providers/options.ts";
import type { PolicyName } from "./routing/index.ts";
import type { GuardOptions } from "./stores/guarded.ts";
import type { RedisOptions } from "./stores/hot-redis.ts";
import type { RecordStoreOptions } from "./stores/index.ts";
import type { EngineSpec } from "../contracts/engine.ts";
import type { ModelSpec } from "../contracts/model.ts";
import type { ListenAddress } from "../lib/serve.ts";
import type { Aliases } from "./registry/catalog.ts";
import type { FleetOptions } from "./fleet/agents.ts";
import type { HedgingOptions } from "./stages/hedge.ts";
import type { ResponseCacheOptions } from "./stages/response-cache.ts";
import type { TracingOptions } from "./telemetry/options.ts";

/** A model that the gateway serves, and the engine that runs it. */
export interface ServedModel {
  readonly spec: ModelSpec;
  readonly engine: EngineSpec;
  /** The fleet whose agents serve it. */
  readonly fleet: string;
  /** Loaded when the gateway starts instead of at the first request. */
  readonly warm: boolean;
  /** When agents take it down by themselves. */
  readonly idle?: IdlePolicy | undefined;
  /** Never evicted for another model, and its files stay on disk. */
  readonly pinned?: boolean | undefined;
}

/** Bounds of held requests: those that wait for a model to load. */
export interface HoldLimits {
  readonly maxRequests: number;
  readonly maxBytes: number;
  readonly maxSeconds: number;
  /** Part of the count and of the bytes that one tenant may take, 0 to 1; absent for all. */
  readonly tenantShare?: number | undefined;
}

/** Where state is kept: in files of this gateway, or in stores that several share. */
export interface StoreOptions {
  readonly hot:
    | { readonly kind: "memory"; readonly file?: string }
    | ({ readonly kind: "redis" } & RedisOptions & Pick<GuardOptions, "onStoreFailure">);
  readonly record: RecordStoreOptions;
}

/** What a gateway is made of. */
export interface GatewayOptions {
  readonly listen: ListenAddress;
  /** Serves HTTPS, and follows the files when they are renewed. */
  readonly tls?: TlsFiles | undefined;
  /** A key that may do everything, for a single machine and to create the first keys; null for none. */
  readonly apiKey: string | null;
  /** Tenants that exist whatever the record store says. */
  readonly tenants?: readonly Tenant[] | undefined;
  /** Who may issue tokens. */
  readonly issuers?: readonly Issuer[] | undefined;
  /** Addresses that may use this gateway at all; absent for any. */
  readonly allowedAddresses?: readonly string[] | undefined;
  /** Proxies of ours in front, and the header in which they tell the client's address. */
  readonly proxies?: { readonly trusted: readonly string[]; readonly header: ProxyTrust["header"] } | undefined;
  /** TCP load balancers of ours in front that speak the PROXY protocol; connections of others are closed. */
  readonly proxyProtocol?: { readonly trusted: readonly string[] } | undefined;
  /** Where state is kept. Absent: in this process, and lost with it. */
  readonly stores?: StoreOptions | undefined;
  /** Requests of a model that run at once on each of its replicas; absent for no bound. */
  readonly maxRunningPerReplica?: number | undefined;
  readonly queue?: Partial<QueueLimits> | undefined;
  /** Tokens that an answer without a bound of its own is taken to have when limits are reserved. */
  readonly defaultMaxTokens?: number | undefined;
  readonly routing?: PolicyName | undefined;
  /** By model, or by `model:adapter`. */
  readonly prices?: Readonly<Record<string, ModelPrice>> | undefined;
  /** Others who can answer, and when requests go to them; absent for never. */
  readonly providers?: readonly ProviderOptions[] | undefined;
  readonly spill?: readonly SpillRule[] | undefined;
  /** Which requests are sent to a second replica when the first is slow; absent for none. */
  readonly hedging?: HedgingOptions | undefined;
  /** Answers that are given again; absent for none. */
  readonly responseCache?: ResponseCacheOptions | undefined;
  /** Modules that see requests and answers, in this order. */
  readonly hooks?: readonly HookOptions[] | undefined;
  /** Where spans go; absent for nowhere. */
  readonly tracing?: TracingOptions | undefined;
  /** Usage as JSON lines. */
  readonly usageFile?: string | undefined;
  /** Where KEDA asks for the demand of fleets; absent for nowhere. */
  readonly scaler?: ListenAddress | undefined;
  /** Hosts that images and files of a request may be fetched from by the engine. */
  readonly allowedHosts?: readonly string[] | undefined;
  readonly fleets: readonly FleetOptions[];
  /** Token that all agents ask for. */
  readonly agentToken: string;
  readonly models: readonly ServedModel[];
  /** Names that stand for several models, each as often as its weight says. */
  readonly aliases?: Aliases | undefined;
  readonly hold: HoldLimits;
  /** A body above this is refused. */
  readonly maxBodyBytes: number;
  /** How long the engine may take for a whole answer that does not stream, or for the first byte of one that does. */
  readonly firstByteTimeoutMs: number;
  readonly betweenBytesTimeoutMs: number;
  /** How long a stop waits for open requests. */
  readonly drainTimeoutMs: number;
}

/** What a gateway takes while it runs. What is absent goes back to its default; tenants that are no more named stay. */
export type Reloadable = Pick<
  GatewayOptions,
  "models" | "aliases" | "tenants" | "prices" | "routing" | "providers" | "spill" | "hedging" | "hooks"
>;
