import type { CapacityType } from "../stack/cloud.ts";
import type { CloudPlan } from "../plan/plan.ts";
import type { Assumptions } from "./assumptions.ts";
import type { Amount } from "./money.ts";
import type { NodePrice } from "./prices.ts";

/** How much of a stack runs. */
export const levels = ["minimum", "expected", "maximum"] as const;
export type Level = (typeof levels)[number];

/** One of something for each level. Amounts are of a month. */
export type Levels<Value> = Readonly<Record<Level, Value>>;

/** A value for each level. */
export function eachLevel<Value>(make: (level: Level) => Value): Levels<Value> {
  return { minimum: make("minimum"), expected: make("expected"), maximum: make("maximum") };
}

/** One way to get nodes of a pool. */
export interface VariantCost {
  readonly name: string;
  readonly size: string;
  readonly capacity: CapacityType;
  readonly gpusPerNode: number;
  readonly price: NodePrice;
  /** Nodes on average. */
  readonly nodes: Levels<number>;
  readonly cost: Levels<Amount>;
}

/** A pool of the stack with all its variants. */
export interface PoolCost {
  readonly name: string;
  readonly nodes: Levels<number>;
  readonly gpus: Levels<number>;
  readonly variants: readonly VariantCost[];
  readonly cost: Levels<Amount>;
  /** Of it, what no fleet takes: floors, warm spares, the room that replicas leave. */
  readonly unused: Levels<Amount>;
  /** Nodes that cloud and cluster allow at most. */
  readonly cap: {
    readonly nodes: number;
    readonly cloudNodes: number;
    readonly enforcedBy: string;
  };
}

/** USD per million tokens. */
export interface TokenCost {
  readonly outputTokensPerSecond: number;
  readonly source: string;
  readonly utilisation: number;
  /** Everything charged to completion tokens, as benchmarks have it. */
  readonly outputOnly: Amount;
  /** Divided between prompt and completion tokens. */
  readonly input: Amount;
  readonly output: Amount;
}

export interface FleetCost {
  readonly name: string;
  readonly pool: string;
  readonly models: readonly string[];
  readonly replicas: Levels<number>;
  readonly nodes: Levels<number>;
  readonly cost: Levels<Amount>;
  /** Null: nobody published the throughput of its model on its GPU. */
  readonly perMillionTokens: TokenCost | null;
}

export interface ModelCost {
  readonly id: string;
  readonly fleet: string;
  /** Of its fleet's cost, 0 to 1. */
  readonly share: number;
  readonly shareSource: "the only model of its fleet" | "evenly among its fleet's models" | "as stated";
  readonly cost: Levels<Amount>;
  readonly perMillionTokens: TokenCost | null;
  /** What tenants pay, where the stack says it. */
  readonly charged: CloudPlan["models"][number]["price"];
}

/** Something that all fleets share. */
export interface SharedCost {
  readonly id: string;
  readonly name: string;
  /** FOCUS's service category. */
  readonly category: "Compute" | "Storage" | "Networking" | "Databases" | "Management and Governance";
  readonly quantity: Levels<number>;
  /** What the quantity counts. */
  readonly unit: string;
  readonly usdPerUnit: number | null;
  readonly source: string;
  readonly asOf: string;
  readonly cost: Levels<Amount>;
  /** What nobody sees in a list of machines: fees, NAT, endpoints, logs. */
  readonly isHiddenFloor: boolean;
}

/** Hours of nodes by the way they are bought, at the expected level. */
export interface CapacityShare {
  readonly capacity: CapacityType;
  readonly nodes: number;
  readonly share: number;
  readonly cost: Amount;
}

export interface PriceSource {
  readonly source: string;
  readonly asOf: string;
  readonly ageDays: number;
  readonly isStale: boolean;
}

/** What a stack costs: plain JSON, the same for the same plan, prices and assumptions. Amounts are of a month. */
export interface CostReport {
  readonly version: 1;
  readonly stack: string;
  readonly displayName: string;
  readonly cloud: CloudPlan["cloud"];
  readonly environment: CloudPlan["environment"];
  readonly region: string;
  readonly currency: "USD";
  readonly hoursPerMonth: number;
  readonly tags: Readonly<Record<string, string>>;
  readonly assumptions: Assumptions;
  readonly assumptionLines: readonly string[];
  readonly total: Levels<Amount>;
  readonly hourlyTotal: Levels<Amount>;
  readonly pools: readonly PoolCost[];
  readonly fleets: readonly FleetCost[];
  readonly models: readonly ModelCost[];
  readonly shared: readonly SharedCost[];
  readonly hiddenFloor: Levels<Amount>;
  /** Nodes at their minimum, the share of them that does nothing. */
  readonly idle: Amount;
  readonly capacity: readonly CapacityShare[];
  readonly budget: {
    readonly monthlyUsd: number;
    readonly hourlyUsd: number | null;
    readonly maxGpus: number | null;
    readonly lines: readonly string[];
  };
  readonly sources: readonly PriceSource[];
  /** What has no price; amounts that it is part of name it too. */
  readonly unknown: readonly string[];
  readonly notIncluded: readonly string[];
}
