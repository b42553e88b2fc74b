import type { CloudPlan } from "../../infra/plan/plan.ts";
import { planStack } from "../../infra/plan/plan-stack.ts";
import { checkStack } from "../../infra/stack/load.ts";
import { PenstockError } from "../../runtime/contracts/errors.ts";

/** A stack as an operator writes it, for tests that change a part of it. */
export type WrittenStack = Record<string, unknown>;

const common = {
  version: 1,
  prefix: "penstock-test",
  environment: "dev",
  models: [{ id: "llama", source: "hf://meta-llama/Llama-3.1-8B-Instruct", format: "safetensors" }],
  gateway: { hostname: "llm.example.com" },
  budget: { monthlyUsd: 1000, alertEmails: ["finops@example.com"] },
} as const;

/** A fleet for the model of these stacks. */
export const fleet = {
  name: "small",
  engine: { kind: "vllm" },
  models: ["llama"],
  pool: "gpus",
  replicas: { min: 1, max: 2 },
  contextTokens: 8192,
} as const;

/** A small stack on AWS: one pool of an L40S each, one fleet. */
export const awsStack: WrittenStack = {
  ...common,
  cloud: "aws",
  region: "us-east-1",
  cache: { bucket: "penstock-test-models" },
  pools: [{ name: "gpus", sizes: ["g6e.2xlarge"], maxNodes: 4 }],
  fleets: [fleet],
};

/** The same on Azure, with an A100 each. */
export const azureStack: WrittenStack = {
  ...common,
  cloud: "azure",
  region: "eastus2",
  cache: { account: "penstocktestmodels" },
  pools: [{ name: "gpus", sizes: ["Standard_NC24ads_A100_v4"], maxNodes: 4 }],
  fleets: [fleet],
};

/** A model of the catalogue, by its shape. */
export function model(id: string, shape: unknown, change: WrittenStack = {}): WrittenStack {
  return { id, source: `s3://elsewhere/${id}`, format: "safetensors", shape, ...change };
}

/** The plan of a stack as it is written. Throws what the operator would see. */
export function planned(stack: WrittenStack, stackName = "test"): CloudPlan {
  const plan = planStack(checkStack(stack, "/stacks/Pulumi.test.yaml"), { stackName });
  if (plan.cloud === "local") throw new Error("a local stack");
  return plan;
}

/** What is refused about a stack, by the loader or the planner; empty when nothing is. */
export function refusalOf(stack: WrittenStack): string {
  try {
    planned(stack);
    return "";
  } catch (error) {
    if (error instanceof PenstockError && error.code === "invalid_config") return error.message;
    throw error;
  }
}
