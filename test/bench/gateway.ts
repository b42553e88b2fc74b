import { execFileSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { temporaryFolder } from "../support/folders.ts";
import { contenders, loadCore } from "./gateway-contenders.ts";
import { direct, figures, measure, workloads, type Plan, type Row, type Workload } from "./gateway-measure.ts";
import { generator } from "./load.ts";

const help = `Measures this gateway beside other proxies: one core for the proxy, one for the engine and the load.

Usage: npm run bench:gateway -- [--only small|large|streams|memory] [--seconds 3] [--rounds 3] [--streams 10000] [--json]

  --only W     one workload
  --seconds N  length of each sample
  --rounds N   samples of each figure; proxies take turns, the median is printed, one more round before is not counted
  --streams N  idle streams to open; fewer when a process may not open that many files
  --json       prints the figures as JSON

"Per core" is per second of the proxy's own processor time, user and system: what it does when it has a core for itself,
whatever else runs on this machine. Compare figures of one run only. "bare Node server" answers by itself, without an
upstream: no proxy in Node comes near it. Takes about 12 minutes. Needs Linux with two cores. Contenders: nginx and wrk
where they are installed, and @portkey-ai/gateway after \`npm ci --prefix test/bench/gateway\`.
`;

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    seconds: { type: "string", default: "3" },
    rounds: { type: "string", default: "3" },
    streams: { type: "string", default: "10000" },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

/** What the gateway shall reach. */
interface Goal {
  readonly what: string;
  readonly workload: Workload;
  readonly figure: string;
  /** The figure itself, or its ratio to, or difference from, another contender's. */
  readonly against?: { readonly contender: string; readonly how: "ratio" | "difference" };
  readonly atLeast?: number;
  readonly below?: number;
}

const goals: readonly Goal[] = [
  { what: "small body, requests/s per core", workload: "small", figure: figures.perCore, atLeast: 12_000 },
  {
    what: "small body, share of nginx",
    workload: "small",
    figure: figures.perCore,
    against: { contender: "nginx", how: "ratio" },
    atLeast: 0.35,
  },
  {
    what: "small body, times @portkey-ai/gateway",
    workload: "small",
    figure: figures.perCore,
    against: { contender: "@portkey-ai/gateway", how: "ratio" },
    atLeast: 6,
  },
  {
    what: "small body, added p50 at 1 connection, µs",
    workload: "small",
    figure: figures.p50,
    against: { contender: direct, how: "difference" },
    below: 150,
  },
  { what: "220 KB body, requests/s per core", workload: "large", figure: figures.perCore, atLeast: 800 },
  {
    what: "220 KB body, added p99 at 100 concurrent, ms",
    workload: "large",
    figure: figures.p99,
    against: { contender: direct, how: "difference" },
    below: 5,
  },
  {
    what: "streams, share of the bare Node proxy",
    workload: "streams",
    figure: figures.chunks,
    against: { contender: "bare Node proxy", how: "ratio" },
    atLeast: 0.6,
  },
  { what: "memory of an idle stream, KB", workload: "memory", figure: figures.memory, below: 25 },
];

interface Verdict extends Goal {
  /** Null when something it needs was not measured. */
  readonly value: number | null;
  readonly met: boolean | null;
}

function verdictOf(goal: Goal, rows: readonly Row[]): Verdict {
  const find = (contender: string): number | undefined =>
    rows.find((row) => row.workload === goal.workload && row.figure === goal.figure && row.contender === contender)
      ?.value;
  const ours = find("penstock");
  const theirs = goal.against === undefined ? 0 : find(goal.against.contender);
  if (ours === undefined || theirs === undefined) return { ...goal, value: null, met: null };
  const value = goal.against?.how === "ratio" ? ours / theirs : ours - theirs;
  return { ...goal, value, met: value >= (goal.atLeast ?? -Infinity) && value < (goal.below ?? Infinity) };
}

function print(rows: readonly Row[], verdicts: readonly Verdict[]): void {
  const lines: string[] = [];
  for (const workload of workloads) {
    const own = rows.filter((row) => row.workload === workload);
    for (const figure of new Set(own.map((row) => row.figure))) {
      lines.push(`\n${workload}: ${figure}`);
      for (const { contender, value } of own.filter((row) => row.figure === figure)) {
        lines.push(`  ${contender.padEnd(22)} ${number(value).padStart(10)}`);
      }
    }
  }
  lines.push("", "goals of this gateway");
  for (const { what, value, met, atLeast, below } of verdicts) {
    const goal = atLeast === undefined ? `< ${below}` : `>= ${number(atLeast)}`;
    const verdict = met === null ? "not measured" : met ? "met" : "MISSED";
    lines.push(
      `  ${what.padEnd(46)} ${(value === null ? "-" : number(value)).padStart(10)}  ${goal.padEnd(10)} ${verdict}`,
    );
  }
  process.stdout.write(`${lines.join("\n")}\n`);
}

function number(value: number): string {
  return value.toLocaleString("en", {
    maximumFractionDigits: Math.abs(value) < 10 ? 2 : Math.abs(value) < 1_000 ? 1 : 0,
  });
}

/** Each stream has two sockets in the proxy, which needs a few files more. */
function streamsThatFit(wanted: number): number {
  const limit = execFileSync("bash", ["-c", "ulimit -n"], { encoding: "utf8" }).trim();
  return limit === "unlimited" ? wanted : Math.min(wanted, Math.floor((Number(limit) - 1_000) / 2));
}

async function main(): Promise<void> {
  if (availableParallelism() < 2) throw new Error("this bench needs two cores");
  const chosen = workloads.filter((each) => values.only === undefined || values.only === each);
  if (chosen.length === 0) throw new Error(`--only takes one of ${workloads.join(", ")}`);
  // This process is part of the load, and so are the programs that it starts.
  execFileSync("taskset", ["-cp", loadCore, String(process.pid)], { stdio: "ignore" });
  await using folder = await temporaryFolder();
  const idleStreams = streamsThatFit(Number(values.streams));
  const plan: Plan = {
    seconds: Number(values.seconds),
    rounds: Number(values.rounds),
    idleStreams,
    folder: folder.path,
    contenders,
  };
  const missing = contenders("http://127.0.0.1").filter((each) => each.missing !== undefined);
  for (const { name, missing: why } of missing) process.stderr.write(`MISSING: ${name}: ${why}\n`);
  process.stderr.write(`load: ${generator}; ${idleStreams.toLocaleString("en")} idle streams\n`);
  const rows: Row[] = [];
  for (const workload of chosen) {
    process.stderr.write(`measuring ${workload} ...\n`);
    rows.push(...(await measure(workload, plan)));
  }
  const verdicts = goals.filter(({ workload }) => chosen.includes(workload)).map((goal) => verdictOf(goal, rows));
  if (values.json) process.stdout.write(`${JSON.stringify({ rows, goals: verdicts }, null, 2)}\n`);
  else print(rows, verdicts);
}

if (values.help) process.stdout.write(help);
else await main();
