import { createServer, type IncomingHttpHeaders } from "node:http";
import { writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Registry } from "prom-client";
import { agentApp, type AgentAppOptions } from "../../runtime/agent/http/app.ts";
import { readGatewayConfig } from "../../runtime/gateway/config.ts";
import { tracingOf, type TracingEnvironment } from "../../runtime/gateway/telemetry/options.ts";
import type { GatewayOptions } from "../../runtime/gateway/options.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { Relay } from "../../runtime/lib/relay.ts";
import { serve } from "../../runtime/lib/serve.ts";
import type { FakeAgentBehaviour } from "../fakes/agent.ts";
import { temporaryFolder } from "../support/folders.ts";
import { startProgram } from "../support/program.ts";
import { provider, rule, startProvider } from "./providers-support.ts";
import { startOtlpReceiver, type ReceivedSpan } from "./otlp-receiver.ts";
import { answers, apiKey, chat, gatewayUnderTest } from "./support.ts";

const path = "/v1/chat/completions";
const usage = { prompt_tokens: 30, completion_tokens: 4, prompt_tokens_details: { cached_tokens: 16 } };
const traceId = "0af7651916cd43dd8448eb211c80319c";
const clientSpan = "b7ad6b7169203331";
const authorization = `Bearer ${apiKey}`;

function headersWith(flags: "00" | "01", more: Record<string, string> = {}): { headers: Record<string, string> } {
  const traceparent = `00-${traceId}-${clientSpan}-${flags}`;
  return { headers: { authorization, "content-type": "application/json", traceparent, ...more } };
}

/** A gateway that traces to a collector. `ended` stops the gateway, which sends what it has, and answers the spans. */
async function traced(
  options: Partial<GatewayOptions> & FakeAgentBehaviour & { readonly ratio?: number; readonly endpoint?: string } = {},
) {
  const receiver = await startOtlpReceiver();
  const engine: IncomingHttpHeaders[] = [];
  const { ratio = 1 } = options;
  const under = await gatewayUnderTest(
    {
      ...options,
      onInfer(incoming, outgoing, body) {
        engine.push(incoming.headers);
        const answer = options.onInfer === undefined ? answers({ usage }) : options.onInfer.bind(options);
        return answer(incoming, outgoing, body);
      },
    },
    {
      tracing: {
        endpoint: options.endpoint ?? `${receiver.url}/v1/traces`,
        serviceName: "gateway-under-test",
        sampling: { ratio, parentBased: true },
      },
      ...options,
    },
  );
  return {
    ...under,
    engine,
    receiver,
    async ended(): Promise<readonly ReceivedSpan[]> {
      await under.gateway.stop();
      return receiver.spans;
    },
    async [Symbol.asyncDispose]() {
      await under[Symbol.asyncDispose]();
      await receiver[Symbol.asyncDispose]();
    },
  };
}

function named(spans: readonly ReceivedSpan[], name: string, kind: ReceivedSpan["kind"]): ReceivedSpan {
  const found = spans.filter((span) => span.name === name && span.kind === kind);
  expect(found, `${kind} spans named ${name}`).toHaveLength(1);
  return found[0] as ReceivedSpan; // counted above
}

