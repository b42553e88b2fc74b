import type { CloudPlan, PlannedFleet } from "../plan/plan.ts";
import { divided, hoursPerMonth, microUsdOf, sumOf, type Amount } from "./money.ts";
import type { CostReport, Level, PoolCost } from "./report.ts";
import { Costs, nobodysKey, type Kind, type UsageCost } from "./usage-costs.ts";
import type { ReplicaSeconds, UsageKey, UsageSums } from "./usage.ts";

/** A pool's bill and what became of it. */
export interface PoolBill {
  readonly pool: string;
  /** Null: it has no known price and nobody stated the bill. */
  readonly billMicroUsd: number | null;
  readonly source: string;
  readonly directMicroUsd: number;
  readonly coldStartMicroUsd: number;
  readonly idleMicroUsd: number;
}

/** Usage joined with prices. Parts add up to the bills exactly. */
export interface UsageReport {
  readonly version: 1;
  readonly stack: string;
  readonly hours: number;
  readonly rows: readonly UsageCost[];
  readonly pools: readonly PoolBill[];
  readonly sharedBillMicroUsd: number;
  readonly providerMicroUsd: number;
  readonly totalMicroUsd: number;
  /** What could not be joined, or is not in the sums: each a sentence. */
  readonly gaps: readonly string[];
}

export interface AllocationOptions {
  readonly hours: number;
  /** How many nodes there were, where no bill is stated. */
  readonly level: Level;
  /** Bills in USD by pool, and `shared`: what the cloud's invoice says. */
  readonly bills: Readonly<Record<string, number>>;
  /** Time of replicas by model: from a gateway's metrics, or what the records tell. The rest of the nodes' time is idle. */
  readonly times: ReadonlyMap<string, ReplicaSeconds>;
}

interface Share {
  readonly key: UsageKey;
  readonly kind: Kind;
  readonly weight: number;
}

/**
 * Divides each pool's bill among those who used it: time at work by tokens, cold starts by who waited for them, idle time
 * of a model by who uses it, and nodes without a replica by who uses the pool. Then the shared bill by all of that.
 */
export function allocated(
  {
    plan,
    report,
    usage,
  }: { readonly plan: CloudPlan; readonly report: CostReport; readonly usage: readonly UsageSums[] },
  options: AllocationOptions,
): UsageReport {
  const own = usage.filter(({ provider }) => provider === null);
  const known = own.filter(({ model }) => plan.models.some(({ id }) => id === model));
  const costs = new Costs(usage.filter((row) => row.provider !== null || known.includes(row)));
  const pools = report.pools.map((pool) => {
    const bill = billOf(pool, options);
    const shares = bill.microUsd === null ? [] : sharesOf(pool, { plan, usage: known, options });
    const parts = divided(
      bill.microUsd ?? 0,
      shares.map(({ weight }) => weight),
    );
    for (const [at, { key, kind }] of shares.entries()) costs.add(key, kind, parts[at] ?? 0);
    const sum = (kind: Kind): number =>
      shares.reduce((total, share, at) => total + (share.kind === kind ? (parts[at] ?? 0) : 0), 0);
    return {
      pool: pool.name,
      billMicroUsd: bill.microUsd,
      source: bill.source,
      directMicroUsd: sum("direct"),
      coldStartMicroUsd: sum("coldStart"),
      idleMicroUsd: sum("idle"),
    };
  });
  const shared = sharedBillOf(report, options);
  costs.share(shared.microUsd);
  const unpriced = new Set(pools.flatMap(({ pool, billMicroUsd }) => (billMicroUsd === null ? [pool] : [])));
  const rows = costs.rows(new Set(plan.fleets.flatMap(({ pool, models }) => (unpriced.has(pool) ? models : []))));
  return {
    version: 1,
    stack: plan.stack,
    hours: options.hours,
    rows,
    pools,
    sharedBillMicroUsd: shared.microUsd,
    providerMicroUsd: rows.reduce((sum, row) => sum + row.providerMicroUsd, 0),
    totalMicroUsd: rows.reduce((sum, row) => sum + row.totalMicroUsd, 0),
    gaps: [...unknownModels(own, known), ...pools.flatMap(poolGaps), ...shared.gaps],
  };
}

interface Bill {
  readonly microUsd: number | null;
  readonly source: string;
}

/** In whole cents, as bills are. */
function billOf({ name, cost, nodes }: PoolCost, { bills, level, hours }: AllocationOptions): Bill {
  const stated = bills[name];
  if (stated !== undefined) return { microUsd: cents(microUsdOf(stated)), source: "as stated" };
  const amount = cost[level];
  if (amount.unknown.length > 0) return { microUsd: null, source: `no price known: ${amount.unknown.join(", ")}` };
  const count = Number(nodes[level].toFixed(2));
  const source = `${count} ${count === 1 ? "node" : "nodes"} (${level}) for ${Number(hours.toFixed(2))} h at list prices`;
  return { microUsd: cents((amount.lowMicroUsd * hours) / hoursPerMonth), source };
}

