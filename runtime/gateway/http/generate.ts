import { randomUUID } from "node:crypto";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { Context } from "hono";
import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import { requestIdHeader } from "../../contracts/names.ts";
import { readBody } from "../../lib/http.ts";
import type { Logger } from "../../lib/log.ts";
import type { NodeEnv } from "../../lib/serve.ts";
import { writeSseError } from "../../lib/sse.ts";
import type { GatewayOptions } from "../options.ts";
import { admit, type Endpoint } from "../stages/admit.ts";
import { forward, type ForwardOptions } from "../stages/forward.ts";
import type { Meter } from "../stages/meter.ts";

/** What a request for an engine passes through. */
export interface GenerateOptions extends ForwardOptions {
  readonly meter: Meter;
  readonly maxBodyBytes: GatewayOptions["maxBodyBytes"];
  readonly log: Logger;
}

/**
 * One request for an engine: admit, route (or hold), relay, meter, in this order.
 * Returns when the last byte has left, so what is measured here is the whole request.
 */
export async function generate(c: Context<NodeEnv>, endpoint: Endpoint, options: GenerateOptions): Promise<Response> {
  const { incoming, outgoing } = c.env;
  const started = performance.now();
  const id = randomUUID();
  outgoing.setHeader(requestIdHeader, id);
  const left = new AbortController();
  outgoing.once("close", () => left.abort(new PenstockError("client_closed", "The client left.")));
  let model = "unknown";
  let status = "client_left";
  try {
    const body = await readBody(incoming, options.maxBodyBytes);
    const call = admit(endpoint, body);
    const { model: served, adapter } = options.registry.catalog.resolve(call.model);
    model = served.spec.id;
    const exchange = { id, incoming, outgoing, path: endpoint, body, model: served, adapter, streams: call.streams };
    const result = await forward({ ...exchange, signal: left.signal }, options);
    status = result.outcome === "complete" ? String(result.status) : result.outcome;
    return RESPONSE_ALREADY_SENT;
  } catch (thrown) {
    const error = toPenstockError(thrown);
    status = error.code === "client_closed" ? "client_left" : String(error.kind.status);
    if (!outgoing.headersSent) throw error;
    const detail = error.code === "internal_error" ? { err: error.cause } : { code: error.code, reason: error.message };
    options.log.warn({ requestId: id, model, ...detail }, "a held stream failed");
    writeSseError(outgoing, error);
    return RESPONSE_ALREADY_SENT;
  } finally {
    options.meter.record({ endpoint, model, status, seconds: (performance.now() - started) / 1_000 });
    options.log.debug({ requestId: id, endpoint, model, status }, "request ended");
  }
}
