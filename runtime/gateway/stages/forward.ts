import { Readable } from "node:stream";
import { PenstockError, toPenstockError, type ErrorCode } from "../../contracts/errors.ts";
import { adapterHeader } from "../../contracts/names.ts";
import { forwardedList, stopping } from "../../lib/forward-headers.ts";
import type { RelayBody } from "../../lib/long-body.ts";
import type { Relay, RelayGate, RelayResult } from "../../lib/relay.ts";
import { errorBodyOf } from "../api/endpoints.ts";
import type { Exchange } from "../exchange.ts";
import type { GatewayOptions } from "../options.ts";
import type { Spill } from "../providers/spill.ts";
import type { Trip } from "../providers/trip.ts";
import type { ModelRegistry, Replica } from "../registry/registry.ts";
import type { AdapterLoads } from "../scheduling/adapter-loads.ts";
import type { Hedging, Won } from "./hedge.ts";
import type { Holds } from "./hold.ts";
import type { Routed, Routing } from "./route.ts";

/** What the route, hold and relay stages need. */
export interface ForwardOptions {
  readonly registry: ModelRegistry;
  readonly routing: Routing;
  readonly holds: Holds;
  readonly adapters: AdapterLoads;
  readonly spill: Spill;
  readonly hedging: Hedging;
  readonly relay: Relay;
  readonly agentToken: string;
  readonly timeouts: Pick<GatewayOptions, "firstByteTimeoutMs" | "betweenBytesTimeoutMs">;
}

/** Refusals that came before an engine saw the request, so that sending it again does no work twice. */
const notTaken: ReadonlySet<string> = new Set(["model_not_ready", "upstream_failed", "draining"]);

/** Times that a request is sent at most. */
const maxAttempts = 3;

/** How an admin asks why a request went where it went, and where the answer is. */
const debugHeader = "x-penstock-debug";
const routeHeader = "x-penstock-route";

/**
 * Credentials end here, nobody outside names an adapter or a length that the body does not have, and an answer that is
 * compressed could not be metered.
 */
const ownHeaders = stopping([
  "authorization",
  "x-api-key",
  "cookie",
  "content-length",
  "accept-encoding",
  adapterHeader,
  debugHeader,
  "x-request-id",
]);
const ownAndTrace = stopping([...ownHeaders, "traceparent", "tracestate"]);

/**
 * Has a request answered: at home, or by a provider where home cannot in time. Throws an error of the table while no byte
 * has left.
 */
export function forward(exchange: Exchange, options: ForwardOptions): Promise<RelayResult> {
  const { trip } = exchange;
  return trip === null ? atHome(exchange, options) : atHomeOrAway(trip, exchange, options);
}

async function atHomeOrAway(trip: Trip, exchange: Exchange, options: ForwardOptions): Promise<RelayResult> {
  const answered = await trip.early(exchange);
  if (answered !== null) return answered;
  try {
    await exchange.admitted.takePlace();
    return await atHome(exchange, options);
  } catch (thrown) {
    return trip.late(exchange, toPenstockError(thrown));
  }
}

/**
 * Route, hold, relay: finds a replica that is ready, or holds the request while one loads, and relays to it.
 * Sends again only while no byte has left, and to a replica that was not tried before if there is one. Throws an error of
 * the table.
 */
