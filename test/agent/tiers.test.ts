import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { s3Route } from "../fakes/range-server-stores.ts";
import { RangeServer } from "../fakes/range-server.ts";
import { temporaryFolder } from "../support/folders.ts";
import { loadOf, simAdapter, simAgent, simModel, simulated } from "./sim-agent.ts";

const lora = { lora: { maxLoras: 2, maxRank: 8, maxCpuLoras: 2 } };

test.each([1, 2] as const)(
  "sleep level %i and wake: the engine stays, its memory goes, its answers are the same",
  async (sleepLevel) => {
    await using sim = await simAgent();
    const load = loadOf("m", await simModel(sim.folder, "m"), { engine: { sleepLevel } });
    expect((await sim.post("/load_model", load)).body).toMatchObject({ status: "loaded", cache_state: "READY" });
    const { engines, gpus } = await sim.beat();
    const before = await sim.ask("m");
    expect(before.status).toBe(200);
    const reserved = gpus[0]?.memory_reserved_bytes ?? 0;
    expect(reserved).toBeGreaterThan(0.89 * (gpus[0]?.memory_total_bytes ?? 0));

    const asleep = await sim.post("/unload_model", { model_id: "m", to: "DRAM_CACHED" });
    expect(asleep.body).toEqual({ status: "asleep", model_id: "m", cache_level: "DRAM_CACHED" });
    expect(await sim.model("m")).toMatchObject({ cache_state: "SLEEPING", cache_level: "DRAM_CACHED" });
    expect((await sim.beat()).gpus[0]?.memory_reserved_bytes).toBeLessThan(reserved / 5);
    expect((await sim.ask("m")).body).toMatchObject({ error: { code: "model_not_ready" } });

    expect((await sim.post("/load_model", load)).body).toMatchObject({ status: "woken", cache_state: "READY" });
    const after = await sim.beat();
    expect(after.engines[0]).toMatchObject({
      pid: engines[0]?.pid,
      restarts: 0,
      version: expect.stringMatching(/^0\.\d+\.\d+$/),
    });
    expect(after.gpus[0]?.memory_reserved_bytes).toBe(reserved);
    expect((await sim.ask("m")).body.choices).toEqual(before.body.choices);
    const { measured_ms } = await sim.model("m");
    for (const transition of ["download", "load", "sleep", "wake"] as const) {
      expect(measured_ms[transition]).toBeGreaterThanOrEqual(0);
    }
    const calls = (await sim.get("/infer/m/sim/state")).body.calls as string[];
    const wake = calls.filter((call) => /sleep|wake|collective|reset_prefix/.test(call));
    expect(wake.join(" ")).toBe(
      sleepLevel === 1
        ? "POST /sleep?level=1 POST /wake_up"
        : "POST /sleep?level=2 POST /wake_up?tags=weights POST /collective_rpc POST /wake_up?tags=kv_cache POST /reset_prefix_cache",
    );
  },
);

test("a wake that computes nonsense is found before traffic returns, and the engine is started anew", async () => {
  await using sim = await simAgent();
  const load = loadOf("m", await simModel(sim.folder, "m", { corrupt_after_wake: true }));
  await sim.post("/load_model", load);
  const before = await sim.ask("m");
  const pid = (await sim.beat()).engines[0]?.pid;
  await sim.post("/unload_model", { model_id: "m", to: "DRAM_CACHED" });
  expect((await sim.post("/load_model", load)).body).toMatchObject({ cache_state: "READY" });
  expect((await sim.beat()).engines[0]?.pid).not.toBe(pid);
  expect((await sim.ask("m")).body.choices).toEqual(before.body.choices);
});

test("a wake that fails ends in a new engine, not in an error", async () => {
  await using sim = await simAgent();
  const load = loadOf("m", await simModel(sim.folder, "m", { wake_fails: true }));
  await sim.post("/load_model", load);
  await sim.post("/unload_model", { model_id: "m", to: "DRAM_CACHED" });
  expect(await sim.post("/load_model", load)).toMatchObject({ status: 200, body: { cache_state: "READY" } });
});

test("a new engine that does not compute what the first did is refused, and the reason told", async () => {
  await using sim = await simAgent();
  const load = loadOf("m", await simModel(sim.folder, "m", { corrupt_after_restart: true }));
  await sim.post("/load_model", load);
  await sim.post("/unload_model", { model_id: "m" });
  expect(await sim.post("/load_model", load)).toMatchObject({
    status: 503,
    body: { error: { code: "verification_failed", message: expect.stringContaining("token 0 differs") } },
  });
  expect(await sim.model("m")).toMatchObject({ cache_state: "FAILED", cache_level: "NVME_CACHED" });
});

test("an engine that will not sleep is ended; its model is loaded again from disk", async () => {
  await using sim = await simAgent();
  const load = loadOf("m", await simModel(sim.folder, "m", { refuse_sleep: true }));
  await sim.post("/load_model", load);
  const refused = await sim.post("/unload_model", { model_id: "m", to: "DRAM_CACHED" });
  expect(refused.body).toMatchObject({ error: { code: "engine_died" } });
  expect(await sim.model("m")).toMatchObject({ cache_state: "UNLOADED", cache_level: "NVME_CACHED" });
  expect((await sim.post("/load_model", load)).body).toMatchObject({ status: "loaded" });
});

