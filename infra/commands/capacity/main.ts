import { parseArgs } from "node:util";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { optimise, type Simulate } from "../../capacity/optimise.ts";
import { capacityReport } from "../../capacity/report.ts";
import { scenarioOf } from "../../capacity/scenario.ts";
import { simulateBins } from "../../capacity/simulate-bins.ts";
import { simulateRequests } from "../../capacity/simulate-requests.ts";
import type { Load } from "../../capacity/trace/load.ts";
import { parsed, runCommand } from "../cli.ts";
import { oneStack, plannedStack } from "../stack-files.ts";
import { settingsOf } from "./arguments.ts";
import { loadTrace } from "./load-trace.ts";
import { Progress } from "./progress.ts";
import { reportText, suggestionText } from "./text.ts";

const help = `Replays a trace of requests against the fleets of a stack: latency, replicas, nodes, cost. Needs no cloud account.

Usage: npm run capacity -- STACK --trace FILE|generator:KIND?OPTIONS [options]

  STACK               name of a stack in stacks/, such as azure-prod, or the path of a Pulumi.<stack>.yaml
  --trace FILE        Mooncake's JSON lines, Azure's CSV, or lines of
                      {"at_seconds": 1.5, "input_tokens": 900, "output_tokens": 200, "model": "llama-3.1-8b"}
  --trace generator:  conversation, chat or code, such as generator:conversation?rate=5&days=7&diurnal=0.6
                      rate      requests a second on average (1)      days, hours, minutes   how long (1 hour)
                      diurnal   amplitude of the day's curve, 0 to 1  weekend                part of the rate on Sat and Sun
                      seed      another one gives other requests (1)
  --slo TEXT          ttft=2s,tpot=100ms,share=0.95 (these are the defaults)
  --models LIST       for requests that name no model: llama-3.1-8b=0.7,qwen3-8b=0.3; default: the fleet with the most GPUs
  --bounds LIST       try other bounds: small=2..40 or small=2..40@16 with targetRequests; pools then have no maximum
  --cached SHARE      part of every prompt that prefix caches have, 0 to 0.99 (0)
  --without-spot      no spot node is to be had
  --speed FACTOR      the trace so many times as fast (1)
  --resolution WHAT   requests: each of them; bins: rates in steps of 15 s, a year in seconds; default: requests up to 5 million
  --optimise          search the cheapest bounds that meet the SLO, and print the lines of the stack to change
  --json              the report as JSON
  --help

Ends with 0 when the simulation ran, whether or not the SLO is met; the report says so.
`;

const options = {
  trace: { type: "string" },
  slo: { type: "string", default: "" },
  models: { type: "string", default: "" },
  bounds: { type: "string", default: "" },
  cached: { type: "string", default: "0" },
  "without-spot": { type: "boolean", default: false },
  speed: { type: "string", default: "1" },
  resolution: { type: "string", default: "auto" },
  optimise: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false },
} as const;

await runCommand("capacity", async () => {
  const { values, positionals } = parsed(() => parseArgs({ allowPositionals: true, options }));
  if (values.help) {
    process.stdout.write(help);
    return;
  }
  const name = await oneStack(positionals);
  if (values.trace === undefined) {
    throw new PenstockError(
      "invalid_config",
      "Name a trace with --trace, such as --trace 'generator:conversation?rate=5&hours=2'; see --help.",
    );
  }
  const { plan, stack } = await plannedStack(name);
  if (plan.cloud === "local") {
    throw new PenstockError("invalid_config", `${plan.stack} is one machine: there are no replicas to plan.`);
  }
  const progress = new Progress(process.stderr, process.stderr.isTTY);
  const { settings, speed, resolution } = settingsOf(values, plan);
  const scenario = scenarioOf(plan, settings);
  const load = await loadTrace(values.trace, { speed, binsOnly: resolution === "bins", progress });
  const simulate = simulatorOf(load, resolution, progress);
  progress.say(`${load.requests.toLocaleString("en-US")} requests in ${(load.seconds / 3_600).toFixed(1)} h`);
  const started = performance.now();
  const report = capacityReport(simulate(scenario), load);
  progress.done();
  progress.say(`simulated in ${((performance.now() - started) / 1_000).toFixed(1)} s`);
  const pools = new Set(stack.cloud === "local" ? [] : stack.pools.map((pool) => pool.name));
  const suggestions = values.optimise ? optimise(scenario, simulate, (text) => progress.say(text)) : null;
  progress.done();
  if (values.json) {
    process.stdout.write(
      `${JSON.stringify({ ...report, ...(suggestions === null ? {} : { suggestions }) }, null, 2)}\n`,
    );
    return;
  }
  process.stdout.write(reportText(report));
  if (suggestions !== null) process.stdout.write(suggestionText(suggestions, { pools, report }));
});

/** What simulates this load: every request where there are not too many. */
function simulatorOf(load: Load, resolution: "auto" | "requests" | "bins", progress: Progress): Simulate {
  const { columns, seconds } = load;
  const onProgress = (share: number): void => progress.share(share);
  if (columns === null || resolution === "bins") {
    if (resolution !== "requests") return (scenario) => simulateBins(scenario, load, onProgress);
    throw new PenstockError("invalid_config", "The trace has more than 5 million requests; use --resolution bins.");
  }
  return (scenario) => simulateRequests(scenario, { columns, seconds }, onProgress);
}
