import type * as pulumi from "@pulumi/pulumi";
import type { CloudOutputs } from "../cloud.ts";
import type { CloudPlan } from "../plan/plan.ts";

/** What every part of a deployment is made from. */
export interface Cluster {
  readonly plan: CloudPlan;
  readonly cloud: CloudOutputs;
  /** The provider of this cluster, the parent, and what must be there before. */
  readonly options: pulumi.CustomResourceOptions;
}

/** A class of Kubernetes objects, as `@pulumi/kubernetes` has them. */
type ObjectClass<Args, Made> = new (name: string, args: Args, options: pulumi.CustomResourceOptions) => Made;

/** Declares an object of the cluster. Pulumi knows it by the name that it has there. */
export function declare<Args, Made>(
  { options }: Cluster,
  kind: ObjectClass<Args, Made>,
  args: NoInfer<Args> & { readonly metadata: { readonly name: string } },
): Made {
  return new kind(args.metadata.name, args, options);
}

/** The same cluster for an object with options of its own. */
export function withOptions(cluster: Cluster, options: pulumi.CustomResourceOptions): Cluster {
  return { ...cluster, options: { ...cluster.options, ...options } };
}

/** The add-on of this name, when the plan has it. */
export function addOn({ addOns }: CloudPlan, name: string): CloudPlan["addOns"][number] | undefined {
  return addOns.find((each) => each.name === name);
}

/** Pools of the same group, in the order to try. */
export function variantsOf({ pools }: CloudPlan, group: string): CloudPlan["pools"] {
  return pools.filter((pool) => pool.group === group).toSorted((one, other) => one.order - other.order);
}