test("idle models go to sleep and then leave, and a pinned file stays on disk", async () => {
  await using sim = await simAgent();
  const idle = { sleep_after_seconds: 1, unload_after_seconds: 3 };
  const load = loadOf("m", await simModel(sim.folder, "m"), { idle, pinned: true });
  await sim.post("/load_model", load);
  await expect.poll(async () => (await sim.model("m")).cache_state).toBe("SLEEPING");
  await expect.poll(async () => (await sim.model("m")).cache_state).toBe("UNLOADED");
  const { cache, models } = await sim.beat();
  expect(models[0]?.cache_level).toBe("NVME_CACHED");
  expect(cache.entries).toMatchObject([{ model_ids: ["m"], pinned: true }]);
});

test("adapters are loaded, replayed after a wake and a restart, and the least recently used one leaves", async () => {
  await using sim = await simAgent();
  const load = loadOf("m", await simModel(sim.folder, "m", { lora_lost_after_wake: true }), { engine: lora });
  await sim.post("/load_model", load);
  const sources = new Map<string, string>();
  for (const name of ["one", "two", "three"]) sources.set(name, await simAdapter(sim.folder, name));
  const adapter = (name: string) => ({ model_id: "m", adapter: { name, source: sources.get(name) } });
  expect((await sim.post("/load_adapter", adapter("one"))).body).toMatchObject({ status: "loaded", evicted: [] });
  expect((await sim.post("/load_adapter", adapter("one"))).body).toMatchObject({ status: "already_loaded" });
  await sim.post("/load_adapter", adapter("two"));
  const answers = async () => [
    (await sim.ask("m")).body.choices,
    (await sim.ask("m", { adapter: "one" })).body.choices,
  ];
  const before = await answers();
  expect(before[0]).not.toEqual(before[1]);

  // The wake drops them without an error (vllm#53888).
  await sim.post("/unload_model", { model_id: "m", to: "DRAM_CACHED" });
  expect((await sim.post("/load_model", load)).body).toMatchObject({ cache_state: "READY" });
  expect(await answers()).toEqual(before);

  process.kill((await sim.beat()).engines[0]?.pid ?? -1, "SIGKILL");
  await expect.poll(async () => (await sim.beat()).engines[0]?.restarts).toBe(1);
  await sim.post("/load_model", load);
  expect(await answers()).toEqual(before);

  expect((await sim.post("/load_adapter", adapter("three"))).body).toMatchObject({ evicted: ["two"] });
  expect((await sim.model("m")).adapters).toEqual([
    { name: "one", state: "READY", reason: null },
    { name: "two", state: "WAITING", reason: null },
    { name: "three", state: "READY", reason: null },
  ]);
  expect((await sim.ask("m", { adapter: "two" })).body).toMatchObject({ error: { code: "adapter_not_ready" } });
  expect((await sim.post("/unload_adapter", { model_id: "m", adapter: "one" })).body).toMatchObject({
    status: "unloaded",
  });
  expect((await sim.post("/unload_adapter", { model_id: "m", adapter: "one" })).body).toMatchObject({
    status: "not_loaded",
  });
});

test("an adapter that does not fit is refused before the engine is asked", async () => {
  await using sim = await simAgent();
  await sim.post("/load_model", loadOf("m", await simModel(sim.folder, "m"), { engine: lora }));
  const adapter = { name: "wide", source: await simAdapter(sim.folder, "wide", 64) };
  const refused = await sim.post("/load_adapter", { model_id: "m", adapter });
  expect(refused).toMatchObject({
    status: 400,
    body: { error: { code: "adapter_invalid", message: expect.stringContaining("64") } },
  });
  expect((await sim.model("m")).adapters).toMatchObject([{ name: "wide", state: "FAILED" }]);
  const calls = (await sim.get("/infer/m/sim/state")).body.calls as string[];
  expect(calls.filter((call) => call.includes("lora"))).toEqual([]);
});

test("GPUs: models share one by memory, and one too many is refused with the arithmetic", async () => {
  await using sim = await simAgent();
  const small = { gpuMemoryUtilization: 0.4 };
  const source = await simModel(sim.folder, "m");
  for (const id of ["a", "b"])
    expect((await sim.post("/load_model", loadOf(id, source, { engine: small }))).status).toBe(200);
  const refused = await sim.post("/load_model", loadOf("c", source, { engine: small }));
  expect(refused).toMatchObject({ status: 503, body: { error: { code: "insufficient_gpu_memory" } } });
  expect(refused.body.error.message).toMatch(/c needs 1 GPU.*GPU 0: .*reserved by a.*free/s);
  // Asleep, a model leaves room for another; it can wake only when that has gone.
  await sim.post("/unload_model", { model_id: "a", to: "DRAM_CACHED" });
  expect((await sim.post("/load_model", loadOf("c", source, { engine: small }))).status).toBe(200);
  expect((await sim.post("/load_model", loadOf("a", source, { engine: small }))).body).toMatchObject({
    error: { code: "insufficient_gpu_memory" },
  });
  expect(await sim.model("a")).toMatchObject({ cache_state: "SLEEPING" });
  await sim.post("/unload_model", { model_id: "c" });
  expect((await sim.post("/load_model", loadOf("a", source, { engine: small }))).body).toMatchObject({
    status: "woken",
  });
});

