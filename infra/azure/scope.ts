import * as authorization from "@pulumi/azure-native/authorization/index.js";
import * as resources from "@pulumi/azure-native/resources/index.js";
import type * as pulumi from "@pulumi/pulumi";
import { concern } from "../lib/concern.ts";
import type { CloudPlan, PlannedCache } from "../plan/plan.ts";

/** A plan for Azure. */
export type AzurePlan = CloudPlan & {
  readonly cloud: "azure";
  readonly cache: PlannedCache & { readonly cloud: "azure" };
};

/** What every concern needs to know. */
export interface Scope {
  readonly plan: AzurePlan;
  /** Where each resource goes: spread into its arguments. */
  readonly place: { readonly resourceGroupName: pulumi.Output<string>; readonly location: string };
  readonly resourceGroupId: pulumi.Output<string>;
  readonly subscriptionId: pulumi.Output<string>;
  readonly tenantId: pulumi.Output<string>;
  /** Who deploys. */
  readonly deployerId: pulumi.Output<string>;
  readonly tags: Readonly<Record<string, string>>;
  /** For what holds data: nothing removes it by accident in production. */
  readonly stateful: { readonly protect: boolean };
}

/** True of a plan for Azure. */
export function isAzure(plan: CloudPlan): plan is AzurePlan {
  return plan.cloud === "azure" && plan.cache.cloud === "azure";
}

/** The resource group, and who and where we are. */
export function scopeOf(plan: AzurePlan): Scope {
  const client = authorization.getClientConfigOutput();
  const stateful = { protect: plan.environment === "prod" };
  const group = concern(
    "azure",
    "group",
    (child) =>
      new resources.ResourceGroup(
        "group",
        { resourceGroupName: plan.prefix, location: plan.region, tags: { ...plan.tags } },
        { ...child, ...stateful },
      ),
  );
  return {
    plan,
    place: { resourceGroupName: group.name, location: plan.region },
    resourceGroupId: group.id,
    subscriptionId: client.subscriptionId,
    tenantId: client.tenantId,
    deployerId: client.objectId,
    tags: plan.tags,
    stateful,
  };
}