async function atHome(exchange: Exchange, options: ForwardOptions): Promise<RelayResult> {
  const { registry } = options;
  const tried = new Set<string>();
  let killed = 0;
  for (let attempt = 1; ; attempt += 1) {
    const found = replicaFor(exchange, options, tried);
    const routed = found instanceof Promise ? await found : found;
    const { replica } = routed;
    // As `using`, which costs each request microseconds.
    try {
      // An adapter that an upload cannot have says nothing against the replica either.
      if (!isResendable(exchange) && lacksAdapter(replica, exchange)) {
        const reason = await loadAdapterOn(replica, exchange, options);
        if (reason !== null) throw reason;
      }
      try {
        return await answerOf(routed, exchange, options);
      } catch (thrown) {
        let error = toPenstockError(thrown);
        if (error.code === "adapter_not_ready" && attempt < maxAttempts && isResendable(exchange)) {
          // Not in the books while it waits; then it is chosen anew, and likely the same.
          routed[Symbol.dispose]();
          const reason = await loadAdapterOn(replica, exchange, options);
          if (reason === null) continue;
          error = reason;
          // An adapter that cannot be had says nothing against the replica.
          if (!notTaken.has(error.code)) throw error;
        }
        if (sayNothingOfReplica.has(error.code)) throw error;
        registry.markNotReady(replica);
        tried.add(replica.agentUrl);
        if (error.code === "engine_died") killed += 1;
        if (attempt === maxAttempts || !mayTryAgain(error, killed) || !isResendable(exchange)) throw error;
        // A request that kills every engine it meets must not meet them all: once more, and elsewhere.
        if (killed === 1 && registry.replicas(exchange.model).every(({ agentUrl }) => tried.has(agentUrl))) throw error;
      }
    } finally {
      routed[Symbol.dispose]();
    }
  }
}

/**
 * Nothing that the replica did. What is wrong in a long string, which `skimJson` does not read, shows only when the body
 * must be written anew for an engine.
 */
const sayNothingOfReplica: ReadonlySet<ErrorCode> = new Set(["client_closed", "adapter_not_ready", "invalid_json"]);

function mayTryAgain({ code }: PenstockError, killed: number): boolean {
  return notTaken.has(code) || (code === "engine_died" && killed === 1);
}

/** An upload streams from the client, and what was sent of it is gone. */
function isResendable({ request }: Exchange): boolean {
  return request.isWhole;
}

/** A replica that is ready; the request is held until there is one. */
function replicaFor(exchange: Exchange, options: ForwardOptions, tried: ReadonlySet<string>): Routed | Promise<Routed> {
  const explain = wantsRoute(exchange) || exchange.trace?.isRecording === true;
  return options.routing.choose(exchange, tried, explain) ?? heldUntilReady(exchange, options, explain);
}

async function heldUntilReady(
  exchange: Exchange,
  { registry, routing, holds }: ForwardOptions,
  explain: boolean,
): Promise<Routed> {
  const started = performance.now();
  const held = holds.hold(exchange, registry.load(exchange.model));
  await (exchange.trace === null ? held : exchange.trace.step("hold", held));
  exchange.account.coldStartSeconds += (performance.now() - started) / 1_000;
  const loaded = routing.choose(exchange, new Set(), explain);
  if (loaded !== null) return loaded;
  throw new PenstockError("model_not_ready", `${exchange.model.spec.id} stopped as soon as it was ready; try again.`, {
    retryAfterSeconds: 1,
  });
}

function wantsRoute({ principal, incoming }: Exchange): boolean {
  return principal.isAdmin && incoming.headers[debugHeader] === "route";
}

function lacksAdapter({ report }: Replica, { adapter }: Exchange): boolean {
  return adapter !== undefined && !report.adapters.some(({ name, state }) => name === adapter && state === "READY");
}

/** Holds a request until a replica has the adapter that it names. Answers why it cannot have it, or null. */
async function loadAdapterOn(
  { agentUrl }: Replica,
  exchange: Exchange,
  { holds, adapters }: ForwardOptions,
): Promise<PenstockError | null> {
  const { model, adapter: name, account } = exchange;
  const adapter = model.spec.adapters.find((each) => each.name === name);
  if (adapter === undefined) return null;
  const started = performance.now();
  try {
    await holds.hold(exchange, adapters.load({ agentUrl, model: model.name, adapter }));
    return null;
  } catch (thrown) {
    return toPenstockError(thrown);
  } finally {
    account.coldStartSeconds += (performance.now() - started) / 1_000;
  }
}

