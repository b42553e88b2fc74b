import type { Suggestion, Trial } from "../../capacity/optimise.ts";
import type { CapacityReport, FleetReport } from "../../capacity/report.ts";
import { amountText } from "../../cost/money.ts";

const latencyColumns = "fleet,replicas,requests,in time,,TTFT p50,p95,p99,TPOT p50,p95,goodput,tokens/s".split(",");

const usageColumns = "fleet,replica-hours,peak,cold starts,new nodes,loads,wakes,refused,cut,node-hours,USD".split(",");

/** The report for people. */
export function reportText(report: CapacityReport): string {
  const { fleets, slo, seconds } = report;
  const asked = fleets.filter(({ requests }) => requests > 0);
  const quiet = fleets.filter(({ requests }) => requests === 0);
  return [
    `${report.stack}: ${report.trace}`,
    `${count(report.requests)} requests in ${duration(seconds)}; SLO: first token in ${time(slo.ttftSeconds)}, ` +
      `each further one in ${time(slo.tpotSeconds)}, for ${percent(slo.share)} of the requests`,
    "",
    ...table([latencyColumns, ...asked.map(latencyRow)]),
    "",
    ...table([usageColumns, ...asked.map(usageRow)]),
    ...(quiet.length === 0 ? [] : [`Without requests: ${quiet.map(({ name }) => name).join(", ")}.`]),
    "",
    ...poolLines(report),
    "",
    ...section("Gaps", report.gaps),
    ...section("Assumptions", report.assumptions),
    verdict(report),
    "",
  ].join("\n");
}

function poolLines({ pools, cost, seconds }: CapacityReport): string[] {
  const rows = pools.map((pool) => [
    pool.name,
    count(pool.peakNodes),
    count(pool.maxNodes),
    fixed(pool.nodeHours),
    amountText(pool.cost),
  ]);
  return [
    ...table([["pool", "peak nodes", "most", "node-hours", "USD"], ...rows]),
    `Nodes together: ${amountText(cost)} USD for ${duration(seconds)}`,
  ];
}

/** What the search found, with the lines of the stack to change. */
export function suggestionText(
  suggestions: readonly Suggestion[],
  { pools, report }: { readonly pools: ReadonlySet<string>; readonly report: CapacityReport },
): string {
  const lines = suggestions.flatMap((suggestion) => [
    `${suggestion.fleet} (${suggestion.simulations} simulations): ${suggestion.why.join("; ")}`,
    `  now      ${trialText(suggestion.planned)}`,
    ...(suggestion.best === null ? [] : [`  cheapest ${trialText(suggestion.best)}`]),
  ]);
  const found = suggestions.filter(({ best }) => best !== null);
  return [
    "",
    `Cheapest bounds that were found to meet the SLO on this trace (by ${report.resolution}; each fleet alone, in a pool ` +
      "without a maximum; costs are of its nodes)",
    ...lines,
    "",
    ...(found.length === 0 ? ["Nothing to change would meet it."] : yaml(found, pools)),
    "",
  ].join("\n");
}

function yaml(found: readonly Suggestion[], pools: ReadonlySet<string>): string[] {
  const fleets = found.flatMap(({ fleet, best }) =>
    best === null
      ? []
      : [
          `      - name: ${fleet}`,
          `        replicas: { min: ${best.bounds.min}, max: ${best.bounds.max} }`,
          `        scaling: { targetRequests: ${best.bounds.targetRequests} }`,
        ],
  );
  const nodes = new Map<string, number>();
  for (const { pool, poolNodes, plannedPoolNodes } of found) {
    if (poolNodes > plannedPoolNodes && pools.has(pool)) nodes.set(pool, Math.max(nodes.get(pool) ?? 0, poolNodes));
  }
  const raised = [...nodes].flatMap(([name, most]) => [`      - name: ${name}`, `        maxNodes: ${most}`]);
  return [
    "Lines of the stack to change:",
    "    fleets:",
    ...fleets,
    ...(raised.length === 0 ? [] : ["    pools:", ...raised]),
  ];
}

function trialText({ bounds, goodShare, cost, nodeHours, replicaHours }: Trial): string {
  return (
    `${bounds.min} to ${bounds.max} replicas, ${bounds.targetRequests} requests each: ${percent(goodShare)} in time, ` +
    `${fixed(replicaHours)} replica-hours, ${fixed(nodeHours)} node-hours, ${amountText(cost)} USD`
  );
}

function latencyRow(fleet: FleetReport): string[] {
  const { bounds, goodShare, ttftSeconds, tpotSeconds } = fleet;
  return [
    fleet.name,
    `${bounds.min}..${bounds.max}`,
    count(fleet.requests),
    goodShare === null ? "-" : percent(goodShare),
    fleet.meetsSlo ? "met" : "MISSED",
    time(ttftSeconds.p50),
    time(ttftSeconds.p95),
    time(ttftSeconds.p99),
    time(tpotSeconds.p50),
    time(tpotSeconds.p95),
    `${fixed(fleet.goodput)}/s`,
    count(Math.round(fleet.outputTokensPerSecond)),
  ];
}

function usageRow(fleet: FleetReport): string[] {
  return [
    fleet.name,
    fixed(fleet.replicaHours),
    String(fleet.peakReplicas),
    count(fleet.coldStarts),
    count(fleet.newNodeStarts),
    count(fleet.modelLoads),
    count(fleet.modelWakes),
    count(fleet.refused),
    count(fleet.cut),
    fixed(fleet.nodeHours),
    amountText(fleet.cost),
  ];
}

function verdict({ fleets, meetsSlo }: CapacityReport): string {
  if (meetsSlo) return "The SLO is met.";
  const missed = fleets.filter(({ requests, meetsSlo: isMet }) => requests > 0 && !isMet).map(({ name }) => name);
  return `The SLO is missed by ${missed.join(", ")}; --optimise searches the bounds that meet it.`;
}

/** Rows with the first column to the left and the others to the right. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, at) => Math.max(...rows.map((row) => (row[at] ?? "").length)));
  return rows.map((row) =>
    row
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
}

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [title, ...lines.map((line) => `- ${line}`), ""];
}

function time(seconds: number | null): string {
  if (seconds === null) return "-";
  if (seconds < 0.01) return `${(seconds * 1_000).toFixed(1)} ms`;
  return seconds < 1 ? `${(seconds * 1_000).toFixed(0)} ms` : `${seconds.toFixed(seconds < 100 ? 1 : 0)} s`;
}

function duration(seconds: number): string {
  if (seconds < 2 * 3_600) return `${fixed(seconds / 60)} min`;
  return seconds < 3 * 86_400 ? `${fixed(seconds / 3_600)} h` : `${fixed(seconds / 86_400)} days`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function count(value: number): string {
  return value.toLocaleString("en-US");
}

function fixed(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: value < 100 ? 1 : 0 });
}
