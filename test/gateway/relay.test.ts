import { once } from "node:events";
import { expect, test } from "vitest";
import { startFakeAgent } from "../fakes/agent.ts";
import { answers, apiKey, chat, gatewayUnderTest } from "./support.ts";

test("the body reaches the engine byte for byte, unknown fields and all", async () => {
  let seen = "";
  let path = "";
  await using under = await gatewayUnderTest({
    onInfer(incoming, outgoing, body) {
      seen = body;
      path = incoming.url ?? "";
      outgoing.end("{}");
    },
  });
  const body = '{ "model":"m:pirate",\n "messages":[{"role":"user","content":"hé"}], "guided_choice": ["a"] }';
  expect((await under.post("/v1/chat/completions", body)).status).toBe(200);
  expect(seen).toBe(body);
  expect(path).toBe("/infer/m/v1/chat/completions");
});

test("credentials of the client never reach the engine", async () => {
  let headers: Record<string, unknown> = {};
  await using under = await gatewayUnderTest({
    onInfer(incoming, outgoing) {
      headers = incoming.headers;
      outgoing.end("{}");
    },
  });
  await under.post("/v1/chat/completions", chat);
  expect(JSON.stringify(headers)).not.toContain("gateway-test-key");
});

test("an agent that lost the model is asked to load it again, and the request succeeds", async () => {
  let calls = 0;
  await using under = await gatewayUnderTest({
    onInfer(_, outgoing) {
      calls += 1;
      if (calls === 2) {
        const error = { message: "gone", type: "server_error", code: "model_not_ready", param: null };
        outgoing.writeHead(503, { "content-type": "application/json" }).end(JSON.stringify({ error }));
      } else outgoing.end('{"ok":true}');
    },
  });
  expect((await under.post("/v1/chat/completions", chat)).status).toBe(200);
  expect((await under.post("/v1/chat/completions", chat)).status).toBe(200);
  expect({ loads: under.agent.loads, calls }).toEqual({ loads: 2, calls: 3 });
});

test("a generation that an engine had begun is not sent again", async () => {
  let calls = 0;
  await using under = await gatewayUnderTest({
    onInfer(incoming) {
      calls += 1;
      incoming.socket.destroy();
    },
  });
  const response = await under.post("/v1/chat/completions", chat);
  expect(response.status).toBe(502);
  expect(await response.json()).toMatchObject({ error: { code: "engine_died" } });
  expect(calls).toBe(1);
});

