import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { engineSpec } from "../../runtime/contracts/engine.ts";
import type { AdapterSpec } from "../../runtime/contracts/model.ts";
import { startGateway, type Gateway } from "../../runtime/gateway/gateway.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { simAdapter, simAgent, simModel, type SimAgent } from "../agent/sim-agent.ts";

// A real gateway, real agents, and simulated engines that hold one adapter at a time.

const token = randomBytes(16).toString("hex");
const key = "adapters-test-key";
const engine = engineSpec.parse({ kind: "vllm", lora: { maxLoras: 1, maxCpuLoras: 1 } });

interface Served extends AsyncDisposable {
  readonly gateway: Gateway;
  ask(model: string, more?: object): Promise<{ status: number; body: string; route: string | null }>;
}

async function served(
  agents: readonly SimAgent[],
  { adapters, settings = {}, maxSeconds = 30 }: Parts,
): Promise<Served> {
  const [first] = agents;
  if (first === undefined) throw new Error("at least one agent");
  const source = await simModel(first.folder, "m", settings);
  const gateway = await startGateway(
    {
      listen: { host: "127.0.0.1", port: 0 },
      apiKey: key,
      fleets: [{ name: "f", agents: { kind: "static", urls: agents.map(({ agent }) => agent.url) } }],
      agentToken: token,
      models: [{ spec: { id: "m", source, format: "safetensors", adapters }, engine, fleet: "f", warm: false }],
      hold: { maxRequests: 1_000, maxBytes: 64 * 2 ** 20, maxSeconds },
      maxBodyBytes: 2 ** 20,
      firstByteTimeoutMs: 10_000,
      betweenBytesTimeoutMs: 10_000,
      drainTimeoutMs: 5_000,
    },
    createLog("gateway", "silent"),
  );
  return {
    gateway,
    async ask(model, more = {}) {
      const response = await fetch(`${gateway.url}/v1/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${key}`, "x-penstock-debug": "route" },
        body: JSON.stringify({ model, prompt: "Once", max_tokens: 4, ...more }),
      });
      const route = response.headers.get("x-penstock-route");
      return { status: response.status, body: await response.text(), route };
    },
    [Symbol.asyncDispose]: () => gateway.stop(),
  };
}

interface Parts {
  readonly adapters: AdapterSpec[];
  readonly settings?: object;
  readonly maxSeconds?: number;
}

async function adapter(sim: SimAgent, name: string, rank = 4): Promise<AdapterSpec> {
  return { name, source: await simAdapter(sim.folder, name, rank) };
}

/** How often an adapter was loaded into an agent's engine. */
async function loadsOf(sim: SimAgent): Promise<number> {
  const { body } = await sim.get("/infer/m/sim/state");
  return (body.calls as string[]).filter((call) => call.includes("/load_lora_adapter")).length;
}

const ok = (count: number) => Array.from({ length: count }, () => 200);

test("100 requests for two adapters of which the engine holds one: each is loaded once, and none fails", async () => {
  await using sim = await simAgent({ token });
  await using under = await served([sim], { adapters: [await adapter(sim, "one"), await adapter(sim, "two")] });
  const names = Array.from({ length: 100 }, (_, at) => (at % 2 === 0 ? "m:one" : "m:two"));
  const answers = await Promise.all(names.map((name) => under.ask(name)));
  expect(answers.map(({ status }) => status)).toEqual(ok(100));
  expect(await loadsOf(sim)).toBe(2);
  expect((await sim.model("m")).measured_ms.adapter).toBeGreaterThan(0);
});

test("requests that take turns between two adapters are all answered, each by its own", async () => {
  await using sim = await simAgent({ token });
  await using under = await served([sim], { adapters: [await adapter(sim, "one"), await adapter(sim, "two")] });
  const texts = new Map<string, Set<string>>();
  for (let turn = 0; turn < 6; turn += 1) {
    const name = turn % 2 === 0 ? "m:one" : "m:two";
    const { status, body } = await under.ask(name);
    expect(status).toBe(200);
    texts.set(name, (texts.get(name) ?? new Set()).add(JSON.parse(body).choices[0].text));
  }
  expect([...texts.values()].map((each) => each.size)).toEqual([1, 1]);
  expect(texts.get("m:one")).not.toEqual(texts.get("m:two"));
});