describe("a traced request", () => {
  test("is a tree of spans: the request, its waits, and the relay", async () => {
    await using gateway = await traced();
    const response = await gateway.post(path, { ...chat, model: "m:pirate", max_tokens: 9 }, headersWith("01"));
    await response.text();
    const spans = await gateway.ended();
    const own = named(spans, "chat m", "server");
    const relay = named(spans, "chat m", "client");
    const waits = ["admission", "hold"].map((name) => named(spans, name, "internal"));
    expect(spans).toHaveLength(4);
    expect([own.traceId, own.parentId]).toEqual([traceId, clientSpan]);
    for (const child of [relay, ...waits]) expect([child.traceId, child.parentId]).toEqual([traceId, own.spanId]);
    expect(own.attributes).toMatchObject({
      "gen_ai.operation.name": "chat",
      "gen_ai.provider.name": "penstock",
      "gen_ai.request.model": "m:pirate",
      "gen_ai.response.model": "m:pirate",
      "gen_ai.request.max_tokens": 9,
      "gen_ai.request.stream": false,
      "gen_ai.usage.input_tokens": 30,
      "gen_ai.usage.output_tokens": 4,
      "gen_ai.usage.cache_read.input_tokens": 16,
      "http.request.method": "POST",
      "http.route": path,
      "http.response.status_code": 200,
      "penstock.tenant": "default",
      "penstock.adapter": "pirate",
      "penstock.replica": gateway.agent.url,
      "penstock.outcome": "complete",
      "penstock.request.id": response.headers.get("x-request-id"),
    });
    expect(own.attributes["penstock.cold_start_seconds"]).toBeGreaterThan(0);
    expect(own.attributes["gen_ai.response.time_to_first_chunk"]).toBeGreaterThan(0);
    expect(relay.attributes).toMatchObject({
      "server.address": "127.0.0.1",
      "server.port": Number(new URL(gateway.agent.url).port),
      "http.response.status_code": 200,
    });
    expect([own.status, relay.status]).toEqual([0, 0]);
    expect(own.resource).toMatchObject({ "service.name": "gateway-under-test", "service.version": expect.any(String) });
  });

  test("tells why it went where it went, and nobody but the collector", async () => {
    await using gateway = await traced();
    const response = await gateway.post(path, chat);
    expect(response.headers.get("x-penstock-route")).toBeNull();
    const [event] = named(await gateway.ended(), "chat m", "server").events;
    expect(event).toMatchObject({ name: "penstock.route", attributes: { "penstock.replica": gateway.agent.url } });
    const scores: unknown[] = JSON.parse(String(event?.attributes["penstock.scores"]));
    expect(scores).toHaveLength(1);
    expect(scores[0]).toMatchObject({ id: gateway.agent.url, score: expect.any(Number) });
  });

  test("holds no word of the prompt or the answer", async () => {
    await using gateway = await traced({ onInfer: answers({ text: "word-of-an-answer", usage }) });
    const content = "word-of-a-prompt";
    await (await gateway.post(path, { ...chat, messages: [{ role: "user", content }] })).text();
    await (await gateway.post(path, { ...chat, messages: content })).text();
    await (await gateway.post(path, `{"broken": "${content}"`)).text();
    expect(await gateway.ended()).not.toEqual([]);
    expect(gateway.receiver.raw()).not.toMatch(/word-of/);
  });

  test("is carried on to the engine, as a child of the relay's span", async () => {
    await using gateway = await traced();
    await (await gateway.post(path, chat, headersWith("01", { tracestate: "vendor=1" }))).text();
    const relay = named(await gateway.ended(), "chat m", "client");
    expect(gateway.engine[0]).toMatchObject({
      traceparent: `00-${traceId}-${relay.spanId}-01`,
      tracestate: "vendor=1",
    });
    expect(relay.traceState).toBe("vendor=1");
  });

  test("shows the time of hooks, and who was refused by one", async () => {
    await using folder = await temporaryFolder();
    const module = join(folder.path, "hook.ts");
    const stages = `{ before: ({ traceId }) => ({ refuse: traceId }) }`;
    await writeFile(
      module,
      `export const hook = { name: "h", options: { safeParse: (data) => ({ success: true, data }) },
      create: () => (${stages}) };`,
    );
    await using gateway = await traced({ hooks: [{ module, deadlineMs: 20_000, onError: "refuse" }] });
    const response = await gateway.post(path, chat, headersWith("01"));
    expect(await response.json()).toMatchObject({ error: { message: traceId } });
    const spans = await gateway.ended();
    const attributes = { "penstock.tenant": "default", "error.type": "refused_by_hook" };
    expect(named(spans, "chat m", "server").attributes).toMatchObject(attributes);
    expect(named(spans, "hooks", "internal").attributes).toEqual({ "error.type": "refused_by_hook" });
  });

  test("that is sent twice has a span for each time", async () => {
    let asked = 0;
    await using gateway = await traced({
      onInfer(incoming, outgoing, body) {
        asked += 1;
        if (asked > 1) return answers({ usage })(incoming, outgoing, body);
        outgoing.writeHead(503, { "content-type": "application/json" });
        outgoing.end(JSON.stringify({ error: { code: "draining", message: "stopping" } }));
      },
    });
    expect((await gateway.post(path, chat)).status).toBe(200);
    const relays = (await gateway.ended()).filter(({ kind }) => kind === "client");
    expect(relays.map(({ status, attributes }) => [status, attributes["error.type"]])).toEqual([
      [2, "draining"],
      [0, undefined],
    ]);
  });

  test.each([
    ["an unknown model", { ...chat, model: "x" }, { "error.type": "model_not_found" }, 0],
    ["a body that is none", "{", { "error.type": "invalid_json" }, 0],
  ])("ends with the code of what went wrong: %s", async (...[, body, attributes, status]) => {
    await using gateway = await traced();
    await (await gateway.post(path, body)).text();
    const span = named(await gateway.ended(), "chat", "server");
    expect(span.attributes).toMatchObject(attributes);
    expect(span.status).toBe(status);
  });

  test.for(["openai", "penstock"] as const)(
    "has a span for a provider of kind %s; only our own gateways carry it on",
    async (kind) => {
      await using cloud = await startProvider();
      await using gateway = await traced({
        onLoad: () => Promise.reject(new Error("no weights")),
        providers: [provider(cloud.url, { kind })],
        spill: [rule()],
      });
      expect((await gateway.post(path, chat, headersWith("01"))).status).toBe(200);
      const spans = await gateway.ended();
      const relay = named(spans, "chat m", "client");
      expect(relay.attributes).toMatchObject({ "server.port": Number(new URL(cloud.url).port) });
      const carried = cloud.asked.find(({ path: asked }) => asked === path)?.headers["traceparent"];
      expect(carried).toBe(kind === "penstock" ? `00-${traceId}-${relay.spanId}-01` : undefined);
    },
  );

  test("that broke off is an error, and one whose client left is none", async () => {
    await using gateway = await traced({
      onInfer(_, outgoing, body) {
        outgoing.writeHead(200, { "content-type": "text/event-stream" });
        outgoing.write('data: {"n":1}\n\n', () => body.includes('"cut"') && outgoing.destroy());
      },
    });
    await (await gateway.post(path, { ...chat, stream: true, user: "cut" })).text();
    const leaving = new AbortController();
    const response = await gateway.post(
      path,
      { ...chat, stream: true },
      { ...headersWith("01"), signal: leaving.signal },
    );
    expect(response.status).toBe(200);
    leaving.abort();
    const metrics = async () => (await gateway.get("/metrics")).text();
    await expect.poll(metrics).toContain('status="client_left"} 1');
    const servers = (await gateway.ended()).filter(({ kind }) => kind === "server");
    const ends = servers.map(({ status, attributes }) => [String(attributes["error.type"]), status] as const);
    expect(new Map(ends)).toEqual(
      new Map([
        ["client_left", 0],
        ["cut", 2],
      ]),
    );
  });
});