/** Has the replica that was chosen answer, or a second one when that is slow. */
async function answerOf(routed: Routed, exchange: Exchange, options: ForwardOptions): Promise<RelayResult> {
  const { hedging, registry } = options;
  const isHedged = hedging.applies(exchange);
  const won = isHedged ? await raced(routed, exchange, options) : null;
  const result = won === null ? await relayTo(routed, exchange, options) : won.result;
  registry.markGood(won === null ? routed.replica : won.replica);
  return result;
}

function raced(routed: Routed, exchange: Exchange, options: ForwardOptions): Promise<Won> {
  const { hedging, routing, registry } = options;
  return hedging.race(routed, exchange, {
    send: (to, gate) => relayTo(to, exchange, { ...options, gate }),
    second: () => {
      const second = routing.second(exchange, routed);
      if (second === null || !lacksAdapter(second.replica, exchange)) return second;
      second[Symbol.dispose]();
      return null;
    },
    markNotReady: (replica) => registry.markNotReady(replica),
  });
}

interface RelayOptions extends ForwardOptions {
  readonly gate?: RelayGate;
  /** Carry the trace on in place of what the client sent of it. */
  readonly traceHeaders?: Readonly<Record<string, string>>;
}

function relayTo(routed: Routed, exchange: Exchange, options: RelayOptions): Promise<RelayResult> {
  const { trace } = exchange;
  if (trace === null) return sendTo(routed, exchange, options);
  const target = { url: routed.replica.agentUrl, explanation: routed.explanation };
  return trace.relay(target, (traceHeaders) => sendTo(routed, exchange, { ...options, traceHeaders }));
}

function sendTo(
  { replica, tap, explanation }: Routed,
  exchange: Exchange,
  options: RelayOptions,
): Promise<RelayResult> {
  const { outgoing, model, adapter, account } = exchange;
  // What an agent says of itself chooses a path on it, never another server: prompts and the agents' token go there.
  const { origin } = targetOf(replica.agentUrl);
  const { pathname } = targetOf(replica.endpointUrl);
  const body = exchange.request.body(adapter === undefined ? model.name : `${model.name}:${adapter}`);
  account.replica = replica.agentUrl;
  if (explanation !== undefined && wantsRoute(exchange) && !outgoing.headersSent) {
    outgoing.setHeader(routeHeader, JSON.stringify({ chosen: replica.agentUrl, scores: explanation.slice(0, 16) }));
  }
  return options.relay.relay(
    {
      origin,
      path: pathname + exchange.path,
      method: "POST",
      headers: headersFor(exchange, body, options),
      body,
      tap: exchange.recorder?.around(tap) ?? tap,
      ...(options.gate === undefined ? {} : { gate: options.gate }),
      errorBody: (error) => errorBodyOf(exchange.path, error),
      firstByteTimeoutMs: options.timeouts.firstByteTimeoutMs,
      betweenBytesTimeoutMs: options.timeouts.betweenBytesTimeoutMs,
    },
    outgoing,
  );
}

/** Addresses as they were parsed: parsing one takes longer than choosing it. */
const targets = new Map<string, URL>();
const maxTargets = 10_000;

function targetOf(url: string): URL {
  let target = targets.get(url);
  if (target === undefined) {
    if (targets.size >= maxTargets) targets.clear();
    target = new URL(url);
    targets.set(url, target);
  }
  return target;
}

function headersFor(
  { incoming, id, adapter }: Exchange,
  body: RelayBody,
  { agentToken, traceHeaders }: RelayOptions,
): string[] {
  const headers = forwardedList(incoming.headers, traceHeaders === undefined ? ownHeaders : ownAndTrace);
  // A body in memory may have been edited; one that streams is as long as the client said.
  const length = body instanceof Readable ? incoming.headers["content-length"] : String(body.length);
  if (length !== undefined) headers.push("content-length", length);
  headers.push("authorization", `Bearer ${agentToken}`, "x-request-id", id);
  if (adapter !== undefined) headers.push(adapterHeader, adapter);
  for (const name in traceHeaders) headers.push(name, traceHeaders[name] ?? "");
  return headers;
}
