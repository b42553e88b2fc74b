import { expect, test } from "vitest";
import { LoadFailure, type FakeAgentBehaviour } from "../fakes/agent.ts";
import { answers, apiKey, chat, gatewayUnderTest, type GatewayUnderTest } from "./support.ts";

// A real gateway with one fake agent, whose model is READY and whose adapter is not.

const withAdapter = { ...chat, model: "m:pirate" };

async function served(behaviour: FakeAgentBehaviour = {}, maxSeconds = 30): Promise<GatewayUnderTest> {
  const under = await gatewayUnderTest(
    {
      onInfer(incoming, outgoing, body) {
        if (under.agent.adapters.has("pirate")) return answers({ ok: true })(incoming, outgoing, body);
        const error = { message: "Load it first.", type: "server_error", code: "adapter_not_ready", param: null };
        outgoing.writeHead(503).end(JSON.stringify({ error }));
      },
      ...behaviour,
    },
    { hold: { maxRequests: 1_000, maxBytes: 2 ** 20, maxSeconds } },
  );
  const { registry } = under.gateway;
  await registry.load(registry.catalog.resolve("m").model).done;
  return under;
}

const inUse = (): Promise<never> =>
  Promise.reject(
    new LoadFailure({ error: { message: "in use", type: "server_error", code: "model_in_use", param: null } }),
  );

test("100 requests for an adapter that is not there cause one load, and all are answered", async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  await using under = await served({ onLoadAdapter: () => released });
  const pending = Array.from({ length: 100 }, () => under.post("/v1/chat/completions", withAdapter));
  await expect
    .poll(async () => /penstock_gateway_held_requests (\d+)/.exec(await (await under.get("/metrics")).text())?.[1])
    .toBe("100");
  release();
  const statuses = await Promise.all(pending.map(async (response) => (await response).status));
  expect(new Set(statuses)).toEqual(new Set([200]));
  expect([under.agent.adapterLoads, under.agent.loads]).toEqual([1, 1]);
});

function upload({ gateway }: GatewayUnderTest): Promise<Response> {
  const body = new FormData();
  body.append("model", "m:pirate");
  body.append("file", new Blob([new Uint8Array(1_000)]), "a.wav");
  const headers = { authorization: `Bearer ${apiKey}` };
  return fetch(`${gateway.url}/v1/audio/transcriptions`, { method: "POST", headers, body });
}

test("an upload, which cannot be sent twice, waits before it is sent", async () => {
  await using under = await served();
  expect((await upload(under)).status).toBe(200);
  expect((await upload(under)).status).toBe(200);
  expect(under.agent.adapterLoads).toBe(1);
});

test.each([
  ["an upload", upload],
  ["a chat", (under: GatewayUnderTest) => under.post("/v1/chat/completions", withAdapter)],
])("an adapter that %s cannot have says nothing against the replica", async (_, send) => {
  const error = {
    message: "its rank is too high",
    type: "invalid_request_error",
    code: "adapter_invalid",
    param: null,
  };
  await using under = await served({ onLoadAdapter: () => Promise.reject(new LoadFailure({ error })) });
  const refused = await send(under);
  expect(await refused.json()).toMatchObject({ error: { code: "adapter_invalid" } });
  const { model } = under.gateway.registry.catalog.resolve("m");
  expect(under.gateway.registry.replicas(model)).toHaveLength(1);
});

test("while every place for an adapter is in use, requests wait and the agent is asked again", async () => {
  const onLoadAdapter = () => (under.agent.adapterLoads < 3 ? inUse() : Promise.resolve());
  const under = await served({ onLoadAdapter });
  await using _ = under;
  expect((await under.post("/v1/chat/completions", withAdapter)).status).toBe(200);
  expect(under.agent.adapterLoads).toBe(3);
});

test("a load that does not end in time is a 503 with Retry-After, and the replica goes on", async () => {
  await using under = await served({ onLoadAdapter: inUse }, 1);
  const late = await under.post("/v1/chat/completions", withAdapter);
  expect(late.status).toBe(503);
  expect(Number(late.headers.get("retry-after"))).toBeGreaterThan(0);
  expect(await late.json()).toMatchObject({ error: { code: "hold_expired" } });
  const { model } = under.gateway.registry.catalog.resolve("m");
  expect(under.gateway.registry.replicas(model)).toHaveLength(1);
});
