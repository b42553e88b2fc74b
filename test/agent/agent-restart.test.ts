import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { RangeServer } from "../fakes/range-server.ts";
import { FakeNvidiaSmi } from "../fakes/nvidia-smi.ts";
import { fillCache } from "../support/cache-entries.ts";
import { temporaryFolder, type TemporaryFolder } from "../support/folders.ts";
import { residentMB } from "../support/penstock.ts";
import { alive, demoModel, repository } from "../support/repository.ts";
import { startAgentProcess } from "./agent-process.ts";
import { loadOf, simModel, simulated } from "./sim-agent.ts";

/** A config with simulated engines and GPUs. */
async function configIn(folder: TemporaryFolder, more: object = {}): Promise<{ config: object; env: object }> {
  const smi = await FakeNvidiaSmi.of("a10g", folder.path);
  return {
    config: {
      cache: { directory: join(folder.path, "cache") },
      stateDirectory: join(folder.path, "state"),
      engineCommands: { vllm: simulated("vllm") },
      reclaim: "none",
      ...more,
    },
    env: { PATH: `${smi.tool.command.slice(0, -"/nvidia-smi".length)}:${process.env["PATH"]}` },
  };
}

const states = ["LOADING_TO_GPU", "READY", "SLEEPING"] as const;

test.each(states)(
  "an agent killed while a model is %s leaves no engine, and its successor loads the model",
  async (state) => {
    await using folder = await temporaryFolder();
    const { config, env } = await configIn(folder);
    const request = loadOf("m", await simModel(folder, "m", state === "LOADING_TO_GPU" ? { slow_load_ms: 3_000 } : {}));
    await using agent = await startAgentProcess(folder.path, config, env);
    const loading = agent.post("/load_model", request).catch(() => undefined);
    if (state !== "LOADING_TO_GPU") await loading;
    if (state === "SLEEPING") await agent.post("/unload_model", { model_id: "m", to: "DRAM_CACHED" });
    await expect.poll(async () => (await agent.beat()).models[0]?.cache_state).toBe(state);
    const engine = await childOf(agent.pid);
    agent.kill("SIGKILL");
    await agent.exited;
    await loading;
    await expect.poll(() => groupLives(engine)).toBe(false);
    await using successor = await startAgentProcess(folder.path, config, env);
    const answer = await successor.post("/load_model", request);
    expect(await answer.json()).toMatchObject({ cache_state: "READY" });
  },
);

test("an agent killed while a model is DOWNLOADING leaves nothing in the way of its successor", async () => {
  await using folder = await temporaryFolder();
  await using server = await RangeServer.start();
  server.put("/demo.gguf", await readFile(demoModel));
  server.fail(1_000, { kind: "stall" }, ({ range }) => range !== null && range[1] > 1);
  const { config, env } = await configIn(folder);
  const model = { id: "m", source: `${server.url}/demo.gguf` };
  const request = { model_id: "m", model, engine: { kind: "embedded" } };
  await using agent = await startAgentProcess(folder.path, config, env);
  const loading = agent.post("/load_model", request).catch(() => undefined);
  await expect.poll(() => server.reads.length).toBeGreaterThan(0);
  expect((await agent.beat()).models[0]?.cache_state).toBe("DOWNLOADING");
  agent.kill("SIGKILL");
  await agent.exited;
  await loading;
  server.faults.length = 0;
  await using successor = await startAgentProcess(folder.path, config, env);
  const answer = await successor.post("/load_model", request);
  expect(await answer.json()).toMatchObject({ cache_state: "READY" });
});

/** The engine of an agent: its one child, also while the heartbeat does not know it yet. */
async function childOf(pid: number): Promise<number> {
  const { stdout } = await promisify(execFile)("ps", ["-o", "pid=", "--ppid", String(pid)]);
  const [first] = stdout.trim().split("\n").map(Number);
  if (first === undefined || !(first > 0)) throw new Error("the agent has no engine");
  return first;
}

/** Whether any process of a group lives: an engine is the leader of its own. */
function groupLives(leader: number): boolean {
  return alive(-leader);
}

test("a successor knows what is on its disk before anybody asks, and says so once", async () => {
  await using folder = await temporaryFolder();
  const { config, env } = await configIn(folder);
  {
    await using agent = await startAgentProcess(folder.path, config, env);
    await agent.post("/load_model", loadOf("org/m", await simModel(folder, "m")));
  }
  await using successor = await startAgentProcess(folder.path, config, env);
  const { cache } = await successor.beat();
  expect(cache.entries).toMatchObject([{ model_ids: ["org/m"], pinned: false }]);
  expect((await successor.beat(cache.revision)).cache).toEqual({ revision: cache.revision, entries: null });
});