describe("sampling", () => {
  test.each([
    ["a client's sampled trace at any ratio", 0, headersWith("01"), true],
    ["no trace that the client does not sample", 1, headersWith("00"), false],
    ["none of the rest at 0", 0, undefined, false],
    ["all of the rest at 1", 1, undefined, true],
  ])("takes %s, and carries the decision on", async (...[, ratio, init, isSampled]) => {
    await using gateway = await traced({ ratio });
    await (await gateway.post(path, chat, init)).text();
    const spans = await gateway.ended();
    expect(spans.length > 0).toBe(isSampled);
    const traceparent = String(gateway.engine[0]?.["traceparent"]);
    expect(traceparent).toMatch(isSampled ? /-01$/ : /-00$/);
    expect(traceparent.includes(traceId)).toBe(init !== undefined);
  });

  test("does not take a malformed context for a trace", async () => {
    await using gateway = await traced();
    const { headers } = headersWith("01", { traceparent: `00-${"0".repeat(32)}-x-01`, tracestate: "v=1" });
    await (await gateway.post(path, chat, { headers })).text();
    const own = named(await gateway.ended(), "chat m", "server");
    expect(own.parentId).toBe("");
    expect(gateway.engine[0]?.["traceparent"]).toContain(own.traceId);
    expect(gateway.engine[0]).not.toHaveProperty("tracestate");
  });
});

test("without tracing a client's context passes to the engine as it is", async () => {
  const engine: IncomingHttpHeaders[] = [];
  await using gateway = await gatewayUnderTest({
    onInfer: (incoming, ...rest) => (engine.push(incoming.headers), answers({ usage })(incoming, ...rest)),
  });
  const init = headersWith("01", { tracestate: "vendor=1" });
  await (await gateway.post(path, chat, init)).text();
  const { traceparent, tracestate } = init.headers;
  expect(engine[0]).toMatchObject({ traceparent, tracestate });
});

test("an agent hands a trace's context on to its engine, and the gateway's token to nobody", async () => {
  const engine: IncomingHttpHeaders[] = [];
  const server = createServer((incoming, outgoing) => void (engine.push(incoming.headers), outgoing.end("{}")));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  const inUse = { origin: `http://127.0.0.1:${port}`, goneWithin: () => Promise.resolve(false), [Symbol.dispose]() {} };
  const relay = new Relay({ keepAlive: false });
  const app = agentApp({
    node: { acquire: () => inUse } as unknown as AgentAppOptions["node"], // all that a relayed request asks of it
    relay,
    metrics: new Registry(),
    token: "agent-token",
    log: createLog("agent", "silent"),
  });
  const agent = await serve(app, { host: "127.0.0.1", port: 0 });
  const { headers } = headersWith("01", { authorization: "Bearer agent-token", tracestate: "vendor=1" });
  await (await fetch(`${agent.url}/infer/m${path}`, { method: "POST", headers, body: "{}" })).text();
  expect(engine[0]).toMatchObject({ traceparent: headers["traceparent"], tracestate: "vendor=1" });
  expect(engine[0]).not.toHaveProperty("authorization");
  await agent.close(0);
  await relay.close();
  server.close();
});

