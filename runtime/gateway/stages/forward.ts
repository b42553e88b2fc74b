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
 * Sends again only while no byte has left, and to a replica that was not tried before if there is one. Throws an error of
 * the table.
 */
export async function forward(exchange: Exchange, options: ForwardOptions): Promise<RelayResult> {
  const { registry } = options;
  const tried = new Set<string>();
  let killed = 0;
  const mayTryAgain = ({ code }: PenstockError): boolean => {
    if (notTaken.has(code)) return true;
    // Once, and elsewhere: a request that kills every engine it meets must not meet them all.
    if (code === "engine_died") killed += 1;
    const others = registry.replicas(exchange.model).some(({ agentUrl }) => !tried.has(agentUrl));
    return code === "engine_died" && killed === 1 && others;
  };
  for (let attempt = 1; ; attempt += 1) {
    const replica = await replicaFor(exchange, options, tried);
    try {
      const result = await relayTo(replica, exchange, options);
      registry.markGood(replica);
      return result;
    } catch (thrown) {
      const error = toPenstockError(thrown);
      registry.markNotReady(replica);
      tried.add(replica.agentUrl);
      if (attempt === maxAttempts || !mayTryAgain(error)) throw error;
    }
  }
}

/** A replica that is ready, one that was not tried before if there is any; the request is held until there is one. */
async function replicaFor(
  exchange: Exchange,
  { registry, holds }: ForwardOptions,
  tried: ReadonlySet<string>,
): Promise<Replica> {
  const { model } = exchange;
  const ready = registry.replicas(model);
  const found = leastLoaded(ready.filter(({ agentUrl }) => !tried.has(agentUrl))) ?? leastLoaded(ready);
  if (found !== undefined) return found;
  await holds.hold(exchange, registry.load(model));
  const loaded = leastLoaded(registry.replicas(model));
  if (loaded !== undefined) return loaded;
  throw new PenstockError("model_not_ready", `${model.spec.id} stopped as soon as it was ready; try again.`, {
    retryAfterSeconds: 1,
  });
}

function leastLoaded(replicas: readonly Replica[]): Replica | undefined {
  return replicas.toSorted((a, b) => a.report.running - b.report.running)[0];
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
