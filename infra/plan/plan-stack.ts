import { PenstockError } from "../../runtime/contracts/errors.ts";
import type { CloudStack, LocalStack, StackConfig } from "../stack/schema.ts";
import { cheapestSize } from "./auto.ts";
import { costRange, groupsOf } from "./cost-range.ts";
import { coldStartProblem, plannedFleet, type PlacedFleet } from "./fleets.ts";
import { groupOf, nodesFor, regionProblem, type Group } from "./groups.ts";
import { adapterGiB, plannedModel, shapedModel } from "./models.ts";
import { weightsOf } from "./model-memory.ts";
import { needOf, type FleetNeed, type ShapedModel } from "./need.ts";
import type { CloudPlan, LocalPlan, Plan } from "./plan.ts";
import {
  plannedAddOns,
  plannedCache,
  plannedCluster,
  plannedGateway,
  plannedObservability,
  plannedPostgres,
  plannedRedis,
} from "./services.ts";
import { sizeFleet } from "./sizing.ts";
import { count, round, usdPerHour } from "./text.ts";
import { stackZones, variantsOf, type Demand } from "./variants.ts";

/** What the planner is told beside the stack. */
export interface PlanOptions {
  /** Pulumi's name of the stack, such as `azure-prod`. */
  readonly stackName: string;
}

/**
 * The plan of a stack: pure, the same for the same input. Throws `invalid_config` that lists every problem at once, each
 * with its path in the stack and the remedy; a size that does not fit shows its arithmetic.
 */
export function planStack(stack: StackConfig, options: PlanOptions): Plan {
  return stack.cloud === "local" ? localPlan(stack, options) : cloudPlan(stack, options);
}

function localPlan(stack: LocalStack, { stackName }: PlanOptions): LocalPlan {
  const { host, port, maxBodyMiB, drainSeconds, hold } = stack.gateway;
  return {
    version: 1,
    cloud: "local",
    stack: stackName,
    gateway: { host, port, maxBodyMiB, drainSeconds, hold },
    models: stack.models,
    fleets: stack.fleets,
    why: ["one machine: `npm start` serves this, and nothing is provisioned"],
  };
}

function cloudPlan(stack: CloudStack, { stackName }: PlanOptions): CloudPlan {
  const problems: string[] = [];
  const report = (problem: string): void => {
    problems.push(problem);
  };
  const region = regionProblem(stack);
  if (region !== null) throw refused(stackName, [region]);
  const groups = stack.pools.map((_, at) => groupOf(stack, at, report));
  const models = stack.models.map((model, at) => shapedModel(model, at, report));
  const placed = placeFleets(stack, { groups, models }, report);
  const cluster = plannedCluster(stack, report);
  const redis = plannedRedis(stack, report);
  const pools = plannedPools(stack, { groups, placed }, report);
  for (const fleet of placed) reportIf(coldStartProblem(stack, fleet), report);
  if (problems.length > 0) throw refused(stackName, problems);
  const fleets = placed.map((fleet) => plannedFleet(stack, fleet)).toSorted(byName);
  const observability = plannedObservability(stack);
  const plan = {
    version: 1 as const,
    cloud: stack.cloud,
    stack: stackName,
    prefix: stack.prefix,
    displayName: stack.displayName ?? stack.prefix,
    environment: stack.environment,
    region: stack.region,
    zones: stackZones(stack),
    tags: tagsOf(stack, stackName),
    network: { ...stack.network, why: networkReasons(stack) },
    cluster,
    pools,
    models: placed
      .flatMap(({ need }) => need.models.map((model) => plannedModel(stack, need, model)))
      .toSorted((a, b) => a.id.localeCompare(b.id)),
    fleets,
    gateway: plannedGateway(stack),
    cache: plannedCache(stack, contentsGiB(placed)),
    redis,
    postgres: plannedPostgres(stack),
    observability,
    addOns: plannedAddOns({ cloud: stack.cloud, pools, fleets, observability }),
    budget: { ...stack.budget, why: [] },
  };
  const { maxUsdPerHour } = costRange(plan);
  return { ...plan, budget: { ...stack.budget, why: budgetReasons({ pools, maxUsdPerHour }) } };
}

function reportIf(problem: string | null, report: (problem: string) => void): void {
  if (problem !== null) report(problem);
}

const byName = (a: { readonly name: string }, b: { readonly name: string }): number => a.name.localeCompare(b.name);

interface Parts {
  readonly groups: readonly (Group | null)[];
  readonly models: readonly (ShapedModel | null)[];
}

/** Every fleet that can be placed; the reasons of the others go to `report`. */
function placeFleets(stack: CloudStack, parts: Parts, report: (problem: string) => void): PlacedFleet[] {
  return stack.fleets.flatMap((config, at) => {
    const models = config.models.flatMap((id) => parts.models.find((model) => model?.config.id === id) ?? []);
    const need = needOf({ config, at }, models, report);
    if (need === null) return [];
    return config.pool === undefined
      ? placeAnywhere(stack, need, report)
      : placeOnPool(stack, { need, groups: parts.groups }, report);
  });
}

function placeAnywhere(stack: CloudStack, need: FleetNeed, report: (problem: string) => void): PlacedFleet[] {
  const result = cheapestSize(stack, need);
  if (result.ok) return [{ need, group: result.group, sizing: result.sizing }];
  report(
    `fleets[${need.at}].gpu: no size in ${stack.region} fits: ${result.reasons.join(" | ")}; ` +
      `lower concurrency (${need.config.concurrency}) or contextTokens (${need.contextTokens}), or quantise the weights`,
  );
  return [];
}