describe("a collector that does not answer", () => {
  test("delays no request and no stop", async () => {
    await using folder = await temporaryFolder();
    const hole = createServer(() => undefined);
    await new Promise<void>((resolve) => hole.listen(0, "127.0.0.1", resolve));
    const { port } = hole.address() as AddressInfo; // a TCP server that listens has one
    const gateway = await traced({ endpoint: `http://127.0.0.1:${port}/v1/traces`, usageFile: join(folder.path, "u") });
    for (let at = 0; at < 20; at += 1) expect((await gateway.post(path, chat)).status).toBe(200);
    const started = performance.now();
    await gateway[Symbol.asyncDispose]();
    // 3 seconds at most for the spans, and a busy machine.
    expect(performance.now() - started).toBeLessThan(20_000);
    hole.closeAllConnections();
    hole.close();
  });
});

const noEnvironment: TracingEnvironment = {
  disabled: undefined,
  endpoint: undefined,
  tracesEndpoint: undefined,
  serviceName: undefined,
  sampler: undefined,
  samplerArg: undefined,
};

describe("what the config and the environment say", () => {
  const all = { ratio: 1, parentBased: true };
  test.each([
    ["nothing", undefined, {}, undefined],
    ["an endpoint in the config", { endpoint: "http://c:4318/v1/traces" }, {}, ["http://c:4318/v1/traces", all]],
    ["a collector in the environment", undefined, { endpoint: "http://c:4318/" }, ["http://c:4318/v1/traces", all]],
    ["its address for traces", undefined, { endpoint: "http://c", tracesEndpoint: "http://t/x" }, ["http://t/x", all]],
    [
      "both, of which the config counts",
      { endpoint: "http://c/a" },
      { tracesEndpoint: "http://t/x" },
      ["http://c/a", all],
    ],
    ["a ratio", { endpoint: "http://c/a", sampleRatio: 0.1 }, {}, ["http://c/a", { ratio: 0.1, parentBased: true }]],
    [
      "a sampler",
      undefined,
      { tracesEndpoint: "http://t/x", sampler: "traceidratio", samplerArg: "0.25" },
      ["http://t/x", { ratio: 0.25, parentBased: false }],
    ],
    ["that it is off", { endpoint: "http://c/a" }, { disabled: "true" }, undefined],
  ] as const)("%s", (...[, config, env, expected]) => {
    const options = tracingOf(config, { ...noEnvironment, ...env });
    expect(options && [options.endpoint, options.sampling]).toEqual(expected);
  });

  test.each([
    [undefined, { tracesEndpoint: "nowhere" }, /OTEL_EXPORTER_OTLP_ENDPOINT/],
    [undefined, { tracesEndpoint: "http://t", sampler: "some" }, /OTEL_TRACES_SAMPLER: .*parentbased_traceidratio/],
    [
      undefined,
      { tracesEndpoint: "http://t", sampler: "traceidratio", samplerArg: "2" },
      /OTEL_TRACES_SAMPLER_ARG: .*0 to 1/,
    ],
    [{ sampleRatio: 0.5 }, {}, /tracing\.endpoint: name it/],
  ] as const)("that cannot be: %s %s", (config, env, message) => {
    expect(() => tracingOf(config, { ...noEnvironment, ...env })).toThrow(message);
  });
});

/** A config file for a gateway whose only agent is not there. */
async function configIn(folder: string, more: object = {}): Promise<string> {
  const config = join(folder, "gateway.yaml");
  await writeFile(
    config,
    JSON.stringify({
      port: 0,
      logLevel: "debug",
      fleets: [{ name: "f", agents: { kind: "static", urls: ["http://127.0.0.1:1"] } }],
      models: [{ id: "m", source: "file:///m.gguf", fleet: "f", engine: { kind: "embedded" } }],
      stores: { directory: join(folder, "state") },
      ...more,
    }),
  );
  return config;
}

const secrets = { PENSTOCK_AGENT_TOKEN: "agent-token-of-a-test", PENSTOCK_API_KEY: apiKey };