test("a tensor-parallel model gets GPUs that are linked, and its engine is told which", async () => {
  await using sim = await simAgent({ machine: "h100-nvswitch" });
  await sim.post("/load_model", loadOf("big", await simModel(sim.folder, "big"), { engine: { tensorParallel: 4 } }));
  const { engines, gpus } = await sim.beat();
  expect(engines[0]?.gpus).toHaveLength(4);
  expect(gpus.filter(({ memory_reserved_bytes }) => memory_reserved_bytes > 0).map(({ index }) => index)).toEqual(
    engines[0]?.gpus,
  );
});

test("signals of the engine are in the heartbeat; one that is missing is named and never 0", async () => {
  await using sim = await simAgent();
  const omitMetrics = ["vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason"];
  await sim.post("/load_model", loadOf("m", await simModel(sim.folder, "m", { omitMetrics })));
  await sim.ask("m");
  await sim.ask("m");
  await expect.poll(async () => (await sim.model("m")).engine?.kv_hit_rate).toBeGreaterThan(0);
  expect((await sim.model("m")).engine).toMatchObject({ running: 0, waiting: null, missing_signals: ["waiting"] });
  expect((await sim.model("m")).engine?.kv_tokens).toBeGreaterThan(0);
  expect((await sim.get("/metrics")).body).toContain('penstock_agent_engine_missing_signals{model="m"} 1');
});

test("a first use streams from the blob store with the node's identity, and the disk fills for the next", async () => {
  await using server = await RangeServer.start({ route: s3Route });
  await using sim = await simAgent({
    sources: { s3: { endpoint: server.url, pathStyle: true, anonymous: true, region: "eu-1" } },
    streamEnv: { AWS_REGION: "eu-1" },
  });
  const folder = fileURLToPath(await simModel(sim.folder, "m"));
  for (const name of await readdir(folder)) server.put(`/weights/m/${name}`, await readFile(join(folder, name)));
  const load = loadOf("m", "s3://weights/m", { engine: { loadFormat: "runai_streamer" } });
  expect((await sim.post("/load_model", load)).body).toMatchObject({ status: "loaded", cache_state: "READY" });
  const seen = async (file: "cmdline" | "environ") =>
    readFile(`/proc/${(await sim.beat()).engines[0]?.pid}/${file}`, "utf8").then((text) => text.split("\0"));
  expect(await seen("cmdline")).toContain("s3://weights/m");
  expect(await seen("environ")).toContain("AWS_REGION=eu-1");
  await expect.poll(async () => (await sim.beat()).cache.entries).toMatchObject([{ model_ids: ["m"] }]);
  const before = await sim.ask("m");
  await sim.post("/unload_model", { model_id: "m" });
  expect((await sim.post("/load_model", load)).body).toMatchObject({ status: "loaded", cache_state: "READY" });
  expect((await seen("cmdline")).join(" ")).not.toContain("s3://weights");
  expect(await seen("environ")).not.toContain("AWS_REGION=eu-1");
  expect((await sim.ask("m")).body.choices).toEqual(before.body.choices);
});

test("a replica over two nodes: the leader serves and is proven, the worker holds its GPUs and is ready with it", async () => {
  await using bin = await temporaryFolder();
  const ray = `#!/bin/sh\nexec ${simulated("vllm").slice(0, 2).join(" ")} --as ray "$@"\n`;
  await writeFile(join(bin.path, "ray"), ray, { mode: 0o755 });
  const engineEnv = { PATH: `${bin.path}:${process.env["PATH"]}` };
  const node = (index: number) =>
    simAgent({ machine: "h100-nvswitch", engineEnv, group: { leaderAddress: "127.0.0.1", size: 2, index } });
  await using leader = await node(0);
  await using worker = await node(1);
  const engine = { tensorParallel: 8, pipelineParallel: 2, nodes: 2 };
  const load = loadOf("m", await simModel(leader.folder, "m"), { engine });
  const answers = await Promise.all([leader, worker].map((sim) => sim.post("/load_model", load)));
  expect(answers.map(({ body }) => body.cache_state)).toEqual(["READY", "READY"]);
  expect((await worker.beat()).engines[0]?.gpus).toHaveLength(8);
  expect((await leader.ask("m")).status).toBe(200);
  const cmdline = await readFile(`/proc/${(await worker.beat()).engines[0]?.pid}/cmdline`, "utf8");
  expect(cmdline.replaceAll("\0", " ")).toContain("ray start --address=127.0.0.1:6379");
});
