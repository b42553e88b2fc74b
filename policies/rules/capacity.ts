import { groupsOf } from "../../infra/plan/cost-range.ts";
import { findSize } from "../../infra/catalog/sizes.ts";
import { allowedRegions, gpusPerNode } from "../allowed.ts";
import { levels, type PlanRule } from "../rule.ts";

/** How nodes are bought, of which size, and how many stay when nobody asks. */
export const capacityRules: readonly PlanRule[] = [
  {
    id: "dev-spot",
    title: "Development has spot nodes alone",
    levels: levels.devOnly,
    severity: "medium",
    reason: "Spot costs a fraction, and in development nobody waits for the node that goes away.",
    remedy: "`capacity: [spot]` for the pool, and `spot: true` for its fleets.",
    judges: "plan",
    judge: ({ pools }) =>
      pools
        .filter(({ capacity }) => capacity !== "spot")
        .map(({ name, capacity }) => ({ on: name, problem: `it is bought as ${capacity}` })),
  },
  {
    id: "dev-scale-to-zero",
    title: "Development goes down to no GPU at all",
    levels: levels.devOnly,
    severity: "high",
    reason: "A GPU that is kept over a weekend costs more than the week's work on it.",
    remedy: "`replicas.min: 0` for fleets, `minNodes: 0` and `warmSpares: 0` for pools, no schedules.",
    judges: "plan",
    judge: ({ pools, fleets }) => [
      ...pools
        .filter(({ minNodes, groupNodes, warmSpares }) => minNodes + groupNodes.min + warmSpares > 0)
        .map(({ name, groupNodes, warmSpares }) => ({
          on: name,
          problem: `it keeps ${groupNodes.min} nodes and ${warmSpares} spares`,
        })),
      ...fleets
        .filter(({ replicas, scaling }) => replicas.min > 0 || scaling.schedule.length > 0)
        .map(({ name, replicas }) => ({ on: name, problem: `it keeps ${replicas.min} replicas, or more by schedule` })),
    ],
  },
  {
    id: "prod-not-spot-alone",
    title: "A fleet that always runs has nodes that nobody takes away",
    levels: levels.prodOnly,
    severity: "high",
    reason: "Spot nodes of one size go away together, with 30 seconds (Azure) or two minutes (AWS) of notice.",
    remedy: "Add on-demand to the pool's capacity, after spot.",
    judges: "plan",
    judge: ({ pools, fleets }) =>
      fleets
        .filter(({ replicas }) => replicas.min > 0)
        .filter(({ pool }) => pools.filter(({ group }) => group === pool).every(({ capacity }) => capacity === "spot"))
        .map(({ name, pool }) => ({ on: name, problem: `its pool ${pool} has spot nodes alone` })),
  },
  {
    id: "allowed-regions",
    title: "The region is one of those allowed",
    levels: levels.always,
    severity: "high",
    reason: "Where data is may be a matter of law, and what a region costs must be known.",
    remedy: "Take another region, or add this one to policies/allowed.ts.",
    judges: "plan",
    judge: ({ region }) =>
      allowedRegions.includes(region) ? [] : [{ on: "region", problem: `${region} is not allowed` }],
  },
  {
    id: "allowed-sizes",
    title: "Node sizes are known, usable, and not larger than the environment needs",
    levels: levels.always,
    severity: "high",
    reason: "Of a size that the catalogue does not know nobody can say what it costs or what fits on it.",
    remedy: "Take another size, or raise gpusPerNode in policies/allowed.ts.",
    judges: "plan",
    judge: ({ pools, cloud }, { environment }) =>
      pools.flatMap(({ name, size, gpu }) => {
        const known = findSize(cloud, size);
        if (known === undefined) return [{ on: name, problem: `the catalogue does not know ${size}` }];
        if (known.unusable !== undefined) return [{ on: name, problem: `${size} is unusable: ${known.unusable}` }];
        const most = gpusPerNode[environment];
        return gpu.count > most ? [{ on: name, problem: `${size} has ${gpu.count} GPUs; ${most} are allowed` }] : [];
      }),
  },
  {
    id: "autoscaler-consistency",
    title: "Fleets together fit on their pool at their maxima",
    levels: levels.said,
    severity: "medium",
    reason: "Replicas for which there can be no node stay pending, and hold requests that wait for them.",
    remedy: "Raise maxNodes of the pool, or lower replicas.max of its fleets.",
    judges: "plan",
    judge: (plan) =>
      groupsOf(plan).flatMap(([{ group, groupNodes, gpu }]) => {
        const wanted = plan.fleets
          .filter(({ pool }) => pool === group)
          .reduce((sum, { replicas, gpusPerReplica }) => sum + replicas.max * gpusPerReplica, 0);
        const there = groupNodes.max * gpu.count;
        return wanted > there ? [{ on: group, problem: `its fleets want ${wanted} GPUs, and it has ${there}` }] : [];
      }),
  },
];
