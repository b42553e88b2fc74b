import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { engineSpec } from "../../runtime/contracts/engine.ts";
import { startGateway, type Gateway } from "../../runtime/gateway/gateway.ts";
import type { GatewayOptions, ServedModel } from "../../runtime/gateway/options.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { simAgent, simModel, type SimAgent } from "../agent/sim-agent.ts";

// A real gateway, real agents, and simulated engines on simulated GPUs.

const token = randomBytes(16).toString("hex");
const key = "scheduling-test-key";

interface Cluster extends AsyncDisposable {
  readonly gateway: Gateway;
  ask(model: string): Promise<{ status: number; body: string }>;
}

async function cluster(
  agents: readonly SimAgent[],
  models: readonly Omit<ServedModel, "fleet" | "warm">[],
  more: Partial<GatewayOptions> = {},
): Promise<Cluster> {
  const options: GatewayOptions = {
    listen: { host: "127.0.0.1", port: 0 },
    apiKey: key,
    fleets: [{ name: "f", agents: { kind: "static", urls: agents.map(({ agent }) => agent.url) } }],
    agentToken: token,
    models: models.map((each) => ({ ...each, fleet: "f", warm: false })),
    hold: { maxRequests: 1_000, maxBytes: 64 * 2 ** 20, maxSeconds: 30 },
    maxBodyBytes: 2 ** 20,
    firstByteTimeoutMs: 10_000,
    betweenBytesTimeoutMs: 10_000,
    drainTimeoutMs: 5_000,
    ...more,
  };
  const gateway = await startGateway(options, createLog("gateway", "silent"));
  return {
    gateway,
    async ask(id) {
      const response = await fetch(`${gateway.url}/v1/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
        body: JSON.stringify({ model: id, prompt: "Once", max_tokens: 4 }),
      });
      return { status: response.status, body: await response.text() };
    },
    [Symbol.asyncDispose]: () => gateway.stop(),
  };
}

function deployment({ gateway }: Cluster, id: string) {
  return gateway.registry.catalog.resolve(id).model;
}

function stateOf(under: Cluster, id: string): string {
  return under.gateway.registry.stateOf(deployment(under, id)).state;
}

async function model(sim: SimAgent, id: string, engine: object = {}): Promise<Omit<ServedModel, "fleet" | "warm">> {
  const source = await simModel(sim.folder, id);
  return {
    spec: { id, source, format: "safetensors", adapters: [] },
    engine: engineSpec.parse({ kind: "vllm", ...engine }),
  };
}

test("models spread over agents; when one agent goes, the next request loads its model on the other", async () => {
  await using one = await simAgent({ token });
  await using two = await simAgent({ token });
  const models = [await model(one, "a"), await model(one, "b")];
  await using under = await cluster([one, two], models);
  // Each takes a whole GPU, so they cannot be on one agent.
  for (const id of ["a", "b"]) expect(await under.ask(id)).toMatchObject({ status: 200 });
  const placed = await Promise.all(
    [one, two].map(async (sim) => (await sim.beat()).engines.map(({ model_id }) => model_id)),
  );
  expect(placed.flat().toSorted()).toEqual(["a", "b"]);
  expect(placed.map((ids) => ids.length)).toEqual([1, 1]);
});

test("100 requests for a model that no agent has cause one load, and all are answered", async () => {
  await using one = await simAgent({ token });
  await using two = await simAgent({ token });
  await using under = await cluster([one, two], [await model(one, "m")]);
  const answers = await Promise.all(Array.from({ length: 100 }, () => under.ask("m")));
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
  const engines = [...(await one.beat()).engines, ...(await two.beat()).engines];
  expect(engines).toHaveLength(1);
});

test("a model that fell asleep by itself is woken by the next request, where it sleeps", async () => {
  await using one = await simAgent({ token });
  await using two = await simAgent({ token });
  const sleepy = { ...(await model(one, "m")), idle: { sleep_after_seconds: 1, unload_after_seconds: null } };
  await using under = await cluster([one, two], [sleepy]);
  await under.ask("m");
  const where = (await one.beat()).engines.length === 1 ? one : two;
  const pid = (await where.beat()).engines[0]?.pid;
  await expect.poll(async () => (await where.model("m")).cache_state).toBe("SLEEPING");
  await expect.poll(() => stateOf(under, "m")).toBe("SLEEPING");
  expect(await under.ask("m")).toMatchObject({ status: 200 });
  expect((await where.beat()).engines[0]?.pid).toBe(pid);
});

test("with no room anywhere the answer says what is in the way, and when to come back", async () => {
  await using one = await simAgent({ token });
  await using under = await cluster([one], [await model(one, "a"), await model(one, "b")]);
  expect((await under.ask("a")).status).toBe(200);
  const refused = await under.ask("b");
  expect(refused.status).toBe(503);
  expect(refused.body).toContain("b cannot be loaded now: 1 agent(s) have no room for 1 GPU(s) with 90 % each");
});

test("an agent that dies: requests go to the other replica, and none fails", async () => {
  await using one = await simAgent({ token });
  await using two = await simAgent({ token });
  const small = await model(one, "m");
  await using under = await cluster([one, two], [small]);
  for (const sim of [one, two]) {
    const { spec, engine } = small;
    await sim.post("/load_model", { model_id: spec.id, model: spec, engine });
  }
  await expect.poll(() => under.gateway.registry.replicas(deployment(under, "m")).length).toBe(2);
  process.kill((await one.beat()).engines[0]?.pid ?? -1, "SIGKILL");
  const answers = await Promise.all(Array.from({ length: 20 }, () => under.ask("m")));
  expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 200));
});

test("an alias sends its share to each model, under the name that the engine knows", async () => {
  await using one = await simAgent({ token, machine: "h100-nvswitch" });
  const aliases = {
    chat: [
      { model: "old", weight: 3 },
      { model: "new", weight: 1 },
    ],
  };
  await using under = await cluster([one], [await model(one, "old"), await model(one, "new")], { aliases });
  const answers = await Promise.all(Array.from({ length: 80 }, () => under.ask("chat")));
  const served = answers.map(({ status, body }) => (status === 200 ? String(JSON.parse(body).model) : body));
  const share = served.filter((name) => name === "new").length;
  expect(new Set(served)).toEqual(new Set(["old", "new"]));
  // 20 are expected; outside 5 to 40 falls one run in a million.
  expect(share).toBeGreaterThan(5);
  expect(share).toBeLessThan(40);
});

test("a new version is warmed beside the old one, and no request fails while it takes over", async () => {
  await using one = await simAgent({ token });
  const small = { gpuMemoryUtilization: 0.3 };
  const before = await model(one, "m", small);
  await using under = await cluster([one], [before]);
  expect((await under.ask("m")).status).toBe(200);
  const source = await simModel(one.folder, "m-next", { slow_load_ms: 500 });
  const after = { ...before, spec: { ...before.spec, source }, fleet: "f", warm: false };
  const statuses: number[] = [];
  const done = new AbortController();
  const asking = (async () => {
    while (!done.signal.aborted) statuses.push((await under.ask("m")).status);
  })();
  await under.gateway.reload({ models: [after] });
  for (let more = 0; more < 5; more += 1) statuses.push((await under.ask("m")).status);
  done.abort();
  await asking;
  expect(new Set(statuses)).toEqual(new Set([200]));
  expect(statuses.length).toBeGreaterThan(10);
  await expect
    .poll(async () => (await one.beat()).engines.map(({ model_id }) => model_id))
    .toEqual([expect.stringMatching(/^m\.[0-9a-f]{8}$/)]);
  await under.gateway.reload({ models: [] });
  expect((await under.ask("m")).status).toBe(404);
});

test("a reload whose new version cannot be loaded is refused, and the old one goes on", async () => {
  await using one = await simAgent({ token });
  const before = await model(one, "m", { gpuMemoryUtilization: 0.3 });
  await using under = await cluster([one], [before]);
  await under.ask("m");
  const source = await simModel(one.folder, "broken", { die_at_load: true });
  const after = { ...before, spec: { ...before.spec, source }, fleet: "f", warm: false };
  await expect(under.gateway.reload({ models: [after] })).rejects.toThrow("out of memory");
  expect((await under.ask("m")).status).toBe(200);
});

test("an admin sees why a replica was chosen", async () => {
  await using one = await simAgent({ token });
  await using under = await cluster([one], [await model(one, "m")]);
  await under.ask("m");
  const answer = await fetch(`${under.gateway.url}/v1/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "x-penstock-debug": "route" },
    body: JSON.stringify({ model: "m", prompt: "Once", max_tokens: 2 }),
  });
  const route = JSON.parse(answer.headers.get("x-penstock-route") ?? "{}");
  expect(route).toMatchObject({ chosen: one.agent.url, scores: [{ ready: true }] });
});
