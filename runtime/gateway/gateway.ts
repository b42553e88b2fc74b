import type { Logger } from "../lib/log.ts";
import { Relay } from "../lib/relay.ts";
import { serve } from "../lib/serve.ts";
import { gatewayApp } from "./http/app.ts";
import { Agents } from "./fleet/agents.ts";
import type { GatewayOptions } from "./options.ts";
import { Catalog } from "./registry/catalog.ts";
import { ModelRegistry } from "./registry/registry.ts";
import { Holds } from "./stages/hold.ts";
import { Meter } from "./stages/meter.ts";

/** A gateway that listens. */
export interface Gateway {
  readonly url: string;
  readonly registry: ModelRegistry;
  /** Takes nothing new, lets open requests end until the drain time-out, then cuts the rest. */
  stop(): Promise<void>;
}

/** Builds and starts a gateway. Models that are `warm` begin to load at once. Throws `port_in_use`. */
export async function startGateway(options: GatewayOptions, log: Logger): Promise<Gateway> {
  const agents = new Agents(options.fleets, { token: options.agentToken, log });
  const registry = new ModelRegistry(agents, new Catalog(options.models, options.aliases), log);
  const holds = new Holds(options.hold);
  const relay = new Relay({ keepAlive: true });
  let draining = false;
  const app = gatewayApp({
    registry,
    holds,
    relay,
    meter: new Meter(registry, holds),
    agentToken: options.agentToken,
    apiKey: options.apiKey,
    maxBodyBytes: options.maxBodyBytes,
    timeouts: options,
    draining: () => draining,
    log,
  });
  const listening = await serve(app, options.listen);
  await agents.start();
  for (const model of registry.catalog.all) if (model.warm) void registry.load(model);
  return {
    url: listening.url,
    registry,
    async stop() {
      draining = true;
      await listening.close(options.drainTimeoutMs);
      registry.stop();
      agents.stop();
      await relay.close();
    },
  };
}