/** The lines of a program's log that are about one request. */
function linesOf(output: string, requestId: string | null): Record<string, unknown>[] {
  return output
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line): Record<string, unknown> => JSON.parse(line))
    .filter((line) => line["requestId"] === requestId);
}

test("a config names what is wrong with hooks and tracing", async () => {
  await using folder = await temporaryFolder();
  const hooks = [{ module: "./h.ts", models: ["x"] }];
  const config = await configIn(folder.path, { hooks });
  await expect(readGatewayConfig(config)).rejects.toThrow("hooks[0].models[0]: no model named `x`; there are `m`");
  const tracing = { endpoint: "ftp://c", sampleRatio: 2, capturePrompts: true };
  const wrong = await configIn(folder.path, { hooks: [{ ...hooks[0], deadlineMs: 0 }], tracing });
  const message = await readGatewayConfig(wrong).then(String, (error: Error) => error.message);
  expect(message.split("\n").map((line) => line.split(":")[0])).toEqual([
    "hooks[0].deadlineMs",
    "tracing.endpoint",
    "tracing.sampleRatio",
    "tracing",
  ]);
});

describe("the program", () => {
  test("takes the standard variables, flushes at SIGTERM, and writes trace ids into its log", async () => {
    await using folder = await temporaryFolder();
    await using receiver = await startOtlpReceiver();
    await using program = await startProgram("gateway", {
      args: ["--config", await configIn(folder.path)],
      env: {
        ...secrets,
        OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
        OTEL_EXPORTER_OTLP_HEADERS: "x-collector-key=abc",
        OTEL_SERVICE_NAME: "from-env",
        OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=test",
      },
    });
    const response = await fetch(program.url + path, { method: "POST", body: "{", ...headersWith("01") });
    expect(response.status).toBe(400);
    program.kill("SIGTERM");
    await program.exited;
    const span = named(receiver.spans, "chat", "server");
    expect(span.traceId).toBe(traceId);
    expect(span.resource).toMatchObject({ "service.name": "from-env", "deployment.environment.name": "test" });
    expect(receiver.requests[0]).toMatchObject({ path: "/v1/traces", headers: { "x-collector-key": "abc" } });
    const lines = linesOf(program.output(), response.headers.get("x-request-id"));
    expect(new Set(lines.map(({ msg }) => msg))).toEqual(new Set(["request ended", "request refused"]));
    for (const line of lines) expect(line).toMatchObject({ traceId });
  });

  test("says once that its collector cannot be reached, and answers all the same", async () => {
    await using folder = await temporaryFolder();
    const config = await configIn(folder.path, { tracing: { endpoint: "http://127.0.0.1:1/v1/traces" } });
    await using program = await startProgram("gateway", { args: ["--config", config], env: secrets });
    const ask = async () =>
      (await fetch(program.url + path, { method: "POST", body: "{", ...headersWith("01") })).status;
    expect(await ask()).toBe(400);
    const complaints = () => program.output().split("spans cannot be exported").length - 1;
    await expect.poll(complaints, { timeout: 30_000 }).toBe(1);
    expect(await ask()).toBe(400);
    program.kill("SIGTERM");
    expect(await program.exited).toBe(0);
    expect(complaints()).toBe(1);
  });
});

describe("a request id", () => {
  test.each([
    ["without a key", path, { method: "POST", body: JSON.stringify(chat) }, 401],
    [
      "with a body that is too large",
      path,
      { method: "POST", body: "x".repeat(2 ** 20 + 1), headers: { authorization } },
      413,
    ],
    ["that reads from where one writes", path, { method: "GET" }, 405],
    ["for nothing", "/v1/nothing", { method: "GET" }, 404],
    ["for a list without a key", "/v1/models", { method: "GET" }, 401],
  ])("is returned to a request %s", async (...[, url, init, status]) => {
    await using gateway = await gatewayUnderTest();
    const response = await fetch(gateway.gateway.url + url, init);
    expect(response.status).toBe(status);
    expect(response.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
  });

  test("stands in the log of a request that was refused before its body was read", async () => {
    await using folder = await temporaryFolder();
    await using program = await startProgram("gateway", {
      args: ["--config", await configIn(folder.path)],
      env: secrets,
    });
    for (const url of [path, "/v1/models", "/v1/nothing"]) {
      const response = await fetch(program.url + url, { method: url === path ? "POST" : "GET" });
      const lines = linesOf(program.output(), response.headers.get("x-request-id"));
      expect(
        lines.map(({ msg }) => msg),
        url,
      ).toContain("request refused");
    }
  });
});
