import { createLog } from "../../runtime/lib/log.ts";
import { startGateway, type Gateway } from "../../runtime/gateway/gateway.ts";
import type { GatewayOptions, ServedModel } from "../../runtime/gateway/options.ts";
import { engineSpec } from "../../runtime/contracts/engine.ts";
import { startFakeAgent, type FakeAgent, type FakeAgentBehaviour } from "../fakes/agent.ts";

export const apiKey = "gateway-test-key";

/** The one model of a gateway under test. */
export const servedModel: ServedModel = {
  spec: {
    id: "m",
    source: "file:///m.gguf",
    format: "gguf",
    adapters: [{ name: "pirate", source: "file:///pirate.gguf" }],
  },
  engine: engineSpec.parse({ kind: "embedded" }),
  fleet: "test",
  warm: false,
};

/** A gateway over real sockets with one fake agent behind it. */
export interface GatewayUnderTest extends AsyncDisposable {
  readonly gateway: Gateway;
  readonly agent: FakeAgent;
  /** POSTs JSON (or the given text) with the key. */
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
  get(path: string): Promise<Response>;
}

export async function gatewayUnderTest(
  behaviour: FakeAgentBehaviour = {},
  options: Partial<GatewayOptions> = {},
): Promise<GatewayUnderTest> {
  const agent = await startFakeAgent(behaviour);
  const gateway = await startGateway(
    {
      listen: { host: "127.0.0.1", port: 0 },
      apiKey,
      fleets: [{ name: "test", agents: { kind: "static", urls: [agent.url] } }],
      agentToken: agent.token,
      models: [servedModel],
      hold: { maxRequests: 1_000, maxBytes: 64 * 1024 * 1024, maxSeconds: 30 },
      maxBodyBytes: 1024 * 1024,
      firstByteTimeoutMs: 10_000,
      betweenBytesTimeoutMs: 10_000,
      drainTimeoutMs: 5_000,
      ...options,
    },
    createLog("gateway", "silent"),
  );
  const headers = { authorization: `Bearer ${apiKey}`, "content-type": "application/json" };
  return {
    gateway,
    agent,
    post: (path, body, init = {}) =>
      fetch(gateway.url + path, {
        method: "POST",
        headers,
        body: typeof body === "string" ? body : JSON.stringify(body),
        ...init,
      }),
    get: (path) => fetch(gateway.url + path, { headers }),
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await agent.close();
    },
  };
}

export const chat = { model: "m", messages: [{ role: "user", content: "hi" }] };

/** An engine that answers every request with this JSON. */
export function answers(value: unknown): NonNullable<FakeAgentBehaviour["onInfer"]> {
  return (_, outgoing) => {
    outgoing.writeHead(200, { "content-type": "application/json" });
    outgoing.end(JSON.stringify(value));
  };
}
