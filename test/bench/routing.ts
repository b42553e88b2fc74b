import { parseArgs } from "node:util";
import { policies } from "../../runtime/gateway/routing/index.ts";
import { chwbl } from "../../runtime/gateway/routing/policies/chwbl.ts";
import type { Policy } from "../../runtime/gateway/routing/policy.ts";
import { costProfiles, type CostProfile } from "../fakes/engine/cost.ts";
import { decisionTimes, printDecisions } from "./routing-decision.ts";
import { isTooBusy, throughGateway, type Busy } from "./routing-gateway.ts";
import { measure, printRows, type Row, type Workload } from "./routing-report.ts";
import { simulation, type Driver } from "./routing-simulation.ts";
import { generateConversations, generateSharedPrefixes, readTrace, type TraceRequest } from "./routing-trace.ts";

const help = `Replays traces against simulated engines, once for each routing policy: with the router alone in simulated time, then a
part of the traces through the gateway's program and sockets. Then what a decision costs.

Usage: npm run bench:routing -- [--simulated | --through-gateway] [--trace FILE] [--seeds 3] [--policy NAME]... [--json]

  --simulated       only in simulated time: every policy, whole traces; the same figures in each run
  --through-gateway only through the gateway, with whole traces
  --trace FILE      Mooncake trace (JSON lines) in place of generated conversations; or the variable PENSTOCK_TRACE
  --raw             leaves the requests of a trace at their ticks of 3 s
  --seconds N       only the first N seconds of each trace
  --speed N         speed-up of the conversations for all columns but the last two
  --seeds N         replays with different noise; the capacity is the median of theirs
  --first-seed N    of seeds N, N + 1, ...
  --engines N       engines behind the router (8)
  --heartbeat-ms N  age that what engines say of themselves may have, in simulated time
  --time-scale N    simulated seconds in a second, through the gateway
  --mixed           every second engine is an A100 instead of an H100
  --policy NAME     only that one; may be repeated
  --json            a line for each table

Through the gateway the times of engines and arrivals are divided by the time scale, and figures multiplied by it again. What
is not scaled counts for as much more: what the gateway itself takes, a machine that is busy, and heartbeats, which come once
a real second.
`;

