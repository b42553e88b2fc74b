import { randomUUIDv7 } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import { requestIdHeader } from "../../contracts/names.ts";
import type { Principal } from "../../contracts/tenant.ts";
import { sendError } from "../../lib/http.ts";
import { Leaver } from "../../lib/leaving.ts";
import type { Logger } from "../../lib/log.ts";
import type { Outlet } from "../../lib/outlet.ts";
import { Reply } from "../../lib/reply.ts";
import { writeSseError } from "../../lib/sse.ts";
import { LimitError } from "../admission/refusal.ts";
import { errorBodyOf, type EndpointPath } from "../api/endpoints.ts";
import { HookedOutlet } from "../hooks/hooked-outlet.ts";
import type { Hooks } from "../hooks/hooks.ts";
import { aboutOf } from "../hooks/request-hooks.ts";
import { authorizeModel } from "../identity/identity.ts";
import type { Resolved } from "../registry/catalog.ts";
import type { Meter } from "../stages/meter.ts";
import { readAgain, readRequest, type ReadBounds, type ReadRequest } from "../stages/read.ts";
import type { Named, Tracing } from "../telemetry/tracing.ts";
import { answer, setHeaders, type AnswerOptions, type Call, type Wires } from "./answer.ts";

/** What a request for an engine needs on its way. */
export interface GenerateOptions extends AnswerOptions {
  /** Who sends a request. Throws `invalid_api_key` or `forbidden`. */
  readonly identify: (incoming: IncomingMessage) => Promise<Principal>;
  readonly meter: Meter;
  readonly hooks: Hooks;
  /** Null: no spans, and nothing of what makes them. */
  readonly tracing: Tracing | null;
  readonly bounds: ReadBounds;
  /** Whether the gateway is stopping: it finishes what it has and takes nothing new. */
  readonly draining: () => boolean;
  readonly log: Logger;
}

/**
 * One request for an engine: authenticate, read and check, admit (limits, then a turn), route or hold, relay, settle.
 * A failure is answered with an error of the table while nothing has left; afterwards it is an SSE event.
 */
export async function generate(
  { incoming, outgoing: response }: { readonly incoming: IncomingMessage; readonly outgoing: ServerResponse },
  path: EndpointPath,
  options: GenerateOptions,
): Promise<void> {
  const outgoing = new Reply(response);
  const arrivedMs = performance.now();
  // Ids that rise with time: the ledger's rows then go to the end of its index (measured: 5 µs of work a row against 15).
  const id = randomUUIDv7();
  outgoing.setHeader(requestIdHeader, id);
  const client = new Leaver();
  outgoing.on("close", () => {
    if (!outgoing.writableFinished) client.leave();
  });
  const ending = { model: "unknown", status: "client_left" };
  const trace = options.tracing?.begin(incoming, { id, path }) ?? null;
  let failure: PenstockError | null = null;
  let request: ReadRequest | null = null;
  try {
    if (options.draining()) {
      // On a connection from before; the next one finds another gateway.
      outgoing.setHeader("connection", "close");
      throw new PenstockError("draining", "This gateway is stopping; send the request again.", {
        retryAfterSeconds: 1,
      });
    }
    const principal = await options.identify(incoming);
    const { bounds } = options;
    const isHooked = !options.hooks.none;
    request = await readRequest(path, { incoming, bounds, keepsFields: isHooked });
    const resolved = resolve(principal, request, options);
    ending.model = resolved.model.spec.id;
    const call: Call = { id, path, principal, request, resolved, arrivedMs, client, trace };
    const env = { incoming, outgoing };
    trace?.named(namesOf(call));
    ending.status = await (isHooked ? answerHooked(env, call, options) : answer(env, call, options));
  } catch (thrown) {
    failure = toPenstockError(thrown);
    ending.status = failure.code === "client_closed" ? "client_left" : String(failure.kind.status);
    const log = options.log.child({ requestId: id, traceId: trace?.traceId });
    fail(outgoing, failure, { path, model: ending.model, log });
  } finally {
    request?.release();
    options.meter.record({ endpoint: path, ...ending, seconds: (performance.now() - arrivedMs) / 1_000 });
    trace?.end(ending.status, failure);
    options.log.debug({ requestId: id, traceId: trace?.traceId, endpoint: path, ...ending }, "request ended");
  }
}

/** Ends an answer with an error: all of the answer, or what ends a stream that has begun. */
function fail(
  outgoing: Outlet,
  error: PenstockError,
  { path, model, log }: { readonly path: EndpointPath; readonly model: string; readonly log: Logger },
): void {
  const body = errorBodyOf(path, error);
  if (!outgoing.headersSent) {
    if (error instanceof LimitError) setHeaders(outgoing, error.headers);
    sendError(outgoing, { error, body, log });
    return;
  }
  const detail = error.code === "internal_error" ? { err: error.cause } : { code: error.code, reason: error.message };
  log.warn({ model, ...detail }, "a stream failed");
  writeSseError(outgoing, error, body);
}

/** The model that a request names, if its tenant may use it. */
function resolve(principal: Principal, { model }: ReadRequest, { registry }: GenerateOptions): Resolved {
  authorizeModel(principal, model);
  return registry.catalog.resolve(model);
}

/** As `answer`, while hooks see the request and what comes back. Throws their refusals, also when a stream has begun. */
async function answerHooked({ incoming, outgoing }: Wires, call: Call, options: GenerateOptions): Promise<string> {
  const { principal, path, trace } = call;
  const traceId = trace?.traceId ?? null;
  const about = { requestId: call.id, traceId, model: call.resolved.model.spec.id, endpoint: path };
  using hooks = options.hooks.enter(aboutOf(about, principal, incoming.headers));
  if (hooks === null) return await answer({ incoming, outgoing }, call, options);
  const asking = hooks.before(call.request.fields, (body) => {
    const request = readAgain(path, body, { incoming, bounds: options.bounds, keepsFields: true });
    return { fields: request.fields, request, resolved: resolve(principal, request, options) };
  });
  const changed = await (trace === null ? asking : trace.step("hooks", asking));
  const seen = changed === null ? call : { ...call, request: changed.request, resolved: changed.resolved };
  if (changed !== null) trace?.named(namesOf(seen));
  if (!hooks.seeAnswers && !hooks.seeEvents) return await answer({ incoming, outgoing }, seen, options);
  const outlet = new HookedOutlet(outgoing, hooks);
  const status = await answer({ incoming, outgoing: outlet }, seen, options);
  await outlet.ended;
  return status;
}

function namesOf({ principal, request, resolved }: Call): Named {
  const { model, adapter } = resolved;
  const { streams, maxTokens, model: requestModel } = request;
  return { tenant: principal.tenant.id, requestModel, model: model.spec.id, adapter, streams, maxTokens };
}
