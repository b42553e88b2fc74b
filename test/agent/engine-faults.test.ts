import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { alive } from "../support/repository.ts";
import { loadOf, simAgent, simModel, simulated, type SimAgent } from "./sim-agent.ts";

/** Loads a model that behaves as `settings` say. */
async function load(sim: SimAgent, settings: Parameters<typeof simModel>[2], id = "m") {
  const request = loadOf(id, await simModel(sim.folder, id, settings));
  return { request, answer: await sim.post("/load_model", request) };
}

const failures = [
  ["never becomes ready", { never_ready: true }, "not ready after 2 s"],
  ["runs out of memory at load", { die_at_load: true }, "out of memory"],
  ["lies about readiness", { lie_ready: true }, "does not answer a prompt"],
  ["answers what is not HTTP", { garbage_http: true }, "not ready after 2 s"],
] as const;

test.each(failures)(
  "an engine that %s: the reason reaches the caller, and no process stays",
  async (_what, settings, reason) => {
    await using sim = await simAgent({ readyTimeoutMs: 2_000 });
    const { answer } = await load(sim, settings);
    expect(answer).toMatchObject({ status: 503, body: { error: { message: expect.stringContaining(reason) } } });
    const beat = await sim.beat();
    expect(beat).toMatchObject({ state: "DEGRADED", engines: [] });
    expect(beat.models[0]).toMatchObject({ cache_state: "FAILED", reason: expect.stringContaining(reason) });
    expect(beat.gpus[0]?.memory_reserved_bytes).toBe(0);
  },
);

test("a model that keeps failing is not started for every request: the last reason is answered with Retry-After", async () => {
  await using sim = await simAgent();
  const { request } = await load(sim, { die_at_load: true });
  expect((await sim.post("/load_model", request)).status).toBe(503);
  const third = await sim.post("/load_model", request);
  expect(third.body.error).toMatchObject({
    code: "engine_start_failed",
    message: expect.stringMatching(/out of memory.*failed 2 times; next try in 1 s/s),
  });
});

test("an engine that dies at its first starts is started again until it serves", async () => {
  await using sim = await simAgent();
  const { request, answer } = await load(sim, { die_at_load_times: 1 });
  expect(answer.status).toBe(503);
  expect((await sim.post("/load_model", request)).body).toMatchObject({ cache_state: "READY" });
});

test("an engine that dies in a stream: the client hears of it, the engine comes back by itself", async () => {
  await using sim = await simAgent();
  // The golden prompt takes 16 tokens.
  await load(sim, { die_after_tokens: 30, step_delay_ms: 2 });
  const died = await sim.post("/infer/m/v1/completions", { model: "m", prompt: "x", max_tokens: 100, stream: true });
  expect(died.body).toContain("event: error");
  expect(died.body).toContain('"code":"engine_died"');
  expect(died.body).not.toContain("[DONE]");
  await expect.poll(async () => (await sim.beat()).engines[0]?.restarts).toBe(1);
  await expect.poll(async () => (await sim.model("m")).cache_state).toBe("READY");
  expect((await sim.ask("m")).status).toBe(200);
});

test("an engine that hangs without dying is found, killed and started again", async () => {
  await using sim = await simAgent({ health: { intervalMs: 50, timeoutMs: 300, failures: 2 } });
  await load(sim, {});
  const pid = (await sim.beat()).engines[0]?.pid ?? -1;
  expect((await sim.post("/infer/m/sim/faults", { hang: true })).status).toBe(200);
  await expect.poll(async () => (await sim.beat()).engines[0]?.restarts).toBe(1);
  await expect.poll(async () => (await sim.model("m")).cache_state).toBe("READY");
  expect(alive(pid)).toBe(false);
  expect((await sim.ask("m")).status).toBe(200);
});

test("an engine that ignores SIGTERM and floods its log is stopped at its deadline", async () => {
  await using sim = await simAgent({ stopTimeoutMs: 300 });
  await load(sim, { ignore_sigterm: true, flood_logs: true });
  const pid = (await sim.beat()).engines[0]?.pid ?? -1;
  expect((await sim.post("/unload_model", { model_id: "m" })).body).toMatchObject({ status: "unloaded" });
  expect(alive(pid)).toBe(false);
});

test("an engine that is too old is refused by name", async () => {
  await using sim = await simAgent({
    engineCommands: { vllm: [...simulated("vllm"), "--sim-version", "0.1.2"] },
  });
  const { answer } = await load(sim, {});
  expect(answer.body.error).toMatchObject({
    code: "engine_start_failed",
    message: expect.stringMatching(/vllm 0\.1\.2 is too old; Penstock needs 0\.\d+/),
  });
});

test("an engine that is not installed is said to be", async () => {
  await using sim = await simAgent({ engineCommands: {} });
  const { answer } = await load(sim, {});
  expect(answer.body.error.message).toContain("`vllm` cannot be run (it is not installed)");
});

test("a spec that cannot work and a format that the engine does not read are refused with the remedy", async () => {
  await using sim = await simAgent();
  const source = await simModel(sim.folder, "m");
  const gguf = { model_id: "g", model: { id: "g", source, format: "gguf" }, engine: { kind: "vllm" } };
  expect((await sim.post("/load_model", gguf)).body.error).toMatchObject({
    code: "unsupported",
    message: expect.stringContaining("reads safetensors"),
  });
  const drafts = loadOf("m", source, { engine: { speculative: { method: "draft_model", tokens: 3 } } });
  expect((await sim.post("/load_model", drafts)).body.error).toMatchObject({ code: "unsupported", param: "engine" });
});

test("an unload cancels a load under way; the next load succeeds", async () => {
  await using sim = await simAgent();
  const request = loadOf("m", await simModel(sim.folder, "m", { slow_load_ms: 5_000 }));
  const loading = sim.post("/load_model", request);
  await expect.poll(async () => (await sim.beat()).models[0]?.cache_state).toBe("LOADING_TO_GPU");
  expect((await sim.post("/unload_model", { model_id: "m" })).body).toMatchObject({ status: "unloaded" });
  expect((await loading).body.error).toMatchObject({
    code: "model_not_ready",
    message: expect.stringContaining("cancelled"),
  });
  expect(await sim.beat()).toMatchObject({ engines: [], models: [{ cache_state: "UNLOADED" }] });
});

test("gateways that want different things at once: loads and unloads of two models end in a sound state", async () => {
  await using sim = await simAgent();
  const small = { gpuMemoryUtilization: 0.4 };
  const requests = await Promise.all(
    ["a", "b"].map(async (id) => loadOf(id, await simModel(sim.folder, id, { slow_load_ms: 50 }), { engine: small })),
  );
  const work = Array.from({ length: 24 }, async (_, at) => {
    await delay((at * 37) % 200);
    const id = at % 2 === 0 ? "a" : "b";
    if (at % 5 === 4)
      return sim.post("/unload_model", { model_id: id, to: at % 2 === 0 ? "DRAM_CACHED" : "NVME_CACHED" });
    return sim.post("/load_model", requests[at % 2]);
  });
  for (const answer of await Promise.all(work)) expect([200, 409, 503]).toContain(answer.status);
  for (const request of requests) expect((await sim.post("/load_model", request)).status).toBe(200);
  const { engines, models } = await sim.beat();
  expect(engines).toHaveLength(2);
  expect(models.map(({ cache_state }) => cache_state)).toEqual(["READY", "READY"]);
  expect((await sim.ask("a")).status).toBe(200);
  expect((await sim.ask("b")).status).toBe(200);
});
