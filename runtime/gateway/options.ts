import type { IdlePolicy } from "../contracts/agent.ts";
import type { Tenant } from "../contracts/tenant.ts";
import type { TlsFiles } from "../lib/tls.ts";
import type { QueueLimits } from "./admission/fair-queue.ts";
import type { ProxyTrust } from "./identity/client-address.ts";
import type { Issuer } from "./identity/issuer.ts";
import type { ModelPrice } from "./metering/prices.ts";
import type { PolicyName } from "./routing/index.ts";
import type { HotStoreOptions, RecordStoreOptions } from "./stores/index.ts";
import type { EngineSpec } from "../contracts/engine.ts";
import type { ModelSpec } from "../contracts/model.ts";
import type { ListenAddress } from "../lib/serve.ts";
import type { Aliases } from "./registry/catalog.ts";
import type { FleetOptions } from "./fleet/agents.ts";

/** A model that the gateway serves, and the engine that runs it. */
export interface ServedModel {
  readonly spec: ModelSpec;
  readonly engine: EngineSpec;
  /** The fleet whose agents serve it. */
  readonly fleet: string;
  /** Loaded when the gateway starts instead of at the first request. */
  readonly warm: boolean;
  /** When agents take it down by themselves. */
  readonly idle?: IdlePolicy;
  /** Never evicted for another model, and its files stay on disk. */
  readonly pinned?: boolean;
}

/** Bounds of held requests: those that wait for a model to load. */
export interface HoldLimits {
  readonly maxRequests: number;
  readonly maxBytes: number;
  readonly maxSeconds: number;
}

/** What a gateway is made of. */
export interface GatewayOptions {
  readonly listen: ListenAddress;
  /** Serves HTTPS, and follows the files when they are renewed. */
  readonly tls?: TlsFiles;
  /** A key that may do everything, for a single machine and to create the first keys; null for none. */
  readonly apiKey: string | null;
  /** Tenants that exist whatever the record store says. */
  readonly tenants?: readonly Tenant[];
  /** Who may issue tokens. */
  readonly issuers?: readonly Issuer[];
  /** Addresses that may use this gateway at all; absent for any. */
  readonly allowedAddresses?: readonly string[];
  /** Proxies of ours in front, and the header in which they tell the client's address. */
  readonly proxies?: { readonly trusted: readonly string[]; readonly header: ProxyTrust["header"] };
  /** Where state is kept. Absent: in this process, and lost with it. */
  readonly stores?: { readonly hot: HotStoreOptions; readonly record: RecordStoreOptions };
  /** Requests of a model that run at once on each of its replicas; absent for no bound. */
  readonly maxRunningPerReplica?: number;
  readonly queue?: Partial<QueueLimits>;
  /** Tokens that an answer without a bound of its own is taken to have when limits are reserved. */
  readonly defaultMaxTokens?: number;
  readonly routing?: PolicyName;
  /** By model, or by `model:adapter`. */
  readonly prices?: Readonly<Record<string, ModelPrice>>;
  /** Usage as JSON lines. */
  readonly usageFile?: string;
  /** Hosts that images and files of a request may be fetched from by the engine. */
  readonly allowedHosts?: readonly string[];
  readonly fleets: readonly FleetOptions[];
  /** Token that all agents ask for. */
  readonly agentToken: string;
  readonly models: readonly ServedModel[];
  /** Names that stand for several models, each as often as its weight says. */
  readonly aliases?: Aliases;
  readonly hold: HoldLimits;
  /** A body above this is refused. */
  readonly maxBodyBytes: number;
  /** How long the engine may take for a whole answer that does not stream, or for the first byte of one that does. */
  readonly firstByteTimeoutMs: number;
  readonly betweenBytesTimeoutMs: number;
  /** How long a stop waits for open requests. */
  readonly drainTimeoutMs: number;
}
