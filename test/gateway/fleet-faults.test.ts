import { expect, test } from "vitest";
import type { Heartbeat, ModelReport } from "../../runtime/contracts/agent.ts";
import { policies } from "../../runtime/gateway/routing/index.ts";
import { Router } from "../../runtime/gateway/routing/router.ts";
import { startFakeAgent, type FakeAgent, type FakeAgentBehaviour } from "../fakes/agent.ts";
import { proxy } from "../support/servers/proxy.ts";
import { HeldBack } from "./held-back.ts";
import { answers, apiKey, chat, gatewayUnderTest, type GatewayUnderTest } from "./support.ts";

// A real gateway in front of agents that lie, hang or go away.

/** An agent whose model is READY and that counts the requests that it gets. */
async function readyAgent(behaviour: FakeAgentBehaviour = {}): Promise<FakeAgent & { asked: number }> {
  const agent = await startFakeAgent({
    onInfer(incoming, outgoing, body) {
      counted.asked += 1;
      return answers({ ok: true })(incoming, outgoing, body);
    },
    ...behaviour,
  });
  agent.state = "READY";
  const counted = Object.assign(agent, { asked: 0 });
  return counted;
}

const inFrontOf = (urls: string[], more: object = {}): Promise<GatewayUnderTest> =>
  gatewayUnderTest({}, { fleets: [{ name: "test", agents: { kind: "static", urls } }], ...more });

const ask = async (under: GatewayUnderTest): Promise<number> => {
  const response = await under.post("/v1/chat/completions", chat);
  await response.text();
  return response.status;
};

const askAtOnce = (under: GatewayUnderTest, count: number): Promise<number[]> =>
  Promise.all(Array.from({ length: count }, () => ask(under)));

const ok = (count: number) => Array.from({ length: count }, () => 200);

/** A heartbeat with other words about its one model. */
const claiming =
  (about: Partial<ModelReport>) =>
  (truth: Heartbeat): Heartbeat => ({ ...truth, models: truth.models.map((model) => ({ ...model, ...about })) });

const never = { running: null, waiting: null, kv_usage: null, kv_hit_rate: null, kv_tokens: null, missing_signals: [] };
const measured = { download: -1, load: -1e300, sleep: -1, wake: -1, unload: -1, adapter: 1e308 };

test.each([
  ["huge", { ...never, running: 1e308, waiting: 1e308, kv_usage: 1e308, kv_tokens: 1e308 }],
  ["negative", { ...never, running: -1e308, waiting: -1e308, kv_usage: -1e308, kv_tokens: -1e308 }],
])("an agent that claims %s numbers does not get everything, and no cost is beyond comparison", async (_, engine) => {
  const lie = claiming({ engine, measured_ms: measured, size_bytes: -1e308, idle_seconds: 1e308 });
  await using liar = await readyAgent({ onHeartbeat: lie });
  await using honest = await readyAgent();
  await using under = await inFrontOf([liar.url, honest.url]);
  expect(await askAtOnce(under, 30)).toEqual(ok(30));
  expect(honest.asked).toBeGreaterThan(0);
  const response = await fetch(`${under.gateway.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${apiKey}`, "x-penstock-debug": "route" },
    body: JSON.stringify(chat),
  });
  const { scores } = JSON.parse(response.headers.get("x-penstock-route") ?? "{}");
  // What is not finite is null in JSON.
  expect(scores).toMatchObject([{ score: expect.any(Number) }, { score: expect.any(Number) }]);
});

test("an agent with another one's id is still itself: both are known, and both are used", async () => {
  const copy = (truth: Heartbeat): Heartbeat => ({ ...truth, agent_id: "victim" });
  await using victim = await readyAgent({ onHeartbeat: copy });
  await using thief = await readyAgent({ onHeartbeat: copy });
  await using under = await inFrontOf([victim.url, thief.url]);
  expect(under.gateway.registry.agents.map(({ url }) => url)).toEqual([victim.url, thief.url]);
  expect(await askAtOnce(under, 20)).toEqual(ok(20));
  expect(Math.min(victim.asked, thief.asked)).toBeGreaterThan(0);
  await thief.close();
  expect(await askAtOnce(under, 5)).toEqual(ok(5));
});

test.each([
  ["is of another shape", () => ({ agent_id: 7, models: "all" })],
  ["never ends", (truth: Heartbeat) => ({ ...truth, reason: "x".repeat(9 * 2 ** 20) })],
  ["names a path instead of a model", claiming({ model_id: "../../m" })],
])("an agent whose heartbeat %s is not used, and the others are", async (_, onHeartbeat) => {
  await using liar = await readyAgent({ onHeartbeat });
  await using honest = await readyAgent();
  await using under = await inFrontOf([liar.url, honest.url]);
  expect(await askAtOnce(under, 10)).toEqual(ok(10));
  expect([liar.asked, honest.asked]).toEqual([0, 10]);
});

test("an agent of a version before, which says less, is used like any other", async () => {
  const { kv_tokens: _tokens, ...engine } = never;
  const { adapter: _adapter, ...times } = { ...measured, load: 1_000 };
  const onHeartbeat = (truth: Heartbeat): unknown => ({
    ...truth,
    models: truth.models.map((model) => ({ ...model, engine, measured_ms: times })),
  });
  await using agent = await readyAgent({ onHeartbeat });
  await using under = await inFrontOf([agent.url]);
  expect(await ask(under)).toBe(200);
  expect(agent.loads).toBe(0);
});

