import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import { Hono, type Context } from "hono";
import type { Registry } from "prom-client";
import type { IncomingMessage } from "node:http";
import type { z } from "zod";
import {
  drainRequest,
  heartbeatRequest,
  loadAdapterRequest,
  loadModelRequest,
  unloadAdapterRequest,
  unloadModelRequest,
  type LoadEvent,
  type LoadProgress,
} from "../../contracts/agent.ts";
import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import { adapterName } from "../../contracts/model.ts";
import { adapterHeader } from "../../contracts/names.ts";
import { parseJson, parseRequest } from "../../contracts/validate.ts";
import { notFound, onError, readBody, requireBearer } from "../../lib/http.ts";
import type { Logger } from "../../lib/log.ts";
import { forwardedList, stopping } from "../../lib/forward-headers.ts";
import type { Relay } from "../../lib/relay.ts";
import type { NodeEnv } from "../../lib/serve.ts";
import type { EngineInUse } from "../models/lifecycle.ts";
import type { Node } from "../node.ts";
import { statsOf } from "../stats.ts";

/** What the agent's routes need. */
export interface AgentAppOptions {
  readonly node: Node;
  readonly relay: Relay;
  readonly metrics: Registry;
  /** Bearer token of every call but the probes. */
  readonly token: string;
  readonly log: Logger;
}

/** A protocol body is small; a prompt is not read here. */
const maxBodyBytes = 1024 * 1024;

/** How long the exit of a process may take to be noticed after its port has closed. */
const exitNoticeMs = 1_000;

/** A request that fails this soon met an engine that was dying already; later, it may be what killed it. */
const dyingMs = 250;

/** Between two lines of a streamed load in which nothing happens. */
const signOfLifeMs = 10_000;

/** Deadlines of a relayed request. The gateway's are shorter; these only end what nobody waits for. */
const firstByteTimeoutMs = 15 * 60_000;
const betweenBytesTimeoutMs = 5 * 60_000;

/** The agent protocol (architecture 4.3) over HTTP. */
export function agentApp(options: AgentAppOptions): Hono<NodeEnv> {
  const { node, metrics, log } = options;
  const app = new Hono<NodeEnv>();
  app.onError(onError(log));
  app.notFound(notFound);

  app.get("/health", (c) => c.json({ status: "ok" }));
  app.get("/ready", (c) => {
    if (node.draining) throw new PenstockError("draining", "This agent is draining.");
    return c.json({ status: "ready" });
  });

  app.use(requireBearer(options.token));
  app.post("/load_model", (c) => loadModel(c, options));
  app.post("/unload_model", async (c) => c.json(await node.unload(await read(c.env.incoming, unloadModelRequest))));
  app.post("/load_adapter", async (c) =>
    c.json(await node.loadAdapter(await read(c.env.incoming, loadAdapterRequest))),
  );
  app.post("/unload_adapter", async (c) =>
    c.json(await node.unloadAdapter(await read(c.env.incoming, unloadAdapterRequest))),
  );
  app.post("/heartbeat", async (c) => c.json(await node.heartbeat(await read(c.env.incoming, heartbeatRequest))));
  app.post("/drain", async (c) => {
    const { deadline_seconds } = await read(c.env.incoming, drainRequest);
    const deadlineMs = deadline_seconds === undefined ? undefined : deadline_seconds * 1_000;
    return c.json(await node.drain("Asked to drain.", deadlineMs));
  });
  app.get("/stats", async (c) => c.json(await statsOf(node)));
  app.get("/metrics", async (c) => c.text(await metrics.metrics(), 200, { "content-type": metrics.contentType }));
  app.on(["GET", "POST"], "/infer/:model/*", (c) => infer(c, options));
  return app;
}

/** A checked body. Calls whose fields are all optional may leave it out. */
async function read<Schema extends z.ZodType>(incoming: IncomingMessage, schema: Schema): Promise<z.infer<Schema>> {
  const bytes = await readBody(incoming, maxBodyBytes);
  return parseRequest(schema, bytes.length === 0 ? {} : parseJson(bytes));
}

async function loadModel(c: Context<NodeEnv>, { node, log }: AgentAppOptions): Promise<Response> {
  const request = await read(c.env.incoming, loadModelRequest);
  if (!request.stream) return c.json(await node.load(request, () => undefined));
  const { outgoing } = c.env;
  outgoing.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-cache" });
  const send = (event: LoadEvent): void => {
    if (!outgoing.destroyed) outgoing.write(`${JSON.stringify(event)}\n`);
  };
  let last: LoadProgress | undefined;
  // An engine may load for minutes without a word; a caller must see that the agent is still there.
  const sign = setInterval(() => last !== undefined && send({ type: "progress", progress: last }), signOfLifeMs);
  try {
    const result = await node.load(request, (progress) => send({ type: "progress", progress: (last = progress) }));
    send({ type: "result", result });
  } catch (thrown) {
    const error = toPenstockError(thrown);
    if (error.code === "internal_error") log.error({ err: error.cause }, "load failed unexpectedly");
    send({ type: "error", error: error.toBody() });
  } finally {
    clearInterval(sign);
  }
  outgoing.end();
  return RESPONSE_ALREADY_SENT;
}

/** The gateway's token ends here, and so does its word for an adapter. */
const ownHeaders = stopping(["authorization", adapterHeader]);

/** Relays to the engine's loopback port. The body streams through unread: an agent never interprets a prompt. */
async function infer(c: Context<NodeEnv>, { node, relay }: AgentAppOptions): Promise<Response> {
  const { incoming, outgoing } = c.env;
  const [, , encodedModel = "", ...rest] = (incoming.url ?? "").split("/");
  const startedMs = performance.now();
  using engine = node.acquire(decodeModel(encodedModel), adapterOf(incoming));
  const result = relay.relay(
    {
      origin: engine.origin,
      path: `/${rest.join("/")}`,
      method: incoming.method === "GET" ? "GET" : "POST",
      headers: forwardedList(incoming.headers, ownHeaders),
      body: incoming.method === "GET" ? null : incoming,
      firstByteTimeoutMs,
      betweenBytesTimeoutMs,
    },
    outgoing,
  );
  await result.catch((error: unknown) => explainFailure(error, { engine, sinceMs: performance.now() - startedMs }));
  return RESPONSE_ALREADY_SENT;
}

/**
 * A refused connection means that the engine is going, and so does one that breaks at once: the kernel goes on accepting
 * for a process that is being torn down. Once it is gone the gateway may load the model again.
 */
async function explainFailure(
  error: unknown,
  { engine, sinceMs }: { readonly engine: EngineInUse; readonly sinceMs: number },
): Promise<never> {
  const { code } = toPenstockError(error);
  const wasGoing = code === "upstream_failed" || (code === "engine_died" && sinceMs < dyingMs);
  if (wasGoing && (await engine.goneWithin(exitNoticeMs))) {
    throw new PenstockError("model_not_ready", "The engine has stopped.", { cause: error, retryAfterSeconds: 1 });
  }
  throw error;
}

function adapterOf({ headers }: IncomingMessage): string | undefined {
  const named = headers[adapterHeader];
  if (named === undefined) return undefined;
  const name = adapterName.safeParse(named);
  if (name.success) return name.data;
  throw new PenstockError("invalid_value", `The header ${adapterHeader} is not the name of an adapter.`);
}

function decodeModel(encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch (cause) {
    throw new PenstockError("invalid_value", "The model in the path is not valid URL encoding.", { cause });
  }
}
