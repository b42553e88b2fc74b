import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import type {
  Heartbeat,
  LoadAdapterRequest,
  LoadEvent,
  LoadModelRequest,
  ModelReport,
} from "../../runtime/contracts/agent.ts";
import type { ErrorBody } from "../../runtime/contracts/errors.ts";

/** What a test decides about the agent that it stands in for. */
export interface FakeAgentBehaviour {
  /** Called for each `POST /load_model`; resolve to finish the load, reject with a body to fail it. */
  onLoad?(send: (event: LoadEvent) => void, request: LoadModelRequest): Promise<void>;
  /** Called for each `POST /load_adapter`; reject with a body to refuse it. */
  onLoadAdapter?(name: string): Promise<void>;
  /** What a heartbeat says in place of the truth. */
  onHeartbeat?(truth: Heartbeat): unknown;
  /** Sees a relayed request before its body is read; true: it was dealt with. */
  onArrival?(incoming: IncomingMessage, outgoing: ServerResponse): boolean;
  /** Answers a relayed request. */
  onInfer?(incoming: IncomingMessage, outgoing: ServerResponse, body: string): void | Promise<void>;
}

/** An agent that speaks the protocol over real sockets, with an engine that the test writes. */
export interface FakeAgent extends AsyncDisposable {
  readonly url: string;
  readonly token: string;
  /** `POST /load_model` calls so far. */
  loads: number;
  /** `POST /load_adapter` calls so far, and the adapters that are READY. */
  adapterLoads: number;
  readonly adapters: Set<string>;
  /** Answers heartbeats with 500. */
  heartbeatFails: boolean;
  /** State that heartbeats tell. */
  state: ModelReport["cache_state"];
  behaviour: FakeAgentBehaviour;
  close(): Promise<void>;
}

/** A load that fails with this body. */
export class LoadFailure extends Error {
  readonly body: ErrorBody;
  constructor(body: ErrorBody) {
    super(body.error.message);
    this.body = body;
  }
}

export async function startFakeAgent(behaviour: FakeAgentBehaviour = {}, address = "127.0.0.1"): Promise<FakeAgent> {
  const server = createServer((incoming, outgoing) => void handle(incoming, outgoing));
  await new Promise<void>((resolve) => server.listen(0, address, resolve));
  const { port } = server.address() as AddressInfo;
  const agent: FakeAgent = {
    url: `http://127.0.0.1:${port}`,
    token: "fake-agent-token",
    loads: 0,
    adapterLoads: 0,
    adapters: new Set(),
    heartbeatFails: false,
    state: "UNLOADED",
    behaviour,
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
    [Symbol.asyncDispose]: () => agent.close(),
  };
  return agent;

  async function handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    if (incoming.url?.startsWith("/infer/") === true && agent.behaviour.onArrival?.(incoming, outgoing) === true)
      return;
    const body = await text(incoming).catch(() => "");
    if (incoming.headers.authorization !== `Bearer ${agent.token}`) return void outgoing.writeHead(401).end();
    const path = incoming.url ?? "";
    if (path === "/heartbeat" && agent.heartbeatFails) return void outgoing.writeHead(500).end("{}");
    if (path === "/heartbeat") {
      const truth = heartbeatOf(agent);
      return void outgoing.end(JSON.stringify(agent.behaviour.onHeartbeat?.(truth) ?? truth));
    }
    if (path === "/load_model") return load(outgoing, JSON.parse(body));
    if (path === "/load_adapter") return loadAdapter(outgoing, JSON.parse(body));
    if (path.startsWith("/infer/")) return agent.behaviour.onInfer?.(incoming, outgoing, body);
    outgoing.writeHead(404).end();
  }

  async function loadAdapter(outgoing: ServerResponse, { model_id, adapter }: LoadAdapterRequest): Promise<void> {
    agent.adapterLoads += 1;
    try {
      await agent.behaviour.onLoadAdapter?.(adapter.name);
      agent.adapters.add(adapter.name);
      outgoing.end(JSON.stringify({ status: "loaded", model_id, adapter: adapter.name, evicted: [] }));
    } catch (error) {
      if (!(error instanceof LoadFailure)) throw error;
      outgoing.writeHead(409).end(JSON.stringify(error.body));
    }
  }

  async function load(outgoing: ServerResponse, request: LoadModelRequest): Promise<void> {
    agent.loads += 1;
    const send = (event: LoadEvent): void => void outgoing.write(`${JSON.stringify(event)}\n`);
    try {
      await agent.behaviour.onLoad?.(send, request);
      agent.state = "READY";
      send({
        type: "result",
        result: {
          status: "loaded",
          model_id: request.model_id,
          inference_endpoint_url: endpointOf(agent, request.model_id),
          cache_state: "READY",
        },
      });
    } catch (error) {
      send({ type: "error", error: error instanceof LoadFailure ? error.body : {} });
    }
    outgoing.end();
  }
}

function endpointOf(agent: FakeAgent, model: string): string {
  return `${agent.url}/infer/${encodeURIComponent(model)}`;
}

function heartbeatOf(agent: FakeAgent): Heartbeat {
  return {
    agent_id: "fake",
    state: "IDLE",
    reason: null,
    gpus: [],
    memory: { total_bytes: 1, free_bytes: 1 },
    disk: { total_bytes: 1, free_bytes: 1, cache_bytes: 0, cache_budget_bytes: null },
    cache: { revision: "0", entries: null },
    engines: [],
    models: [
      {
        model_id: "m",
        cache_state: agent.state,
        cache_level: agent.state === "READY" ? "GPU_RESIDENT" : "REMOTE",
        reason: null,
        inference_endpoint_url: endpointOf(agent, "m"),
        running: 0,
        idle_seconds: 0,
        size_bytes: 0,
        adapters: [...agent.adapters].map((name) => ({ name, state: "READY" as const, reason: null })),
        engine: null,
        progress: null,
        measured_ms: { download: null, load: null, sleep: null, wake: null, unload: null, adapter: null },
      },
    ],
  };
}