function placeOnPool(
  stack: CloudStack,
  { need, groups }: { readonly need: FleetNeed; readonly groups: Parts["groups"] },
  report: (problem: string) => void,
): PlacedFleet[] {
  const group = groups.find((candidate) => candidate?.config.name === need.config.pool);
  // The pool has its own problem, or cross-checks have told that there is none.
  if (group === undefined || group === null) return [];
  const result = sizeFleet(need, group.sizes, group.config.maxNodes);
  if (result.ok) return [{ need, group, sizing: result.sizing }];
  const where = `fleets[${need.at}]${result.path}`;
  report(
    `${where}: ${idsOf(need)} on pool \`${group.config.name}\`: ${result.reasons.join("; ")}; ${remedy(stack, need)}`,
  );
  return [];
}

function idsOf({ models }: FleetNeed): string {
  return models.map(({ config }) => `\`${config.id}\``).join(", ");
}

function remedy(stack: CloudStack, need: FleetNeed): string {
  const lower = `lower concurrency (${need.config.concurrency}) or contextTokens (${need.contextTokens})`;
  const auto = cheapestSize(stack, need);
  return auto.ok
    ? `${lower}, or use a pool of ${auto.group.config.sizes.join(", ")}, which fits`
    : `${lower}, or quantise the weights`;
}

/** Pools of the stack in its order, then those that the planner made. */
function plannedPools(
  stack: CloudStack,
  { groups, placed }: { readonly groups: Parts["groups"]; readonly placed: readonly PlacedFleet[] },
  report: (problem: string) => void,
): CloudPlan["pools"] {
  const made = placed.flatMap(({ group, need }) => (need.config.pool === undefined ? [group] : []));
  const all = [...groups.flatMap((group) => group ?? []), ...made];
  const taken = made.filter(({ config }) => stack.pools.some(({ name }) => name === config.name));
  for (const { path, config } of taken) {
    report(`${path}.gpu: the planner's pool would be called \`${config.name}\`, as one of pools is; rename that one`);
  }
  return all
    .flatMap((group) => {
      const demand = demandOf(group, placed);
      const wanted = demand.max + group.config.warmSpares;
      if (wanted > group.config.maxNodes) {
        report(
          `${group.path}.maxNodes: ${group.config.maxNodes}, and its fleets may need ${count(demand.max, "node")} with ` +
            `${group.config.warmSpares} spare; raise it to ${wanted}, or lower their replicas.max`,
        );
      }
      return variantsOf(stack, group, demand);
    })
    .toSorted((a, b) => a.group.localeCompare(b.group) || a.order - b.order);
}

/** Nodes that the fleets of a group keep and take. Fleets on one node each share it by their GPUs. */
function demandOf(group: Group, placed: readonly PlacedFleet[]): Demand {
  const fleets = placed.filter((fleet) => fleet.group.config.name === group.config.name);
  const nodes = (bound: "min" | "max"): number => {
    const shared = fleets.filter(({ sizing }) => sizing.layout.nodes === 1);
    const parts = shared.reduce(
      (sum, { need, sizing }) => sum + need.config.replicas[bound] / sizing.replicasPerNode,
      0,
    );
    const whole = fleets
      .filter(({ sizing }) => sizing.layout.nodes > 1)
      .reduce((sum, { need, sizing }) => sum + nodesFor(need.config.replicas[bound], sizing.replicasPerNode), 0);
    return Math.ceil(parts - 1e-9) + whole;
  };
  return { min: nodes("min"), max: nodes("max"), multiNode: fleets.some(({ sizing }) => sizing.layout.nodes > 1) };
}

function contentsGiB(placed: readonly PlacedFleet[]): number {
  return placed
    .flatMap(({ need }) =>
      need.models.map(
        (model) => weightsOf(model.shape, null).fileGiB + model.config.adapters.length * adapterGiB(need, model),
      ),
    )
    .reduce((sum, each) => sum + each, 0);
}

function tagsOf(stack: CloudStack, stackName: string): Record<string, string> {
  const tags = { ...stack.tags, environment: stack.environment, "managed-by": "penstock", stack: stackName };
  return Object.fromEntries(Object.entries(tags).toSorted(([a], [b]) => a.localeCompare(b)));
}

function networkReasons({ network, cloud, environment }: CloudStack): string[] {
  const full = "private endpoints for every service used: no traffic of the platform leaves the cloud's network";
  const minimal = {
    aws: "S3 through a gateway endpoint, which is free; the rest through NAT, which costs 0.045 USD a GB",
    azure:
      environment === "dev"
        ? "no private endpoint for the cache: the nodes' service endpoint is free"
        : "a private endpoint for the cache alone: 0.01 USD an hour, and a GB",
  };
  return [`${network.cidr} for nodes and pods`, network.endpoints === "full" ? full : minimal[cloud]];
}

/** What the plan can take of the budget at its most. */
function budgetReasons({ pools, maxUsdPerHour }: { pools: CloudPlan["pools"]; maxUsdPerHour: number }): string[] {
  const gpus = groupsOf({ pools })
    .map((variants) => variants[0].groupNodes.max * Math.max(...variants.map(({ gpu }) => gpu.count)))
    .reduce((sum, each) => sum + each, 0);
  return [
    "alerts at 50, 80 and 100 % of the month; the hard caps are the pools' maxima",
    `at those, ${count(gpus, "GPU")}, and ${usdPerHour(round(maxUsdPerHour))} by the list for nodes and stores`,
  ];
}

function refused(stackName: string, problems: readonly string[]): PenstockError {
  const lines = [...new Set(problems)].map((problem) => `  ${problem}`).join("\n");
  const problemCount = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
  return new PenstockError("invalid_config", `The stack ${stackName} cannot be planned, ${problemCount}:\n${lines}`);
}
