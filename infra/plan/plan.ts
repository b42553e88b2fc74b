import type { IdlePolicy } from "../../runtime/contracts/agent.ts";
import type { EngineSpec } from "../../runtime/contracts/engine.ts";
import type { ModelSpec } from "../../runtime/contracts/model.ts";
import type { CapacityType } from "../stack/cloud.ts";
import type { Cloud, CloudStack, LocalStack } from "../stack/schema.ts";
import type { ModelShape } from "../stack/shape.ts";

/*
 * What the planner makes of a stack: plain JSON, sorted, the same for the same input. Everything else (clouds, Kubernetes,
 * cost, policies) reads this and decides nothing about sizes again. No secret is ever in it.
 */

/** Reasons for people, such as "4 x H100 80 GB: 141 GB of weights and 38 GB of KV cache do not fit in 2 x 80 GB". */
export type Why = readonly string[];

/** A number and where it is from. `usdPerHour` null: nobody told, which is never taken for zero. */
export interface PlannedPrice {
  readonly usdPerHour: number | null;
  readonly source: string;
  /** Date of the list, such as 2026-07-20. */
  readonly asOf: string;
}

/** One kind of node: one size, bought in one way. A pool of the stack becomes one of these per size and capacity type. */
export interface PlannedPool {
  /** Unique; Kubernetes name and label, at most 40 characters. */
  readonly name: string;
  /** Names that it had under the pool's former names: kept as aliases, so that a rename replaces nothing. */
  readonly formerNames: readonly string[];
  /** The stack's pool: all variants of it carry the label `penstock.dev/pool`, and `penstock.dev/variant` with their name. */
  readonly group: string;
  /** Place in the try-order of the group, from 0. */
  readonly order: number;
  /** The cloud's name of the size. */
  readonly size: string;
  readonly capacity: CapacityType;
  readonly reservationId: string | null;
  readonly zones: readonly string[];
  readonly minNodes: number;
  readonly maxNodes: number;
  /** Of all variants of the group together: what minimum replicas keep, and what maximum replicas never exceed. */
  readonly groupNodes: { readonly min: number; readonly max: number };
  /** Nodes kept free by placeholder pods. */
  readonly warmSpares: number;
  readonly gpu: {
    /** Such as `NVIDIA H100 80GB`. */
    readonly model: string;
    readonly count: number;
    readonly memoryGiB: number;
    /** All GPUs of a node reach each other over NVLink. */
    readonly nvlink: boolean;
    readonly computeCapability: string;
  };
  readonly node: {
    readonly vcpus: number;
    readonly memoryGiB: number;
    /** What pods may ask for, after the system's share. */
    readonly allocatableCpuMillis: number;
    readonly allocatableMemoryMiB: number;
    /** Local NVMe, all disks together; 0 for none. */
    readonly nvmeGiB: number;
    readonly osDiskGiB: number;
    /** `ephemeral`: on Azure's temporary disk, where it has room beside the NVMe that the cache takes. */
    readonly osDisk: "ephemeral" | "managed";
    readonly networkGbps: number | null;
    readonly efaInterfaces: number;
  };
  /** What makes and removes its nodes. */
  readonly provisioner: "agent-pool" | "karpenter" | "node-group";
  /** Nodes close together, for replicas over several nodes. */
  readonly placementGroup: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly taints: readonly { readonly key: string; readonly value: string; readonly effect: "NoSchedule" }[];
  readonly price: PlannedPrice;
  readonly why: Why;
}

/** A model as agents are told of it. */
export interface PlannedModel {
  readonly id: string;
  readonly fleet: string;
  /** With the source that agents read: the stack's own store, once `npm run model -- push` has filled it. */
  readonly spec: ModelSpec;
  /** Where it comes from at first. */
  readonly origin: string;
  readonly warm: boolean;
  readonly pinned: boolean;
  readonly shape: ModelShape;
  readonly weightsGiB: number;
  readonly kvBytesPerToken: number;
  readonly price: CloudStack["models"][number]["price"] | null;
  readonly why: Why;
}

/** Seconds that things take, each from a measurement or a declared figure. */
export interface PlannedTransitions {
  readonly nodeSeconds: number;
  readonly imageSeconds: number;
  readonly downloadSeconds: number;
  readonly loadSeconds: number;
  /** From asleep in RAM; null where the engine cannot sleep. */
  readonly wakeSeconds: number | null;
  readonly sources: readonly string[];
}

