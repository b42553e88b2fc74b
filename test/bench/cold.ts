import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { agentToken, startAgentProcess, type AgentProcess } from "../agent/agent-process.ts";
import { simModel, simulated } from "../agent/sim-agent.ts";
import { freePort } from "../support/servers/free-port.ts";
import { spawnSimulator } from "../fakes/engine/spawn.ts";
import { FakeNvidiaSmi } from "../fakes/nvidia-smi.ts";
import { temporaryFolder, type TemporaryFolder } from "../support/folders.ts";
import { residentMB } from "../support/penstock.ts";
import { startProgram, type Program } from "../support/program.ts";
import { demoModel } from "../support/repository.ts";
import { sendCrowd, type Answered } from "./cold-crowd.ts";
import { startByHand, type EngineByHand } from "./engine-by-hand.ts";
import { quantile, seconds } from "./figures.ts";

const help = `Sends many requests at once for a model that is only in its store: through the gateway's and the agent's programs, and beside
it to the same engine started by hand, as soon as that is ready.

Usage: npm run bench:cold -- [--requests 1000] [--json]

The embedded engine serves the demo model. The simulated vLLM takes a tenth of the time that Llama-3.1-8B takes on an H100.
Times are from when the crowd came; by hand, from when the engine was started.
`;