function sharedBillOf(
  { shared }: CostReport,
  { bills, level, hours }: AllocationOptions,
): { readonly microUsd: number; readonly gaps: readonly string[] } {
  const stated = bills["shared"];
  if (stated !== undefined) return { microUsd: cents(microUsdOf(stated)), gaps: [] };
  const amount: Amount = sumOf(shared.map(({ cost }) => cost[level]));
  const gaps = amount.unknown.map(
    (name) => `shared: ${name} has no price and is in no sum; state the bill with --bill shared=USD`,
  );
  return { microUsd: cents((amount.lowMicroUsd * hours) / hoursPerMonth), gaps };
}

function cents(microUsd: number): number {
  return Math.round(microUsd / 10_000) * 10_000;
}

interface Context {
  readonly plan: CloudPlan;
  readonly usage: readonly UsageSums[];
  readonly options: AllocationOptions;
}

/** Who has which part of a pool, in seconds of its nodes. */
function sharesOf(pool: PoolCost, { plan, usage, options }: Context): Share[] {
  const fleets = plan.fleets.filter((fleet) => fleet.pool === pool.name);
  const shares = fleets.flatMap((fleet) =>
    fleet.models.flatMap((model) => modelShares(fleet, model, { plan, usage, options })),
  );
  const covered = shares.reduce((sum, { weight }) => sum + weight, 0);
  const rest = Math.max(0, nodeSeconds(pool, options) - covered);
  const direct = shares.filter(({ kind }) => kind === "direct").map(({ key, weight }) => ({ key, by: weight }));
  const rows = usage.filter(({ model }) => fleets.some(({ models }) => models.includes(model)));
  const own = sharedOut(rest, direct.length > 0 ? direct : byWork(rows), "idle");
  const isWhole = own.length > 0 || (rest === 0 && covered > 0);
  return [...shares, ...(isWhole ? own : [nobodys(`(pool ${pool.name})`, rest || 1)])];
}

/** Seconds that the pool's nodes were there, all together; 0 where nobody can say. */
function nodeSeconds({ name, nodes, cost }: PoolCost, { bills, level, hours }: AllocationOptions): number {
  const stated = bills[name];
  if (stated === undefined) return nodes[level] * hours * 3600;
  const { lowMicroUsd, unknown } = cost[level];
  if (unknown.length > 0 || lowMicroUsd === 0) return 0;
  const microUsdPerNodeSecond = lowMicroUsd / hoursPerMonth / 3600 / nodes[level];
  return microUsdOf(stated) / microUsdPerNodeSecond;
}

function modelShares(fleet: PlannedFleet, model: string, { usage, options }: Context): Share[] {
  const rows = usage.filter((row) => row.model === model);
  const seconds = options.times.get(model) ?? { busy: 0, idle: 0, coldStart: 0 };
  const perReplica = 1 / fleet.replicasPerNode;
  const users = byWork(rows);
  const byColdStart = rows.map((key) => ({ key, by: key.coldStartSeconds }));
  const orNobody = (shares: Share[], weight: number): Share[] =>
    shares.length > 0 || weight === 0 ? shares : [nobodys(model, weight)];
  return [
    ...orNobody(sharedOut(seconds.busy * perReplica, users, "direct"), seconds.busy * perReplica),
    ...orNobody(sharedOut(seconds.coldStart * perReplica, byColdStart, "coldStart"), seconds.coldStart * perReplica),
    ...orNobody(sharedOut(seconds.idle * perReplica, users, "idle"), seconds.idle * perReplica),
  ];
}

/** Keys by the tokens of their requests; by the requests where engines counted none. */
function byWork(rows: readonly UsageSums[]): { readonly key: UsageKey; readonly by: number }[] {
  const hasWork = rows.some(({ work }) => work > 0);
  return rows.map((key) => ({ key, by: hasWork ? key.work : key.requests }));
}

/** `weight` among keys in proportion; none when nobody has any part. */
function sharedOut(
  weight: number,
  parts: readonly { readonly key: UsageKey; readonly by: number }[],
  kind: Kind,
): Share[] {
  const sum = parts.reduce((total, { by }) => total + by, 0);
  if (sum === 0 || weight === 0) return [];
  return parts.filter(({ by }) => by > 0).map(({ key, by }) => ({ key, kind, weight: (weight * by) / sum }));
}

function nobodys(model: string, weight: number): Share {
  return { key: nobodysKey(model), kind: "idle", weight };
}

function unknownModels(own: readonly UsageSums[], known: readonly UsageSums[]): string[] {
  const others = own.filter((row) => !known.includes(row));
  return [...Map.groupBy(others, ({ model }) => model)].map(([model, rows]) => {
    const requests = rows.reduce((sum, row) => sum + row.requests, 0);
    const tokens = rows.reduce((sum, row) => sum + row.promptTokens + row.completionTokens, 0);
    return `model ${model}: ${requests} ${requests === 1 ? "request" : "requests"} with ${tokens} tokens, and the plan does not know it: no part of any bill is theirs`;
  });
}

function poolGaps({ pool, billMicroUsd, source }: PoolBill): string[] {
  return billMicroUsd === null
    ? [`pool ${pool}: ${source}; nothing of it is in any sum. State its bill with --bill ${pool}=USD`]
    : [];
}