test("an agent that claims READY for what it has not is refused once, and no request fails", async () => {
  let refused = 0;
  await using liar = await readyAgent({
    onInfer(_, outgoing) {
      refused += 1;
      const error = { message: "not loaded", type: "server_error", code: "model_not_ready", param: null };
      outgoing.writeHead(503).end(JSON.stringify({ error }));
    },
  });
  await using honest = await readyAgent();
  await using under = await inFrontOf([liar.url, honest.url]);
  for (let at = 0; at < 20; at += 1) expect(await ask(under)).toBe(200);
  expect(refused).toBeGreaterThan(0);
  // It is tried again when it says once more that it is ready, until its breaker opens.
  expect(refused).toBeLessThanOrEqual(4);
});

test("all replicas gone is an error at once that says when to come back; one that returns serves again", async () => {
  await using agent = await readyAgent();
  await using way = await proxy(agent.url);
  await using under = await inFrontOf([way.url]);
  expect(await ask(under)).toBe(200);
  way.cutAfter(0);
  await expect.poll(async () => (await under.get("/ready")).status, { timeout: 15_000 }).toBe(503);
  const gone = await under.post("/v1/chat/completions", chat);
  expect(gone.status).toBe(503);
  expect(Number(gone.headers.get("retry-after"))).toBeGreaterThan(0);
  expect(await gone.json()).toMatchObject({ error: { code: "no_replica" } });
  way.heal();
  await expect.poll(() => ask(under), { timeout: 15_000 }).toBe(200);
});

test("a replica whose engine hangs costs a few time-outs, and is then left alone", async () => {
  let hung = 0;
  await using hanging = await readyAgent({ onInfer: () => void (hung += 1) });
  await using good = await readyAgent();
  await using under = await inFrontOf([hanging.url, good.url], { firstByteTimeoutMs: 1_500, routing: "round_robin" });
  const statuses: number[] = [];
  for (let at = 0; at < 6; at += 1) statuses.push(await ask(under));
  expect([hung, statuses.toSorted((a, b) => a - b)]).toEqual([3, [200, 200, 200, 504, 504, 504]]);
  expect(await askAtOnce(under, 10)).toEqual(ok(10));
  expect(hung).toBe(3);
});

test("an agent that hangs as a whole is given up, and its model is loaded elsewhere", async () => {
  await using agent = await readyAgent();
  await using way = new HeldBack(agent.url, "/");
  await using other = await startFakeAgent({ onInfer: answers({ ok: true }) });
  await using under = await inFrontOf([await way.start(), other.url], { firstByteTimeoutMs: 1_000 });
  expect([await ask(under), other.loads]).toEqual([200, 0]);
  way.isHolding = true;
  const reachable = () => under.gateway.registry.agents.filter((each) => each.reachable).map(({ url }) => url);
  await expect.poll(reachable, { timeout: 15_000 }).toEqual([other.url]);
  expect([await ask(under), other.loads]).toEqual([200, 1]);
});

test("a small KV cache that fills up costs more than a large one", async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  let asked = 0;
  const hold: FakeAgentBehaviour["onInfer"] = async (incoming, outgoing, body) => {
    asked += 1;
    await released;
    await answers({ ok: true })(incoming, outgoing, body);
  };
  const sized = (kv_tokens: number) =>
    readyAgent({ onHeartbeat: claiming({ engine: { ...never, kv_tokens } }), onInfer: hold });
  await using small = await sized(1_000);
  await using large = await sized(10_000_000);
  await using under = await inFrontOf([small.url, large.url], { routing: "round_robin" });
  const long = { ...chat, messages: [{ role: "user", content: "word ".repeat(1_000) }] };
  const open = [0, 1].map(() => under.post("/v1/chat/completions", long));
  await expect.poll(() => asked).toBe(2);
  await under.gateway.reload({ models: under.gateway.registry.catalog.all, routing: "predicted_cost" });
  const third = fetch(`${under.gateway.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${apiKey}`, "x-penstock-debug": "route" },
    body: JSON.stringify(chat),
  });
  await expect.poll(() => asked).toBe(3);
  release();
  const { chosen, scores } = JSON.parse((await third).headers.get("x-penstock-route") ?? "{}");
  await Promise.all(open);
  const memoryOf = (url: string): number => scores.find(({ id }: { id: string }) => id === url)?.parts.memory;
  expect(chosen).toBe(large.url);
  expect(memoryOf(small.url)).toBeGreaterThan(memoryOf(large.url));
});

test("what an engine says of its KV cache bounds what it is thought to hold", () => {
  const router = new Router({ policy: policies.predicted_cost, random: () => 0 });
  const prefix = Uint32Array.from({ length: 64 }, (_, block) => block + 1);
  const request = { promptTokens: 4_096, prefix, sessionKey: null, adapter: null };
  const cachedOf = (): number => {
    const route = router.route(request, 1);
    route?.firstByte(2);
    route?.end(2);
    return route?.cachedTokens ?? -1;
  };
  router.add("a");
  expect([cachedOf(), cachedOf()]).toEqual([0, 4_095]);
  router.resize("a", 1_000_000);
  expect(router.account("a")?.kvTokens).toBe(1_000_000);
  expect([cachedOf(), cachedOf()]).toEqual([0, 4_095]);
  // Said again, it changes nothing.
  router.resize("a", 1_000_000);
  expect(cachedOf()).toBe(4_095);
});