const { values } = parseArgs({
  options: {
    requests: { type: "string", default: "1000" },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

/** A line of the table; times in seconds. */
interface Row {
  readonly what: string;
  /** Loads that the agent has done; null by hand. */
  readonly loads: number | null;
  readonly answered: number;
  /** Each kind of failure, and how often. */
  readonly failures: Readonly<Record<string, number>>;
  readonly ready: number;
  readonly first: number;
  readonly ttftP50: number;
  readonly ttftP99: number;
  /** From when the model was ready until the last answer had ended. */
  readonly readyToAll: number;
  /** Resident, of the gateway: before the crowd, and the most that there was. */
  readonly gatewayMB: { readonly before: number; readonly most: number } | null;
}

const key = "cold-bench-key";
/** As many as come at once may wait in the engine, so that nothing but the load decides who is answered. */
const roomy = { maxConcurrentRequests: 10_000 };
/** Of a simulated second, how many. */
const simulatorSpeed = 10;
/** Between two looks at how far the load is. */
const lookMs = 20;

interface Case {
  readonly what: string;
  /** As a gateway's config has it, without its fleet. */
  readonly model: Readonly<Record<string, unknown>> & { readonly id: string };
  /** Starts the same engine, without gateway and agent. */
  readonly byHand: () => Promise<EngineByHand>;
}

async function cases(folder: TemporaryFolder): Promise<Case[]> {
  const source = await simModel(folder, "sim", { speed: simulatorSpeed });
  return [
    {
      what: "embedded engine, demo model",
      model: { id: "demo", source: `file://${demoModel}`, format: "gguf", engine: { kind: "embedded", ...roomy } },
      byHand: () => startByHand(roomy),
    },
    {
      what: "simulated vLLM",
      model: { id: "sim", source, format: "safetensors", engine: { kind: "vllm" } },
      byHand: () => simulatorByHand(source.slice("file://".length)),
    },
  ];
}

async function simulatorByHand(path: string): Promise<EngineByHand> {
  const port = await freePort();
  const started = performance.now();
  const engine = spawnSimulator(["--as", "vllm", "serve", path, "--served-model-name", "sim", "--port", String(port)]);
  const origin = `http://127.0.0.1:${port}`;
  const isReady = (): Promise<boolean> =>
    fetch(`${origin}/health`).then(
      ({ ok }) => ok,
      () => false,
    );
  while (!(await isReady())) await delay(lookMs);
  return { origin, readySeconds: seconds(started), [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose]() };
}

async function byHand({ what, model, byHand: start }: Case): Promise<Row> {
  const started = performance.now();
  await using engine = await start();
  const answers = await sendCrowd({ origin: engine.origin, headers: {}, model: model.id, requests: requests() });
  const readyAtMs = started + engine.readySeconds * 1_000;
  // Nobody holds requests there, so they came when the engine was ready.
  const times = { startedMs: started, readyAtMs, sentLateMs: readyAtMs - started };
  return { what: `${what}, by hand`, loads: null, gatewayMB: null, ...summary(answers, times) };
}

async function throughGateway({ what, model }: Case): Promise<Row> {
  await using folder = await temporaryFolder();
  await using agent = await agentIn(folder);
  await using gateway = await gatewayFor(agent, model, folder);
  const before = await residentMB(gateway.pid);
  const started = performance.now();
  const crowd = { origin: gateway.url, headers: { authorization: `Bearer ${key}` }, model: model.id };
  const ready = whenReady(agent);
  const answers = await sendCrowd({ ...crowd, requests: requests() });
  const readyAtMs = await ready;
  return {
    what,
    loads: agent.output().split('"model is ready"').length - 1,
    gatewayMB: { before, most: await peakMB(gateway.pid) },
    ...summary(answers, { startedMs: started, readyAtMs, sentLateMs: 0 }),
  };
}

async function agentIn(folder: TemporaryFolder): Promise<AgentProcess> {
  const smi = await FakeNvidiaSmi.of("a10g", folder.path);
  const config = {
    cache: { directory: join(folder.path, "cache") },
    stateDirectory: join(folder.path, "state"),
    engineCommands: { vllm: simulated("vllm") },
    reclaim: "none",
    logLevel: "info",
  };
  const PATH = `${smi.tool.command.slice(0, -"/nvidia-smi".length)}:${process.env["PATH"]}`;
  return await startAgentProcess(folder.path, config, { PATH });
}

async function gatewayFor(agent: AgentProcess, model: object, folder: TemporaryFolder): Promise<Program> {
  const path = join(folder.path, "gateway.yaml");
  const config = {
    port: 0,
    fleets: [{ name: "bench", agents: { kind: "static", urls: [agent.url] } }],
    models: [{ ...model, fleet: "bench" }],
    stores: { directory: join(folder.path, "stores") },
    hold: { tenantShare: 1 },
    logLevel: "error",
  };
  await mkdir(join(folder.path, "stores"));
  await writeFile(path, JSON.stringify(config));
  const env = { PENSTOCK_AGENT_TOKEN: agentToken, PENSTOCK_API_KEY: key };
  return await startProgram("gateway", { args: ["--config", path], env });
}

/** Looks until the model is ready; answers when that was. */
async function whenReady(agent: AgentProcess): Promise<number> {
  for (;;) {
    const { models } = await agent.beat();
    if (models.some(({ cache_state }) => cache_state === "READY")) return performance.now();
    await delay(lookMs);
  }
}

/** The most resident memory that a process has had, in MB (1e6 bytes). */
async function peakMB(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return (Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1_024) / 1e6;
}

interface Times {
  readonly startedMs: number;
  readonly readyAtMs: number;
  /** From the start to when the crowd was sent. */
  readonly sentLateMs: number;
}

function summary(
  answers: readonly Answered[],
  { startedMs, readyAtMs, sentLateMs }: Times,
): Omit<Row, "what" | "loads" | "gatewayMB"> {
  const good = answers.filter(({ failure }) => failure === null);
  const firsts = good.map(({ firstMs }) => (firstMs + sentLateMs) / 1_000);
  const lastMs = good.reduce((last, { endedAtMs }) => Math.max(last, endedAtMs), 0);
  const failures: Record<string, number> = {};
  for (const { failure } of answers) if (failure !== null) failures[failure] = (failures[failure] ?? 0) + 1;
  return {
    answered: good.length,
    failures,
    ready: (readyAtMs - startedMs) / 1_000,
    first: quantile(firsts, 0),
    ttftP50: quantile(firsts, 0.5),
    ttftP99: quantile(firsts, 0.99),
    readyToAll: (lastMs - readyAtMs) / 1_000,
  };
}

function requests(): number {
  return Number(values.requests);
}

function print(rows: readonly Row[]): void {
  const head = "loads answered failed  ready  first  TTFT p50    p99  ready to all  gateway before, most";
  const lines = rows.map((row) => {
    const failed = requests() - row.answered;
    const time = (value: number, width: number): string => value.toFixed(2).padStart(width);
    const memory =
      row.gatewayMB === null ? "" : `${row.gatewayMB.before.toFixed(0)}, ${row.gatewayMB.most.toFixed(0)} MB`;
    const why = failed === 0 ? "" : `  ${JSON.stringify(row.failures)}`;
    return (
      `${row.what.padEnd(38)}${String(row.loads ?? "-").padStart(5)}${String(row.answered).padStart(9)}` +
      `${String(failed).padStart(7)}${time(row.ready, 7)}${time(row.first, 7)}${time(row.ttftP50, 10)}${time(row.ttftP99, 7)}` +
      `${time(row.readyToAll, 14)}${memory.padStart(22)}${why}`
    );
  });
  process.stdout.write(`${requests()} requests at once, model REMOTE; times in s\n${"".padEnd(38)}${head}\n`);
  process.stdout.write(`${lines.join("\n")}\n`);
}

async function main(): Promise<void> {
  await using folder = await temporaryFolder();
  const rows: Row[] = [];
  for (const each of await cases(folder)) rows.push(await throughGateway(each), await byHand(each));
  if (values.json) process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
  else print(rows);
  // What must be, whatever the machine.
  const failed = rows.filter((row) => row.answered < requests() || (row.loads !== null && row.loads !== 1));
  if (failed.length > 0) process.exitCode = 1;
}

if (values.help) process.stdout.write(help);
else await main();
