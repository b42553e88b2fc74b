import { copyFile, readdir, rename, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startAgent, type Agent } from "../../runtime/agent/agent.ts";
import { heartbeat, loadEvent, type Heartbeat } from "../../runtime/contracts/agent.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { temporaryFolder, type TemporaryFolder } from "../support/folders.ts";
import { alive, demoModel } from "../support/repository.ts";

// A real agent over real sockets, with the embedded engine and the demo model.
let folder: TemporaryFolder;
let agent: Agent;
const token = "agent-test-token";

beforeAll(async () => {
  folder = await temporaryFolder();
  agent = await startAgent(
    {
      agentId: "test",
      listen: { host: "127.0.0.1", port: 0 },
      token,
      cacheDirectory: `${folder.path}/cache`,
      stateDirectory: `${folder.path}/state`,
      sources: {},
      engineEnv: { PATH: process.env["PATH"] ?? "" },
      engineLogLevel: "silent",
      drainTimeoutMs: 5_000,
    },
    createLog("agent", "silent"),
  );
});
afterAll(async () => {
  await agent.stop();
  await folder[Symbol.asyncDispose]();
});

function post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(agent.url + path, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

async function beat(): Promise<Heartbeat> {
  return heartbeat.parse(await (await post("/heartbeat", {})).json());
}

const loadRequest = (id: string, source = `file://${demoModel}`) => ({
  model_id: id,
  model: { id, source },
  engine: { kind: "embedded" },
});
const prompt = { prompt: "Once", max_tokens: 3 };

test("load is idempotent: many at once start one engine, and the endpoint that it answers works", async () => {
  const answers = await Promise.all(Array.from({ length: 12 }, () => post("/load_model", loadRequest("one"))));
  const results = await Promise.all(answers.map((answer) => answer.json()));
  for (const result of results) expect(result).toMatchObject({ model_id: "one", cache_state: "READY" });
  const { engines, models } = await beat();
  expect(engines).toHaveLength(1);
  expect(models[0]).toMatchObject({ cache_level: "GPU_RESIDENT", running: 0 });
  expect(models[0]?.measured_ms.load).toBeGreaterThan(0);
  expect(await (await post("/load_model", loadRequest("one"))).json()).toMatchObject({ status: "already_loaded" });
  const endpoint = models[0]?.inference_endpoint_url ?? "";
  const answer = await post(`${endpoint.slice(agent.url.length)}/v1/completions`, { model: "one", ...prompt });
  expect(answer.status).toBe(200);
});

test("a streamed load tells its phases and ends with the result", async () => {
  const text = await (await post("/load_model", { ...loadRequest("streamed"), stream: true })).text();
  const events = text
    .trimEnd()
    .split("\n")
    .map((line) => loadEvent.parse(JSON.parse(line)));
  expect(events.at(-1)).toMatchObject({ type: "result", result: { status: "loaded" } });
  expect(events.flatMap((event) => (event.type === "progress" ? [event.progress.phase] : []))).toContain("load");
});

test("unload goes down to a tier, and the engine is gone", async () => {
  // A file of its own: one that another loaded model uses is not removed.
  const path = `${folder.path}/down.gguf`;
  await copyFile(demoModel, path);
  const request = loadRequest("down", `file://${path}`);
  await post("/load_model", request);
  const pid = (await beat()).engines.find((engine) => engine.model_id === "down")?.pid ?? -1;
  expect(await (await post("/unload_model", { model_id: "down" })).json()).toEqual({
    status: "unloaded",
    model_id: "down",
    cache_level: "NVME_CACHED",
  });
  expect(alive(pid)).toBe(false);
  const refused = await post("/infer/down/v1/completions", { model: "down", ...prompt });
  expect([refused.status, await refused.json()]).toMatchObject([503, { error: { code: "model_not_ready" } }]);
  expect(await (await post("/load_model", request)).json()).toMatchObject({ status: "loaded" });
  await post("/unload_model", { model_id: "down", to: "REMOTE" });
  expect((await beat()).models.find((model) => model.model_id === "down")).toMatchObject({ cache_level: "REMOTE" });
});

test("a model in use is not unloaded", async () => {
  await post("/load_model", loadRequest("busy"));
  const leaving = new AbortController();
  const stream = await fetch(`${agent.url}/infer/busy/v1/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ model: "busy", prompt: "a", max_tokens: 450, stream: true, logit_bias: { "300": 100 } }),
    signal: leaving.signal,
  });
  expect(stream.status).toBe(200);
  const refused = await post("/unload_model", { model_id: "busy" });
  expect([refused.status, await refused.json()]).toMatchObject([409, { error: { code: "model_in_use" } }]);
  leaving.abort();
  await expect.poll(async () => (await beat()).models.find((model) => model.model_id === "busy")?.running).toBe(0);
  expect((await post("/unload_model", { model_id: "busy" })).status).toBe(200);
});

test("an engine that dies is started again, and a load meanwhile waits for it", async () => {
  await post("/load_model", loadRequest("dying"));
  const engine = async () => (await beat()).engines.find(({ model_id }) => model_id === "dying");
  const pid = (await engine())?.pid ?? -1;
  process.kill(pid, "SIGKILL");
  const status = async () => (await beat()).models.find((model) => model.model_id === "dying");
  await expect.poll(async () => (await status())?.cache_state).not.toBe("READY");
  expect(await (await post("/load_model", loadRequest("dying"))).json()).toMatchObject({ cache_state: "READY" });
  expect(await engine()).toMatchObject({ restarts: 1 });
  expect((await engine())?.pid).not.toBe(pid);
});

test("a model that cannot load answers why, and can be mended", async () => {
  const path = `${folder.path}/mended.gguf`;
  await writeFile(path, "not a model");
  const failed = await post("/load_model", loadRequest("mended", `file://${path}`));
  expect([failed.status, await failed.json()]).toMatchObject([503, { error: { code: "model_file_invalid" } }]);
  expect((await beat()).models.find((model) => model.model_id === "mended")).toMatchObject({ cache_state: "FAILED" });
  await copyFile(demoModel, path);
  expect((await post("/load_model", loadRequest("mended", `file://${path}`))).status).toBe(200);
});

test.each([
  ["../../etc/passwd", "model_id"],
  ["a/../b", "model_id"],
  ["..", "model_id"],
  ["a:b", "model_id"],
])("the model id %j is refused", async (id, param) => {
  const answer = await post("/load_model", loadRequest(id));
  expect([answer.status, await answer.json()]).toMatchObject([400, { error: { param } }]);
});

test.each([
  [{ ...loadRequest("x"), extra: 1 }, 400],
  [{ ...loadRequest("x"), model: { id: "y", source: "file:///x" } }, 400],
  [{ ...loadRequest("x"), engine: { kind: "nothing" } }, 400],
  ["text", 400],
])("a load request like %j is refused", async (body, status) => {
  expect((await post("/load_model", body)).status).toBe(status);
});

test("the embedded engine cannot sleep, and says so", async () => {
  await post("/load_model", loadRequest("one"));
  const answer = await post("/unload_model", { model_id: "one", to: "DRAM_CACHED" });
  expect(await answer.json()).toMatchObject({ error: { code: "unsupported", param: "to" } });
});

test.each(["/load_model", "/unload_model", "/heartbeat", "/drain", "/infer/one/v1/models", "/stats", "/metrics"])(
  "%s asks for the token",
  async (path) => {
    expect((await post(path, {}, { authorization: "Bearer wrong" })).status).toBe(401);
  },
);

test("metrics and probes", async () => {
  expect((await fetch(`${agent.url}/health`)).status).toBe(200);
  expect((await fetch(`${agent.url}/ready`)).status).toBe(200);
  const metrics = await (await fetch(`${agent.url}/metrics`, { headers: { authorization: `Bearer ${token}` } })).text();
  expect(metrics).toContain('penstock_agent_model_state{model="one",state="READY"} 1');
  expect(metrics).toContain('penstock_agent_transition_seconds{model="one",transition="load"}');
});

test("a disk that is gone shows in the heartbeat and does not silence it", async () => {
  await rename(`${folder.path}/cache`, `${folder.path}/elsewhere`);
  expect(await beat()).toMatchObject({ state: "DEGRADED", disk: { free_bytes: 0 } });
  await rename(`${folder.path}/elsewhere`, `${folder.path}/cache`);
  expect((await beat()).state).not.toBe("DRAINING");
});

test("a drain takes nothing new", async () => {
  expect(await (await post("/drain", {})).json()).toEqual({ status: "drained", running: 0 });
  expect((await beat()).state).toBe("DRAINING");
  expect((await fetch(`${agent.url}/ready`)).status).toBe(503);
  for (const path of ["/load_model", "/infer/one/v1/completions"]) {
    const answer = await post(path, path === "/load_model" ? loadRequest("late") : prompt);
    expect([answer.status, await answer.json()]).toMatchObject([503, { error: { code: "draining" } }]);
  }
  expect((await readdir(`${folder.path}/cache`)).length).toBeGreaterThan(0);
});
