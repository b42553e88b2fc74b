import { join } from "node:path";
import { parseArgs } from "node:util";
import { startAgentProcess, type AgentProcess } from "../agent/agent-process.ts";
import { loadOf, simModel, simulated } from "../agent/sim-agent.ts";
import { FakeNvidiaSmi } from "../fakes/nvidia-smi.ts";
import { fillCache } from "../support/cache-entries.ts";
import { temporaryFolder, type TemporaryFolder } from "../support/folders.ts";
import { residentMB } from "../support/penstock.ts";
import { demoModel } from "../support/repository.ts";
import { engineByHand } from "./engine-by-hand.ts";
import { printFigures, quantile, repeat, seconds, type Figure } from "./figures.ts";

const help = `Measures what the node agent adds to a cold start, to a wake and to a heartbeat, and what it keeps in memory.

Usage: npm run bench:coldstart -- [--runs 7] [--json]

The embedded engine serves the demo model; sleep and wake are those of the simulated vLLM at speed 0, so that only the
agent's own work shows: the calls, the golden prompt, and the bookkeeping.
`;

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "7" },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
const runs = Number(values.runs);

/** Models in the cache's index while memory and heartbeats are measured. */
const cachedModels = 1_000;
const heartbeats = 500;

async function agentIn(folder: TemporaryFolder): Promise<AgentProcess> {
  const smi = await FakeNvidiaSmi.of("a10g", folder.path);
  return startAgentProcess(
    folder.path,
    {
      cache: { directory: join(folder.path, "cache") },
      stateDirectory: join(folder.path, "state"),
      engineCommands: { vllm: simulated("vllm") },
      reclaim: "none",
      logLevel: "error",
    },
    { PATH: `${smi.tool.command.slice(0, -"/nvidia-smi".length)}:${process.env["PATH"]}` },
  );
}

async function timed(agent: AgentProcess, path: string, body: object): Promise<number> {
  const started = performance.now();
  const answer = await agent.post(path, body);
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${path}: ${text}`);
  return seconds(started);
}

const demo = {
  model_id: "demo",
  model: { id: "demo", source: `file://${demoModel}` },
  engine: { kind: "embedded" },
};

/** Both in turns, so that a machine that is busy for a while is unfair to neither. */
async function loads(agent: AgentProcess): Promise<{ byHand: number; byAgent: number; added: number }> {
  await timed(agent, "/load_model", demo);
  const byHand: number[] = [];
  const byAgent: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    await timed(agent, "/unload_model", { model_id: "demo" });
    byHand.push(await engineByHand());
    byAgent.push(await timed(agent, "/load_model", demo));
  }
  await timed(agent, "/unload_model", { model_id: "demo" });
  const added = quantile(byAgent.map((value, at) => value - (byHand[at] ?? Number.NaN)));
  return { byHand: quantile(byHand), byAgent: quantile(byAgent), added };
}

async function remote(agent: AgentProcess): Promise<number> {
  const elapsed = await timed(agent, "/load_model", demo);
  await timed(agent, "/unload_model", { model_id: "demo", to: "REMOTE" });
  return elapsed;
}

async function wakes(agent: AgentProcess, folder: TemporaryFolder): Promise<{ sleep: number; wake: number }> {
  const load = loadOf("sim", await simModel(folder, "sim"));
  await timed(agent, "/load_model", load);
  const sleep: number[] = [];
  const wake: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    sleep.push(await timed(agent, "/unload_model", { model_id: "sim", to: "DRAM_CACHED" }));
    wake.push(await timed(agent, "/load_model", load));
  }
  await timed(agent, "/unload_model", { model_id: "sim" });
  return { sleep: quantile(sleep), wake: quantile(wake) };
}

async function beats(agent: AgentProcess, known: string | undefined): Promise<number[]> {
  const body = known === undefined ? {} : { known_cache_revision: known };
  const times: number[] = [];
  for (let beat = 0; beat < heartbeats; beat += 1) times.push((await timed(agent, "/heartbeat", body)) * 1_000);
  return times;
}

async function measure(): Promise<Figure[]> {
  await using folder = await temporaryFolder();
  await using agent = await agentIn(folder);
  const load = await loads(agent);
  await timed(agent, "/unload_model", { model_id: "demo", to: "REMOTE" });
  const fromRemote = await repeat(runs, () => remote(agent));
  const slept = await wakes(agent, folder);
  await using full = await temporaryFolder();
  await fillCache(join(full.path, "cache"), cachedModels);
  await using idle = await agentIn(full);
  const { cache } = await idle.beat();
  if (cache.entries?.length !== cachedModels) throw new Error(`${cache.entries?.length} models are in the index`);
  const known = await beats(idle, cache.revision);
  const whole = await beats(idle, undefined);
  return [
    { what: "engine by hand to ready", value: load.byHand, unit: "s", target: null },
    { what: "load_model to ready, model on disk", value: load.byAgent, unit: "s", target: null },
    {
      what: "what the agent adds (proof by golden prompt included)",
      value: load.added * 1_000,
      unit: "ms",
      target: 300,
    },
    { what: "load_model to ready, model REMOTE", value: fromRemote, unit: "s", target: null },
    { what: "to sleep, engine takes no time", value: slept.sleep * 1_000, unit: "ms", target: null },
    { what: "wake and proof, engine takes no time", value: slept.wake * 1_000, unit: "ms", target: null },
    { what: "heartbeat, 1,000 models known, median", value: quantile(known), unit: "ms", target: 2 },
    { what: "heartbeat, 1,000 models known, 99th percentile", value: quantile(known, 0.99), unit: "ms", target: null },
    { what: "heartbeat that lists 1,000 models, median", value: quantile(whole), unit: "ms", target: null },
    { what: "agent, resident, 1,000 models in the index", value: await residentMB(idle.pid), unit: "MB", target: 120 },
  ];
}

if (values.help) process.stdout.write(help);
else printFigures(await measure(), values.json);
