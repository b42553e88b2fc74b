import { fileURLToPath } from "node:url";
import type { CloudPlan, Plan } from "../../infra/plan/plan.ts";
import { planStack } from "../../infra/plan/plan-stack.ts";
import { loadStack } from "../../infra/stack/load.ts";
import type { StackConfig } from "../../infra/stack/schema.ts";

/** Stacks that come with Penstock. */
export const stackNames = ["aws-dev", "aws-prod", "azure-dev", "azure-prod", "local"] as const;
export type StackName = (typeof stackNames)[number];
type CloudStackName = Exclude<StackName, "local">;

/** The stack as it is checked in. */
export async function stackOf(name: StackName): Promise<StackConfig> {
  return loadStack(fileURLToPath(new URL(`../../stacks/Pulumi.${name}.yaml`, import.meta.url)));
}

/** The real plan of a stack that comes with Penstock. */
export async function planOf(name: CloudStackName): Promise<CloudPlan>;
export async function planOf(name: StackName): Promise<Plan>;
export async function planOf(name: StackName): Promise<Plan> {
  return planStack(await stackOf(name), { stackName: name });
}