test("an engine that dies in a stream ends it with an SSE error, and metrics count it as cut", async () => {
  await using under = await gatewayUnderTest({
    onInfer(incoming, outgoing) {
      outgoing.writeHead(200, { "content-type": "text/event-stream" });
      outgoing.write('data: {"n":1}\n\n', () => incoming.socket.destroy());
    },
  });
  const body = await (await under.post("/v1/chat/completions", { ...chat, stream: true })).text();
  expect(body).toMatch(/^data: \{"n":1\}\n\nevent: error\ndata: \{"error":\{.*"code":"engine_died".*\n\n$/);
  await expect
    .poll(async () => (await under.get("/metrics")).text())
    .toContain('penstock_gateway_requests_total{endpoint="/v1/chat/completions",model="m",status="cut"} 1');
});

test("a client that leaves closes the engine's request within 200 ms", async () => {
  const { promise: closed, resolve: onClosed } = Promise.withResolvers<number>();
  await using under = await gatewayUnderTest({
    onInfer(_, outgoing) {
      outgoing.writeHead(200, { "content-type": "text/event-stream" });
      outgoing.write("data: {}\n\n");
      outgoing.on("close", () => onClosed(performance.now()));
    },
  });
  const leaving = new AbortController();
  const response = await under.post("/v1/chat/completions", { ...chat, stream: true }, { signal: leaving.signal });
  await response.body?.getReader().read();
  const left = performance.now();
  leaving.abort();
  expect((await closed) - left).toBeLessThan(200);
});

test("a client that leaves before the first byte closes the engine's request too", async () => {
  const { promise: closed, resolve: onClosed } = Promise.withResolvers<string>();
  await using under = await gatewayUnderTest({
    onInfer: (_, outgoing) => void once(outgoing, "close").then(() => onClosed("closed")),
  });
  await expect(under.post("/v1/chat/completions", chat, { signal: AbortSignal.timeout(300) })).rejects.toThrow();
  expect(await closed).toBe("closed");
});

test.each(["/v1/chat/completions", "/v1/chat/completions?api-version=1", "/v1/chat%2Dcompletions/../chat/completions"])(
  "POST %s is answered, errors with the id of the log, and no other method",
  async (path) => {
    await using under = await gatewayUnderTest({ onInfer: answers({ said: "hi" }) });
    const response = await under.post(path, chat);
    expect([response.status, await response.json()]).toEqual([200, { said: "hi" }]);
    const wrong = await under.post(path, {});
    expect([wrong.status, await wrong.json()]).toMatchObject([400, { error: { code: "missing_field" } }]);
    for (const each of [response, wrong]) expect(each.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    expect((await under.get(path)).status).toBe(405);
  },
);

test("an engine that says nothing in time is a 504", async () => {
  await using under = await gatewayUnderTest({ onInfer: () => undefined }, { firstByteTimeoutMs: 1_100 });
  const response = await under.post("/v1/chat/completions", chat);
  expect(response.status).toBe(504);
  expect(await response.json()).toMatchObject({ error: { code: "upstream_timeout" } });
});

test("a stop lets an open stream end and refuses new work", async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  await using under = await gatewayUnderTest({
    async onInfer(_, outgoing) {
      outgoing.writeHead(200, { "content-type": "text/event-stream" });
      outgoing.write("data: 1\n\n");
      await released;
      outgoing.end("data: [DONE]\n\n");
    },
  });
  const response = await under.post("/v1/chat/completions", { ...chat, stream: true });
  const stopped = under.gateway.stop();
  await expect(under.post("/v1/chat/completions", chat)).rejects.toThrow();
  release();
  expect(await response.text()).toBe("data: 1\n\ndata: [DONE]\n\n");
  await stopped;
});

test("an upstream refusal such as 429 is relayed with its headers", async () => {
  await using under = await gatewayUnderTest({
    onInfer: (_, outgoing) => void outgoing.writeHead(429, { "retry-after": "7" }).end('{"error":{}}'),
  });
  const response = await under.post("/v1/chat/completions", chat);
  expect([response.status, response.headers.get("retry-after")]).toEqual([429, "7"]);
});

test("every answer names the request", async () => {
  await using under = await gatewayUnderTest({ onInfer: answers({}) });
  const ids = await Promise.all(
    [chat, chat, {}].map(async (body) => (await under.post("/v1/chat/completions", body)).headers.get("x-request-id")),
  );
  expect(new Set(ids).size).toBe(3);
  expect(ids.every((id) => id !== null && id.length > 10)).toBe(true);
});

test("the agent is told which adapter a request uses by the gateway alone, never by a client's header", async () => {
  const seen: (string | string[] | undefined)[] = [];
  await using under = await gatewayUnderTest({
    onInfer(incoming, outgoing) {
      seen.push(incoming.headers["x-penstock-adapter"]);
      outgoing.end("{}");
    },
  });
  const forged = { headers: { authorization: `Bearer ${apiKey}`, "x-penstock-adapter": "other" } };
  await under.post("/v1/chat/completions", { ...chat, model: "m:pirate" });
  await under.post("/v1/chat/completions", chat, forged);
  expect(seen).toEqual(["pirate", undefined]);
});

test("an agent whose heartbeat names another server gets its requests itself, and that server nothing", async () => {
  await using thief = await startFakeAgent({ onInfer: (_, outgoing) => void outgoing.end("{}") });
  await using under = await gatewayUnderTest({
    onInfer: answers({ own: true }),
    onHeartbeat: (truth) => ({
      ...truth,
      models: truth.models.map((each) => ({ ...each, inference_endpoint_url: `${thief.url}/infer/m` })),
    }),
  });
  for (let request = 0; request < 3; request += 1) {
    const response = await under.post("/v1/chat/completions", chat);
    expect([response.status, await response.json()]).toEqual([200, { own: true }]);
  }
});

test("an agent that claims a model which it does not have is asked to load it", async () => {
  let isLoaded = false;
  await using under = await gatewayUnderTest({
    onLoad: async () => void (isLoaded = true),
    onInfer(_, outgoing) {
      const error = { message: "never loaded", type: "server_error", code: "model_not_ready", param: null };
      if (isLoaded) outgoing.end('{"ok":true}');
      else outgoing.writeHead(503, { "content-type": "application/json" }).end(JSON.stringify({ error }));
    },
    onHeartbeat: (truth) => ({ ...truth, models: truth.models.map((each) => ({ ...each, cache_state: "READY" })) }),
  });
  expect((await under.post("/v1/chat/completions", chat)).status).toBe(200);
  expect(under.agent.loads).toBe(1);
});

test.each<[string, unknown]>([
  ["is no object", ["READY"]],
  ["has a state that there is not", { state: "FINE" }],
  ["has a number that is none", { memory: { total_bytes: "all", free_bytes: -1 } }],
])("an agent whose heartbeat %s serves nothing, and the client is told", async (_, lie) => {
  const onHeartbeat = (truth: object): unknown => (Array.isArray(lie) ? lie : { ...truth, ...(lie as object) });
  await using under = await gatewayUnderTest(
    { onHeartbeat },
    { hold: { maxRequests: 1, maxBytes: 1e6, maxSeconds: 1 } },
  );
  const response = await under.post("/v1/chat/completions", chat);
  expect(response.status).toBe(503);
  expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
});