test("an adapter that is in use all the time makes way for one that is waited for", async () => {
  await using sim = await simAgent({ token });
  const settings = { step_delay_ms: 20 };
  await using under = await served([sim], {
    adapters: [await adapter(sim, "one"), await adapter(sim, "two")],
    settings,
  });
  const done = new AbortController();
  const statuses: number[] = [];
  const busy = async (): Promise<void> => {
    while (!done.signal.aborted) statuses.push((await under.ask("m:one", { max_tokens: 16 })).status);
  };
  const crowd = [busy(), busy(), busy()];
  await expect.poll(() => statuses.length).toBeGreaterThan(3);
  expect((await under.ask("m:two")).status).toBe(200);
  const soFar = statuses.length;
  await expect.poll(() => statuses.length, { timeout: 10_000 }).toBeGreaterThan(soFar + 3);
  done.abort();
  await Promise.all(crowd);
  expect(new Set(statuses)).toEqual(new Set([200]));
});

test("an adapter that cannot be loaded says why, and neither the model nor its breaker suffers", async () => {
  await using sim = await simAgent({ token });
  await using under = await served([sim], { adapters: [await adapter(sim, "wide", 64), await adapter(sim, "one")] });
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const refused = await under.ask("m:wide");
    expect(refused.status).toBe(400);
    expect(JSON.parse(refused.body)).toMatchObject({
      error: { code: "adapter_invalid", message: expect.stringContaining("64") },
    });
  }
  expect((await under.ask("m")).status).toBe(200);
  expect((await under.ask("m:one")).status).toBe(200);
  const { model } = under.gateway.registry.catalog.resolve("m");
  expect(under.gateway.registry.replicas(model)).toHaveLength(1);
});

test("an adapter of a changed config is loaded by its first request", async () => {
  await using sim = await simAgent({ token });
  await using under = await served([sim], { adapters: [] });
  expect((await under.ask("m")).status).toBe(200);
  const { model } = under.gateway.registry.catalog.resolve("m");
  const spec = { ...model.spec, adapters: [await adapter(sim, "late")] };
  await under.gateway.reload({ models: [{ ...model, spec }] });
  expect((await under.ask("m:late")).status).toBe(200);
  expect(await loadsOf(sim)).toBe(1);
});

test("requests go to the replica that has their adapter, and the choice says what a load would cost", async () => {
  await using one = await simAgent({ token });
  await using two = await simAgent({ token });
  const adapters = [await adapter(one, "one"), await adapter(one, "two")];
  // A load that is cheaper than the queue before the replica that has the adapter would be the better choice.
  const settings = { slow_adapter_load_ms: 3_000 };
  await using under = await served([one, two], { adapters, settings });
  const { model } = under.gateway.registry.catalog.resolve("m");
  const spec = { ...model.spec, adapters: [] };
  for (const sim of [one, two]) await sim.post("/load_model", { model_id: "m", model: spec, engine });
  for (const [at, sim] of [one, two].entries()) {
    await sim.post("/load_adapter", { model_id: "m", adapter: adapters[at] });
  }
  const { replicas } = { replicas: () => under.gateway.registry.replicas(model) };
  await expect.poll(() => replicas().filter(({ report }) => report.adapters.length > 0).length).toBe(2);
  const answers = await Promise.all(Array.from({ length: 20 }, (_, at) => under.ask(at % 2 === 0 ? "m:one" : "m:two")));
  expect(answers.map(({ status }) => status)).toEqual(ok(20));
  expect([await loadsOf(one), await loadsOf(two)]).toEqual([1, 1]);
  const { scores } = JSON.parse(answers[0]?.route ?? "{}");
  const parts = scores.map((score: { parts: { adapter: number } }) => score.parts.adapter);
  expect(Math.min(...parts)).toBe(0);
  expect(Math.max(...parts)).toBeGreaterThan(0);
});
