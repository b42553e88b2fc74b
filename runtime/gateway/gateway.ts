import { readFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { tenant, type Principal } from "../contracts/tenant.ts";
import type { Logger } from "../lib/log.ts";
import { Relay } from "../lib/relay.ts";
import { serve } from "../lib/serve.ts";
import { Admission } from "./admission/admission.ts";
import type { QueueLimits } from "./admission/fair-queue.ts";
import { Agents } from "./fleet/agents.ts";
import { gatewayApp } from "./http/app.ts";
import { AddressList } from "./identity/addresses.ts";
import type { Authenticator } from "./identity/authenticator.ts";
import { clientAddress } from "./identity/client-address.ts";
import { Identity } from "./identity/identity.ts";
import { StaticKey } from "./identity/static-key.ts";
import { UsageCounters } from "./metering/counters.ts";
import { Metering } from "./metering/metering.ts";
import { UsageFile } from "./metering/usage-file.ts";
import { UsageWriter } from "./metering/writer.ts";
import type { GatewayOptions } from "./options.ts";
import { Catalog } from "./registry/catalog.ts";
import { ModelRegistry } from "./registry/registry.ts";
import { defaultPolicy } from "./routing/index.ts";
import { Holds } from "./stages/hold.ts";
import { Meter } from "./stages/meter.ts";
import { Routing } from "./stages/route.ts";
import { openHotStore } from "./stores/index.ts";

/** A gateway that listens. */
export interface Gateway {
  readonly url: string;
  readonly registry: ModelRegistry;
  /** Takes nothing new, lets open requests end until the drain time-out, then cuts the rest. */
  stop(): Promise<void>;
}

/** Requests that wait for a place: what fits in memory beside the rest, and no longer than clients wait. */
const defaultQueue: QueueLimits = {
  maxRequests: 10_000,
  maxBytes: 512 * 2 ** 20,
  maxRequestsPerTenant: 2_000,
  maxBytesPerTenant: 128 * 2 ** 20,
  maxWaitMs: 60_000,
};

/** What OpenAI's clients get when they do not bound an answer, for reservations alone. */
const defaultMaxTokens = 1_024;

/** Ten days of a busy gateway. */
const usageFileBounds = { maxBytes: 100 * 2 ** 20, maxFiles: 10 };

/** Builds and starts a gateway. Models that are `warm` begin to load at once. Throws `port_in_use`. */
export async function startGateway(options: GatewayOptions, log: Logger): Promise<Gateway> {
  await using stack = new AsyncDisposableStack();
  const onError = (error: unknown): void => log.warn({ err: error }, "store failed");
  const agents = new Agents(options.fleets, { token: options.agentToken, log });
  const registry = new ModelRegistry(agents, new Catalog(options.models, options.aliases), log);
  stack.defer(() => {
    registry.stop();
    agents.stop();
  });
  const holds = new Holds(options.hold);
  const routing = new Routing(registry, options.routing ?? defaultPolicy);
  const relay = new Relay({ keepAlive: true });
  stack.defer(() => relay.close());
  const meter = new Meter(registry, holds);
  const prices = new Map(Object.entries(options.prices ?? {}));
  const metering = meteringOf(options, { meter, prices, log, stack });
  const hot = stack.use(await openHotStore(options.stores?.hot ?? { kind: "memory" }, onError));
  const admission = stack.use(
    new Admission({
      meters: hot,
      capacity: (name) => capacityOf(name, { registry, options }),
      queue: { ...defaultQueue, ...options.queue },
      defaultMaxTokens: options.defaultMaxTokens ?? defaultMaxTokens,
      onError,
    }),
  );
  let draining = false;
  const app = gatewayApp({
    registry,
    routing,
    holds,
    relay,
    meter,
    metering,
    admission,
    prices: () => prices,
    identify: identifier(options),
    agentToken: options.agentToken,
    bounds: { maxBodyBytes: options.maxBodyBytes, allowedHosts: options.allowedHosts ?? [] },
    timeouts: options,
    draining: () => draining,
    version: version(),
    log,
  });
  const tls = options.tls === undefined ? {} : { tls: { files: options.tls, log } };
  const listening = await serve(app, options.listen, tls);
  stack.defer(() => listening.close(options.drainTimeoutMs));
  await agents.start();
  for (const model of registry.catalog.all) if (model.warm) void registry.load(model);
  const running = stack.move();
  return {
    url: listening.url,
    registry,
    async stop() {
      draining = true;
      await running.disposeAsync();
    },
  };
}

/** Requests of a model that may run at once: so many on each replica, and one replica's worth while it loads. */
function capacityOf(name: string, { registry, options }: { registry: ModelRegistry; options: GatewayOptions }): number {
  const { maxRunningPerReplica } = options;
  if (maxRunningPerReplica === undefined) return Number.POSITIVE_INFINITY;
  const model = registry.catalog.all.find((each) => each.name === name);
  return maxRunningPerReplica * Math.max(1, model === undefined ? 0 : registry.replicas(model).length);
}

/** Who sends a request: by its credential, from an address that may. */
function identifier(options: GatewayOptions): (incoming: IncomingMessage) => Promise<Principal> {
  const { apiKey, allowedAddresses, proxies } = options;
  const authenticators: Authenticator[] = [];
  if (apiKey !== null) authenticators.push(new StaticKey(apiKey, tenant.parse({ id: "default" })));
  const identity = new Identity({
    authenticators,
    allowedAddresses: allowedAddresses === undefined ? null : new AddressList(allowedAddresses),
  });
  const trust = {
    trustedProxies: new AddressList(proxies?.trusted ?? []),
    header: proxies?.header ?? ("x-forwarded-for" as const),
  };
  return ({ headers, socket }) => identity.authenticate(headers, clientAddress(socket.remoteAddress, headers, trust));
}

interface MeteringParts {
  readonly meter: Meter;
  readonly prices: ReadonlyMap<string, NonNullable<GatewayOptions["prices"]>[string]>;
  readonly log: Logger;
  readonly stack: AsyncDisposableStack;
}

function meteringOf({ usageFile }: GatewayOptions, { meter, prices, log, stack }: MeteringParts): Metering {
  const outlets = [];
  if (usageFile !== undefined) {
    const file = new UsageFile({ path: usageFile, ...usageFileBounds });
    const writer = new UsageWriter(file, log);
    stack.defer(async () => {
      await writer.close();
      await file.close();
    });
    outlets.push(writer);
  }
  return new Metering({ prices: () => prices, counters: new UsageCounters(meter.registry), outlets });
}

function version(): string {
  return JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version;
}
