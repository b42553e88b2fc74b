import { parseArgs } from "node:util";
import { policies } from "../../runtime/gateway/routing/index.ts";
import { chwbl } from "../../runtime/gateway/routing/policies/chwbl.ts";
import type { Policy } from "../../runtime/gateway/routing/policy.ts";
import { costProfiles } from "../fakes/engine/cost.ts";
import { measure, printRows, type Row, type Workload } from "./routing-report.ts";
import { simulation } from "./routing-simulation.ts";
import { generateConversations, generateSharedPrefixes, readTrace } from "./routing-trace.ts";

const help = `Replays traces against simulated engines, once for each routing policy.

Usage: npm run bench:routing -- [--trace FILE] [--speed 3] [--seeds 2] [--engines 8] [--mixed] [--policy NAME]... [--json]

  --trace FILE     Mooncake trace (JSON lines) in place of generated conversations; or the variable PENSTOCK_TRACE
  --raw            leaves the requests of a trace at their ticks of 3 s
  --speed N        speed-up of the conversations for all columns but the last
  --seeds N        replays with different noise that are taken together
  --heartbeat-ms N age that what engines say of themselves may have
  --mixed          every second engine is an A100 instead of an H100
  --policy NAME    only that one; may be repeated
`;

const { values } = parseArgs({
  options: {
    trace: { type: "string", default: process.env["PENSTOCK_TRACE"] ?? "" },
    raw: { type: "boolean", default: false },
    speed: { type: "string", default: "2.5" },
    seeds: { type: "string", default: "2" },
    engines: { type: "string", default: "8" },
    "heartbeat-ms": { type: "string", default: "1000" },
    mixed: { type: "boolean", default: false },
    policy: { type: "string", multiple: true, default: [] },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

/** What KubeAI does with its defaults: the first characters decide. */
const contenders: readonly Policy[] = [...Object.values(policies), chwbl("chwbl_first_block", 1)];

/** KV tokens of a replica: an 8B model on 80 GB; and what llm-d's pods had, so that not all prefixes fit everywhere. */
const kvTokens = { conversations: 442_000, sharedPrefixes: 308_000 };

function workloads(): (Workload & { readonly kvTokens: number })[] {
  const seeds = Array.from({ length: Number(values.seeds) }, (_, index) => index + 1);
  const conversations =
    values.trace === ""
      ? { name: "generated conversations", traces: seeds.map((seed) => generateConversations(seed)) }
      : { name: "conversation trace", traces: seeds.map((seed) => readTrace(values.trace, values.raw ? null : seed)) };
  const sharedPrefixes = { name: "shared prefixes 150x5", traces: seeds.map((seed) => generateSharedPrefixes(seed)) };
  return [
    { ...conversations, speed: Number(values.speed), kvTokens: kvTokens.conversations },
    { ...sharedPrefixes, speed: 4, kvTokens: kvTokens.sharedPrefixes },
  ];
}

async function main(): Promise<void> {
  for (const workload of workloads()) {
    const profiles = Array.from({ length: Number(values.engines) }, (_, index) => ({
      ...costProfiles[values.mixed && index % 2 === 1 ? "8b-a100-tp1" : "8b-h100-tp1"],
      kvTokens: workload.kvTokens,
    }));
    const driver = simulation({ profiles, heartbeatMs: Number(values["heartbeat-ms"]) });
    const rows: Row[] = [];
    for (const policy of contenders) {
      if (values.policy.length > 0 && !values.policy.includes(policy.name)) continue;
      rows.push(await measure(driver, workload, policy));
    }
    if (values.json) process.stdout.write(`${JSON.stringify({ workload: workload.name, rows })}\n`);
    else printRows(workload, rows);
  }
}

if (values.help) process.stdout.write(help);
else await main();
