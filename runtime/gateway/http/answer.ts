import type { IncomingMessage } from "node:http";
import { toPenstockError } from "../../contracts/errors.ts";
import type { Principal } from "../../contracts/tenant.ts";
import type { Leaving } from "../../lib/leaving.ts";
import type { Outlet } from "../../lib/outlet.ts";
import type { RelayResult } from "../../lib/relay.ts";
import type { Admission, Admitted } from "../admission/admission.ts";
import type { Estimate } from "../admission/charges.ts";
import { endpointOf, type EndpointPath } from "../api/endpoints.ts";
import type { Demand, OpenRequest } from "../demand/demand.ts";
import type { Exchange } from "../exchange.ts";
import type { Account, Metering } from "../metering/metering.ts";
import type { PriceTable } from "../metering/prices.ts";
import type { RequestClass } from "../metering/record.ts";
import type { Resolved } from "../registry/catalog.ts";
import { forward, type ForwardOptions } from "../stages/forward.ts";
import type { ReadRequest } from "../stages/read.ts";
import { Recorder, type ResponseCache } from "../stages/response-cache.ts";
import type { RequestTrace } from "../telemetry/tracing.ts";

/** What a request needs once its model is known. */
export interface AnswerOptions extends ForwardOptions {
  readonly admission: Admission;
  readonly metering: Metering;
  readonly demand: Demand;
  /** Null: every answer comes from an engine. */
  readonly responses: ResponseCache | null;
  readonly prices: () => PriceTable;
}

/** A request that was read, and whose model there is. */
export interface Call {
  readonly id: string;
  readonly path: EndpointPath;
  readonly principal: Principal;
  readonly request: ReadRequest;
  readonly resolved: Resolved;
  readonly arrivedMs: number;
  readonly client: Leaving;
  readonly trace: RequestTrace | null;
}

/** A request, and where its answer goes. */
export interface Wires {
  readonly incoming: IncomingMessage;
  readonly outgoing: Outlet;
}

/**
 * Admits, forwards and settles. Answers how the request ended, as metrics count it. `finally` gives back what `using` would:
 * V8 keeps the resources of a `using` outside of compiled code, which costs each request microseconds.
 */
export async function answer(env: Wires, call: Call, options: AnswerOptions): Promise<string> {
  const { principal, request, resolved, client, trace } = call;
  const account = openAccount(call, options.metering);
  const open = options.demand.open(resolved.model.fleet);
  const { model, adapter } = resolved;
  let admitted: Admitted | undefined;
  try {
    const { path, id } = call;
    const { incoming, outgoing } = env;
    const trip = options.spill.trip({ incoming, path, principal, request, model, adapter });
    const enter = (takesPlace: boolean) =>
      options.admission.admit(principal, estimateOf(call, options.prices(), takesPlace), client);
    const entering = trip === null ? enter(true) : trip.admit(enter);
    admitted = await (trace === null ? entering : trace.step("admission", entering));
    setHeaders(outgoing, admitted.headers);
    // One by one: to spread objects into another costs microseconds.
    const exchange: Exchange = {
      id,
      incoming,
      outgoing,
      path,
      principal,
      request,
      model,
      adapter,
      account,
      trip,
      admitted,
      recorder: null,
      trace,
      client,
    };
    return await forwardAndSettle(exchange, admitted, { open, arrivedMs: call.arrivedMs, options });
  } finally {
    admitted?.[Symbol.dispose]();
    open[Symbol.dispose]();
    account[Symbol.dispose]();
  }
}

interface Timed {
  readonly open: OpenRequest;
  readonly arrivedMs: number;
  readonly options: AnswerOptions;
}

async function forwardAndSettle(
  exchange: Exchange,
  admitted: Admitted,
  { open, arrivedMs, options }: Timed,
): Promise<string> {
  const { account, trace } = exchange;
  try {
    const result = await cachedOr(exchange, options);
    open.serviceMs = performance.now() - arrivedMs - account.coldStartSeconds * 1_000;
    const settled = settle({ account, admitted, trace }, { outcome: result.outcome, status: result.status });
    if (settled !== undefined) await settled;
    return result.outcome === "complete" ? String(result.status) : result.outcome;
  } catch (thrown) {
    const error = toPenstockError(thrown);
    const outcome = error.code === "client_closed" ? "client_left" : "refused";
    await settle({ account, admitted, trace }, { outcome, status: error.kind.status });
    throw error;
  }
}

/** Replays an answer that was kept, or has an engine answer and keeps that. */
function cachedOr(exchange: Exchange, options: AnswerOptions): Promise<RelayResult> {
  const { responses } = options;
  const key = responses?.keyOf(exchange) ?? null;
  return responses === null || key === null
    ? forward(exchange, options)
    : replayOr(exchange, { responses, key, options });
}

async function replayOr(
  exchange: Exchange,
  { responses, key, options }: { responses: ResponseCache; key: string; options: AnswerOptions },
): Promise<RelayResult> {
  const replayed = await responses.replay(key, exchange);
  if (replayed !== null) return replayed;
  const recorder = new Recorder();
  const result = await forward({ ...exchange, recorder }, options);
  if (result.outcome === "complete") responses.keep(key, recorder);
  return result;
}

/** What was used is charged, once; what was reserved beyond it is given back. */
function settle(
  { account, admitted, trace }: { account: Account; admitted: Admitted; trace: RequestTrace | null },
  ending: Parameters<Account["settle"]>[0],
): Promise<void> | undefined {
  const record = account.settle(ending);
  trace?.settled(record);
  const { promptTokens, completionTokens, provider, costUsd } = record;
  return admitted.settle({ promptTokens, completionTokens, costUsd: provider === null ? undefined : costUsd });
}

export function setHeaders(outgoing: Outlet, headers: Readonly<Record<string, string>>): void {
  for (const name in headers) outgoing.setHeader(name, headers[name] ?? "");
}

function openAccount({ id, path, principal, request, resolved, arrivedMs }: Call, metering: Metering): Account {
  return metering.open({
    requestId: id,
    tenant: principal.tenant.id,
    credentialId: principal.credentialId,
    model: resolved.model.spec.id,
    adapter: resolved.adapter ?? null,
    endpoint: path,
    class: classOf(path),
    arrivedMs,
    estimatedPromptTokens: request.promptTokens,
    hidesUsage: request.hidesUsage,
  });
}

function estimateOf({ request, resolved }: Call, prices: PriceTable, takesPlace: boolean): Estimate {
  const { id } = resolved.model.spec;
  const price = prices.get(`${id}:${resolved.adapter ?? ""}`) ?? prices.get(id);
  return {
    model: resolved.model.name,
    promptTokens: request.promptTokens,
    maxTokens: request.maxTokens,
    bytes: request.bytes,
    takesPlace,
    price:
      price === undefined
        ? undefined
        : { promptUsd: price.perMillionPromptTokens ?? 0, completionUsd: price.perMillionCompletionTokens ?? 0 },
  };
}

function classOf(path: EndpointPath): RequestClass {
  const classes: Record<ReturnType<typeof endpointOf>["task"], RequestClass> = {
    generate: "interactive",
    tokenize: "interactive",
    embed: "embedding",
    rerank: "embedding",
    transcribe: "audio",
    speech: "audio",
  };
  return classes[endpointOf(path).task];
}