/** Replicas of one engine on one pool. */
export interface PlannedFleet {
  readonly name: string;
  /** The stack's pool, or the one that the planner made. */
  readonly pool: string;
  readonly models: readonly string[];
  /** With a number for every size. */
  readonly engine: EngineSpec;
  readonly replicas: { readonly min: number; readonly max: number };
  readonly gpusPerReplica: number;
  readonly nodesPerReplica: number;
  readonly gpusPerNode: number;
  /** Replicas that fit on one node; a fraction where one needs several. */
  readonly replicasPerNode: number;
  /** Per GPU, in GiB. */
  readonly memory: {
    readonly weightsGiB: number;
    readonly kvCacheGiB: number;
    readonly overheadGiB: number;
    readonly usableGiB: number;
  };
  readonly contextTokens: number;
  /** Requests of that length whose KV cache fits. */
  readonly concurrency: number;
  readonly residentModels: number;
  readonly idle: IdlePolicy | null;
  readonly pod: {
    readonly cpuMillis: number;
    readonly memoryGiB: number;
    readonly sharedMemoryGiB: number;
    /** Budget of its share of the node's cache folder. */
    readonly cacheGiB: number;
    /** Runs the agent and this engine. */
    readonly image: string;
  };
  readonly scaling: {
    readonly targetRequests: number;
    readonly pollSeconds: number;
    readonly cooldownSeconds: number;
    readonly scaleDownSeconds: number;
    readonly schedule: CloudStack["fleets"][number]["scaling"]["schedule"];
    readonly why: Why;
  };
  readonly transitions: PlannedTransitions;
  readonly drainSeconds: number;
  readonly spot: boolean;
  /** Tokens per second of a replica, for cost per token; null where nobody published any. */
  readonly throughput: { readonly outputTokensPerSecond: number; readonly source: string } | null;
  readonly why: Why;
}

/** The OpenAI endpoint. */
export interface PlannedGateway {
  readonly replicas: { readonly min: number; readonly max: number };
  readonly image: string;
  readonly pod: { readonly cpuMillis: number; readonly memoryMiB: number };
  readonly config: CloudStack["gateway"];
  readonly why: Why;
}

/** Where models are kept for good. */
export type PlannedCache = {
  /** `az://account/container` or `s3://bucket`; models are below it. */
  readonly uri: string;
  readonly nodeDirectory: string;
  /** All models and adapters of the stack. */
  readonly contentsGiB: number;
  /** Old versions are removed after so many days. */
  readonly keepOldVersionsDays: number;
  readonly why: Why;
} & (
  | {
      readonly cloud: "azure";
      readonly account: string;
      readonly container: string;
      readonly redundancy: "LRS" | "ZRS";
      readonly premium: boolean;
    }
  | { readonly cloud: "aws"; readonly bucket: string }
);

/** Redis or PostgreSQL. */
export interface PlannedStore {
  readonly mode: "managed" | "in-cluster";
  /** The cloud's name of the size; for in-cluster ones the image. */
  readonly sku: string;
  readonly version: string;
  readonly memoryGiB: number;
  readonly storageGiB: number;
  readonly highAvailability: boolean;
  readonly price: PlannedPrice;
  readonly why: Why;
}

/** Something that is installed beside ours, pinned in `infra/catalog/add-ons.ts`. */
export interface PlannedAddOn {
  readonly name: string;
  readonly how:
    | { readonly kind: "helm"; readonly repository: string; readonly chart: string; readonly version: string }
    | { readonly kind: "cluster"; readonly version: string | null };
  readonly namespace: string;
  readonly why: Why;
}

/** A plan for Azure or AWS. */
export interface CloudPlan {
  readonly version: 1;
  readonly cloud: Cloud;
  /** Pulumi's name of the stack, such as `azure-prod`. */
  readonly stack: string;
  readonly prefix: string;
  readonly displayName: string;
  readonly environment: "dev" | "prod";
  readonly region: string;
  readonly zones: readonly string[];
  /** On everything that can carry them, ours included. */
  readonly tags: Readonly<Record<string, string>>;
  readonly network: CloudStack["network"] & { readonly why: Why };
  readonly cluster: {
    readonly name: string;
    readonly kubernetesVersion: string;
    readonly admins: readonly string[];
    /** Azure: resource id of the private registry that nodes may pull from. */
    readonly registry: string | null;
    readonly system: {
      readonly size: string;
      readonly vcpus: number;
      readonly memoryGiB: number;
      readonly minNodes: number;
      readonly maxNodes: number;
      readonly price: PlannedPrice;
    };
    readonly why: Why;
  };
  readonly pools: readonly PlannedPool[];
  readonly models: readonly PlannedModel[];
  readonly fleets: readonly PlannedFleet[];
  readonly gateway: PlannedGateway;
  readonly cache: PlannedCache;
  readonly redis: PlannedStore;
  readonly postgres: PlannedStore;
  readonly observability: {
    readonly mode: "managed" | "in-cluster";
    readonly retentionDays: number;
    readonly alertEmails: readonly string[];
    readonly tracesEndpoint: string | null;
    readonly why: Why;
  };
  readonly addOns: readonly PlannedAddOn[];
  readonly budget: CloudStack["budget"] & { readonly why: Why };
}

/** One machine: nothing is provisioned, so there is little to plan. */
export interface LocalPlan {
  readonly version: 1;
  readonly cloud: "local";
  readonly stack: string;
  readonly gateway: Pick<LocalStack["gateway"], "host" | "port" | "maxBodyMiB" | "drainSeconds" | "hold">;
  readonly models: LocalStack["models"];
  readonly fleets: LocalStack["fleets"];
  readonly why: Why;
}

/** What the planner answers. */
export type Plan = CloudPlan | LocalPlan;