test("SIGTERM drains: the stream ends whole, the engine is gone, the exit is clean", async () => {
  await using folder = await temporaryFolder();
  const { config, env } = await configIn(folder);
  await using agent = await startAgentProcess(folder.path, config, env);
  await agent.post("/load_model", loadOf("m", await simModel(folder, "m", { step_delay_ms: 20 })));
  const { engines } = await agent.beat();
  const answer = await agent.post("/infer/m/v1/completions", { model: "m", prompt: "x", max_tokens: 40, stream: true });
  agent.kill("SIGTERM");
  expect(await answer.text()).toContain("[DONE]");
  expect(await agent.exited).toBe(0);
  expect(alive(engines[0]?.pid ?? -1)).toBe(false);
});

test("a node that joins fetches its list, and serves what it is told to serve", async () => {
  await using folder = await temporaryFolder();
  const served = await simModel(folder, "served");
  const fetched = await simModel(folder, "fetched");
  const { config, env } = await configIn(folder, {
    prefetch: [{ id: "fetched", source: fetched, format: "safetensors" }],
    serve: [{ model: { id: "served", source: served, format: "safetensors" }, engine: { kind: "vllm" }, pinned: true }],
  });
  await using agent = await startAgentProcess(folder.path, config, env);
  await expect.poll(async () => (await agent.beat()).models[0]?.cache_state).toBe("READY");
  await expect
    .poll(async () => (await agent.beat()).cache.entries?.map((entry) => [entry.model_ids[0], entry.pinned]).toSorted())
    .toEqual([
      ["fetched", false],
      ["served", true],
    ]);
});

test("secrets of the agent's environment reach no log and no engine", async () => {
  await using folder = await temporaryFolder();
  const { config, env } = await configIn(folder, { logLevel: "trace" });
  const secrets = {
    HF_TOKEN: "hf_secretsecret",
    AWS_SECRET_ACCESS_KEY: "aws_secretsecret",
    AZURE_STORAGE_SAS_TOKEN: "sig=secretsecret",
  };
  await using agent = await startAgentProcess(folder.path, config, { ...env, ...secrets });
  const source = await simModel(folder, "m");
  expect((await agent.post("/load_model", loadOf("m", source))).status).toBe(200);
  const pid = (await agent.beat()).engines[0]?.pid ?? -1;
  const { stdout } = await promisify(execFile)("sh", [
    "-c",
    `cat /proc/${pid}/environ /proc/${pid}/cmdline | tr '\\0' '\\n'`,
  ]);
  expect(stdout).toContain("VLLM_SERVER_DEV_MODE=1");
  for (const text of [stdout, agent.output()]) expect(text).not.toMatch(/secretsecret|a-token-of-the-tests/);
});

test.each([
  [{ drainSeconds: -1, cach: {}, engineCommands: { vllm: [] } }, ["drainSeconds", "cach", "engineCommands.vllm"]],
  [
    { serve: [{ model: { id: "../x", source: "ftp://x" }, engine: { kind: "vllm", tensorParallel: 0 } }] },
    ["serve[0].model.id", "serve[0].model.source", "serve[0].engine.tensorParallel"],
  ],
])("a config with mistakes names all of them at once", async (config, paths) => {
  await using folder = await temporaryFolder();
  const started = startAgentProcess(folder.path, config);
  const message = await started.then(
    () => "",
    (error: unknown) => String(error),
  );
  for (const path of paths) expect(message).toContain(path);
  expect(message).toContain("ended with 2");
});

test("--check prints the config, --help the options, and a missing token is asked for", async () => {
  await using folder = await temporaryFolder();
  const run = (argv: readonly string[], env: NodeJS.ProcessEnv = {}) =>
    promisify(execFile)(process.execPath, ["runtime/agent/main.ts", ...argv], {
      cwd: repository,
      env: { PATH: process.env["PATH"], ...env },
    });
  const checked = await run(["--check", "--cache", folder.path, "--cache-budget", "10"]);
  expect(JSON.parse(checked.stdout)).toMatchObject({ port: 8081, cache: { directory: folder.path, budgetGiB: 10 } });
  expect((await run(["--help"])).stdout).toContain("PENSTOCK_AGENT_TOKEN");
  await expect(run(["--cache", folder.path])).rejects.toMatchObject({
    code: 2,
    stderr: expect.stringContaining("PENSTOCK_AGENT_TOKEN"),
  });
  await expect(run(["--colour", "red"])).rejects.toMatchObject({
    code: 2,
    stderr: expect.stringContaining("--colour"),
  });
});

test("with a thousand models in its index the agent lists them, and stays small", async () => {
  await using folder = await temporaryFolder();
  await fillCache(join(folder.path, "cache"), 1_000);
  const { config, env } = await configIn(folder);
  await using agent = await startAgentProcess(folder.path, config, env);
  const { cache } = await agent.beat();
  expect(cache.entries).toHaveLength(1_000);
  expect(cache.entries?.[0]?.model_ids[0]).toMatch(/^org\/model-\d+$/);
  // The goal is 120 MB, which `npm run bench:coldstart` shows on a quiet machine. A leak would be far beyond this.
  expect(await residentMB(agent.pid)).toBeLessThan(200);
});
