import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import { adapterHeader } from "../../contracts/names.ts";
import { forwardHeaders, type Relay, type RelayResult } from "../../lib/relay.ts";
import type { Exchange } from "../exchange.ts";
import type { GatewayOptions } from "../options.ts";
import type { ModelRegistry, Replica } from "../registry/registry.ts";
import type { Holds } from "./hold.ts";

/** What the route, hold and relay stages need. */
export interface ForwardOptions {
  readonly registry: ModelRegistry;
  readonly holds: Holds;
  readonly relay: Relay;
  readonly agentToken: string;
  readonly timeouts: Pick<GatewayOptions, "firstByteTimeoutMs" | "betweenBytesTimeoutMs">;
}

/** Refusals that came before an engine saw the request, so that sending it again does no work twice. */
const notTaken: ReadonlySet<string> = new Set(["model_not_ready", "upstream_failed", "draining"]);

/** Times that a request is sent at most. */
const maxAttempts = 3;

/**
 * Route, hold, relay: finds a replica that is ready, or holds the request while one loads, and relays to it.
 * Sends again only while no byte has left and no engine has taken the request. Throws an error of the table.
 */
export async function forward(exchange: Exchange, options: ForwardOptions): Promise<RelayResult> {
  const { registry, holds } = options;
  const { id } = exchange.model.spec;
  for (let attempt = 1; ; attempt += 1) {
    const replica = registry.ready(id) ?? (await holdUntilReady());
    try {
      return await relayTo(replica, exchange, options);
    } catch (thrown) {
      const error = toPenstockError(thrown);
      registry.markNotReady(id);
      if (!notTaken.has(error.code) || attempt === maxAttempts) throw error;
    }
  }

  async function holdUntilReady(): Promise<Replica> {
    await holds.hold(exchange, registry.load(id));
    const replica = registry.ready(id);
    if (replica !== undefined) return replica;
    throw new PenstockError("model_not_ready", `${id} stopped as soon as it was ready; try again.`, {
      retryAfterSeconds: 1,
    });
  }
}

function relayTo(replica: Replica, exchange: Exchange, options: ForwardOptions): Promise<RelayResult> {
  const endpoint = new URL(replica.endpointUrl);
  return options.relay.relay(
    {
      origin: endpoint.origin,
      path: endpoint.pathname + exchange.path,
      method: "POST",
      headers: {
        ...forwardHeaders(exchange.incoming.headers, ["authorization", "cookie", "content-length", adapterHeader]),
        "content-length": String(exchange.body.length),
        authorization: `Bearer ${options.agentToken}`,
        "x-request-id": exchange.id,
        ...(exchange.adapter === undefined ? {} : { [adapterHeader]: exchange.adapter }),
      },
      body: exchange.body,
      ...options.timeouts,
    },
    exchange.outgoing,
  );
}