const { values } = parseArgs({
  options: {
    simulated: { type: "boolean", default: false },
    "through-gateway": { type: "boolean", default: false },
    trace: { type: "string", default: process.env["PENSTOCK_TRACE"] ?? "" },
    raw: { type: "boolean", default: false },
    seconds: { type: "string" },
    speed: { type: "string", default: "2.5" },
    seeds: { type: "string" },
    "first-seed": { type: "string", default: "1" },
    engines: { type: "string", default: "8" },
    "heartbeat-ms": { type: "string", default: "1000" },
    "time-scale": { type: "string", default: "5" },
    mixed: { type: "boolean", default: false },
    policy: { type: "string", multiple: true, default: [] },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

/** What KubeAI does with its defaults: the first characters decide. Not to be had in a gateway's config. */
const firstBlock = chwbl("chwbl_first_block", 1);
/** Policies that go through the gateway unless others are named: the default, and what others run by default. */
const viaGateway: readonly Policy[] = [policies.predicted_cost, policies.weighted, policies.chwbl];

/** Traces with the noise of each seed, cut to `seconds`. */
interface Size {
  readonly seeds: number;
  readonly seconds: number;
  /** To how much the capacity is found out. */
  readonly precision: number;
}

type Sized = Workload & { readonly profiles: readonly CostProfile[] };

function workloads({ seeds, seconds, precision }: Size): Sized[] {
  const make = (trace: (seed: number) => readonly TraceRequest[]): (readonly TraceRequest[])[] =>
    Array.from({ length: Number(values.seeds ?? seeds) }, (_, index) =>
      trace(Number(values["first-seed"]) + index).filter(({ atMs }) => atMs < seconds * 1_000),
    );
  const conversations =
    values.trace === ""
      ? { name: "generated conversations", traces: make((seed) => generateConversations(seed)) }
      : { name: "conversation trace", traces: make((seed) => readTrace(values.trace, values.raw ? null : seed)) };
  return [
    {
      ...conversations,
      speed: Number(values.speed),
      search: { low: 0.5, high: 8, precision },
      // An 8B model on 80 GB.
      profiles: profilesOf(442_000),
    },
    {
      name: "shared prefixes 150x5",
      // An answer takes a minute near the highest speed: shorter ones tell how long a fleet can be overloaded.
      traces: make((seed) => generateSharedPrefixes(seed, { seconds: 1_200 })),
      speed: 3.5,
      search: { low: 1, high: 6, precision },
      // What llm-d's pods had, so that not all prefixes fit everywhere.
      profiles: profilesOf(308_000),
    },
  ];
}

function profilesOf(kvTokens: number): CostProfile[] {
  return Array.from({ length: Number(values.engines) }, (_, index) => ({
    ...costProfiles[values.mixed && index % 2 === 1 ? "8b-a100-tp1" : "8b-h100-tp1"],
    kvTokens,
  }));
}

async function table(workload: Sized, driver: Driver, contenders: readonly Policy[]): Promise<void> {
  const rows: Row[] = [];
  for (const policy of contenders) rows.push(await measure(driver, workload, policy));
  if (values.json) process.stdout.write(`${JSON.stringify({ workload: workload.name, rows })}\n`);
  else printRows(workload, rows);
}

async function simulated(): Promise<void> {
  const contenders = [...Object.values(policies), firstBlock].filter(isWanted);
  for (const workload of workloads({ seeds: 3, seconds: Number(values.seconds ?? Infinity), precision: 1.02 })) {
    const driver = simulation({ profiles: workload.profiles, heartbeatMs: Number(values["heartbeat-ms"]) });
    await table({ ...workload, name: `${workload.name}, simulated` }, driver, contenders);
  }
}

/** `seconds` and `precision` are for when nothing else is said. */
async function realGateway({ seconds, precision }: Omit<Size, "seeds">): Promise<void> {
  const scale = Number(values["time-scale"]);
  const contenders = values.policy.length === 0 ? viaGateway : Object.values(policies).filter(isWanted);
  for (const workload of workloads({ seeds: 1, seconds: Number(values.seconds ?? seconds), precision })) {
    const onRun = (what: string, busy: Busy): void => tellBusy(`${workload.name}: ${what}`, busy, scale);
    const driver = throughGateway({ profiles: workload.profiles, scale, onRun });
    const search = { ...workload.search, low: 1.5, high: 6 };
    await table({ ...workload, name: `${workload.name}, through the gateway`, search }, driver, contenders);
  }
}

function isWanted({ name }: Policy): boolean {
  return values.policy.length === 0 || values.policy.includes(name);
}

function tellBusy(what: string, busy: Busy, scale: number): void {
  const percent = (share: number): string => `${(share * 100).toFixed(0)} %`;
  const { gateway, engines, load, lateP99Ms } = busy;
  process.stderr.write(
    `${what}: of a core gateway ${percent(gateway)}, engines ${percent(engines)}, load ${percent(load)}; load late by ` +
      `${lateP99Ms.toFixed(0)} ms at most in 99 of 100${isTooBusy(busy, scale) ? "  WARNING: this machine was too busy" : ""}\n`,
  );
}

async function main(): Promise<void> {
  const both = values.simulated === values["through-gateway"];
  if (both || values.simulated) await simulated();
  if (both) await realGateway({ seconds: 90, precision: 1.25 });
  else if (values["through-gateway"]) await realGateway({ seconds: Infinity, precision: 1.08 });
  if (!both) return;
  const times = decisionTimes(policies.predicted_cost);
  if (values.json) process.stdout.write(`${JSON.stringify({ times })}\n`);
  else printDecisions(times);
}

if (values.help) process.stdout.write(help);
else await main();
