import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Registry } from "prom-client";
import type { Logger } from "../lib/log.ts";
import { liveGauge } from "../lib/metrics.ts";
import { Relay } from "../lib/relay.ts";
import { serve, type ServeOptions } from "../lib/serve.ts";
import { Admission } from "./admission/admission.ts";
import type { QueueLimits } from "./admission/fair-queue.ts";
import { Demand } from "./demand/demand.ts";
import { startExternalScaler } from "./demand/external-scaler.ts";
import { Agents } from "./fleet/agents.ts";
import { FleetSnapshots } from "./fleet/snapshots.ts";
import { direct, gatewayApp } from "./http/app.ts";
import { tuneHeap } from "./heap.ts";
import { Hooks } from "./hooks/hooks.ts";
import { AddressList } from "./identity/addresses.ts";
import { exposeModelTimes, UsageCounters } from "./metering/counters.ts";
import { Ledger } from "./metering/ledger.ts";
import { Metering } from "./metering/metering.ts";
import { ModelTimes } from "./metering/model-times.ts";
import type { PriceTable } from "./metering/prices.ts";
import type { UsageSink } from "./metering/record.ts";
import { UsageFile } from "./metering/usage-file.ts";
import { UsageWriter } from "./metering/writer.ts";
import type { GatewayOptions, Reloadable } from "./options.ts";
import { peopleOf } from "./people.ts";
import { Spill } from "./providers/spill.ts";
import { Catalog } from "./registry/catalog.ts";
import { ModelRegistry } from "./registry/registry.ts";
import { reloader } from "./reload.ts";
import { defaultPolicy } from "./routing/index.ts";
import { AdapterLoads } from "./scheduling/adapter-loads.ts";
import { Hedging } from "./stages/hedge.ts";
import { Holds } from "./stages/hold.ts";
import { Meter } from "./stages/meter.ts";
import { observeModels } from "./stages/observe.ts";
import { ResponseCache } from "./stages/response-cache.ts";
import { Routing } from "./stages/route.ts";
import type { HotStore, Meters } from "./stores/hot.ts";
import { openHotStore, openRecordStore, type HotStoreOptions } from "./stores/index.ts";
import type { RecordStore } from "./stores/record.ts";
import { openTracing } from "./telemetry/tracing.ts";

/** A gateway that listens. */
export interface Gateway {
  readonly url: string;
  readonly registry: ModelRegistry;
  /**
   * Takes another config without a failed request. Throws why a new version of a model could not be loaded; then all is
   * as it was.
   */
  reload(changed: Reloadable): Promise<void>;
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
  tuneHeap();
  await using stack = new AsyncDisposableStack();
  let draining = false;
  const { agents, reload, ...parts } = await buildParts(options, { stack, log });
  const about = {
    ...parts,
    agentToken: options.agentToken,
    bounds: { maxBodyBytes: options.maxBodyBytes, allowedHosts: options.allowedHosts ?? [] },
    timeouts: options,
    draining: () => draining,
    version: version(),
    log,
  };
  const listening = await serve(gatewayApp(about), options.listen, {
    ...listenerOf(options, log),
    direct: (incoming, outgoing) => direct(incoming, outgoing, about),
  });
  stack.defer(() => listening.close(options.drainTimeoutMs));
  await agents.start();
  const { registry, demand } = parts;
  if (options.scaler !== undefined) {
    const fleets = (): string[] => options.fleets.map(({ name }) => name);
    const scaler = stack.use(await startExternalScaler(options.scaler, { demand, fleets }));
    log.info({ address: scaler.address }, "demand is told to KEDA");
  }
  registry.warmUp();
  const running = stack.move();
  return {
    url: listening.url,
    registry,
    reload,
    async stop() {
      draining = true;
      await running.disposeAsync();
    },
  };
}

/** Everything between the network and the agents. What is built is taken down by `stack`, the last part first. */
async function buildParts(options: GatewayOptions, { stack, log }: { stack: AsyncDisposableStack; log: Logger }) {
  const onError = (error: unknown): void => log.warn({ err: error }, "store failed");
  const tracing =
    options.tracing === undefined ? null : stack.use(await openTracing(options.tracing, { version: version(), log }));
  const hot = stack.use(await openHotStore(hotStoreOf(options, log), onError));
  const { agents, registry, adapters } = fleetOf(options, { hot, stack, log });
  const { catalog } = registry;
  const holds = new Holds(options.hold);
  const relay = new Relay({ keepAlive: true });
  stack.defer(() => relay.close());
  const meter = new Meter(registry, holds);
  const hooks = stack.use(await Hooks.start(options.hooks ?? [], { registry: meter.registry, log }));
  const { writeTenants, useTenants, usePrices, ...books } = await booksOf(options, { meter, stack, log });
  const demand = stack.use(new Demand({ tallies: hot, gatewayId: randomUUID(), onError }));
  const routing = new Routing(registry, options.routing ?? defaultPolicy);
  exposeTimes(meter.registry, { agents, catalog });
  exposeStore(meter.registry, hot);
  const admission = stack.use(admissionOf(options, { meters: hot, registry, onError }));
  // More replicas are more places; those who wait for one are told.
  agents.onChange(() => catalog.all.forEach(({ name }) => admission.queue.refill(name)));
  const parts = { registry, agents, queue: admission.queue, relay, metrics: meter.registry, log };
  const spill = stack.use(new Spill(options, { ...parts, betweenBytesTimeoutMs: options.betweenBytesTimeoutMs }));
  const hedging = new Hedging(options.hedging, meter.registry);
  return {
    ...books,
    agents,
    registry,
    holds,
    adapters,
    relay,
    meter,
    admission,
    routing,
    spill,
    hedging,
    demand,
    responses: responsesOf(options, { values: hot, registry: meter.registry, log }),
    hooks,
    tracing,
    store: hot,
    reload: reloader({ hooks, registry, routing, spill, hedging, writeTenants, useTenants, usePrices }),
  };
}

/** The agents and the models on them. */
function fleetOf(
  options: GatewayOptions,
  { hot, stack, log }: { readonly hot: HotStore; readonly stack: AsyncDisposableStack; readonly log: Logger },
) {
  const { fleets, agentToken: token } = options;
  const agents = new Agents(fleets, { token, log, snapshots: new FleetSnapshots(hot, log) });
  const catalog = new Catalog(options.models, options.aliases);
  const registry = new ModelRegistry(agents, { catalog, leases: hot, log });
  const adapters = new AdapterLoads(agents, { maxMs: options.hold.maxSeconds * 1_000, log });
  for (const part of [agents, registry, adapters]) stack.defer(() => part.stop());
  return { agents, registry, adapters };
}

/** Who may use the gateway, and what they used. */
async function booksOf(
  options: GatewayOptions,
  { meter, stack, log }: { readonly meter: Meter; readonly stack: AsyncDisposableStack; readonly log: Logger },
) {
  let priceTable = pricesOf(options);
  const prices = (): PriceTable => priceTable;
  const records = stack.use(await recordsOf(options, log));
  return {
    ...peopleOf(options, { records, log }),
    metering: meteringOf(options, { meter, prices, records, log, stack }),
    prices,
    usePrices: (changed: Reloadable): void => {
      priceTable = pricesOf(changed);
    },
  };
}

function exposeTimes(metrics: Registry, { agents, catalog }: { agents: Agents; catalog: Catalog }): void {
  const times = new ModelTimes();
  observeModels(agents, { catalog, times });
  exposeModelTimes(metrics, times);
}

function responsesOf(
  { responseCache }: GatewayOptions,
  parts: ConstructorParameters<typeof ResponseCache>[1],
): ResponseCache | null {
  return responseCache === undefined ? null : new ResponseCache(responseCache, parts);
}

function pricesOf({ prices = {} }: Reloadable): PriceTable {
  return new Map(Object.entries(prices));
}

function exposeStore(registry: Registry, hot: HotStore): void {
  liveGauge(
    registry,
    {
      name: "penstock_gateway_store",
      help: "The shared store of limits: `lost` is 1 while this gateway keeps them alone, `owed` settlements wait for it.",
      labelNames: ["what"],
    },
    () => {
      const { state, owed, dropped, fallbacks } = hot.health;
      return [
        [{ what: "lost" }, state === "lost" ? 1 : 0],
        [{ what: "owed" }, owed],
        [{ what: "dropped" }, dropped],
        [{ what: "fallbacks" }, fallbacks],
      ];
    },
  );
}

function listenerOf({ tls, proxyProtocol }: GatewayOptions, log: Logger): ServeOptions {
  const balancers = new AddressList(proxyProtocol?.trusted ?? []);
  return {
    ...(tls === undefined ? {} : { tls: { files: tls, log } }),
    ...(proxyProtocol === undefined ? {} : { proxyProtocol: { trusts: (address) => balancers.has(address) } }),
  };
}

function hotStoreOf({ stores }: GatewayOptions, log: Logger): HotStoreOptions {
  const hot = stores?.hot ?? { kind: "memory" };
  if (hot.kind === "memory") return hot;
  return { ...hot, onChange: (state, error) => log.warn({ state, err: error }, "shared store of limits") };
}

function admissionOf(
  options: GatewayOptions,
  parts: { readonly meters: Meters; readonly registry: ModelRegistry; readonly onError: (error: unknown) => void },
): Admission {
  return new Admission({
    ...parts,
    capacity: (name) => capacityOf(name, { registry: parts.registry, options }),
    queue: { ...defaultQueue, ...options.queue },
    defaultMaxTokens: options.defaultMaxTokens ?? defaultMaxTokens,
  });
}

/** Requests of a model that may run at once: so many on each replica, and one replica's worth while it loads. */
function capacityOf(name: string, { registry, options }: { registry: ModelRegistry; options: GatewayOptions }): number {
  const { maxRunningPerReplica } = options;
  if (maxRunningPerReplica === undefined) return Number.POSITIVE_INFINITY;
  const model = registry.catalog.all.find((each) => each.name === name);
  return maxRunningPerReplica * Math.max(1, model === undefined ? 0 : registry.replicas(model).length);
}

/** The record store, with the tenants of the configuration in it. */
async function recordsOf({ stores, tenants = [] }: GatewayOptions, log: Logger): Promise<RecordStore | null> {
  if (stores === undefined) return null;
  const records = await openRecordStore(stores.record, (error) => log.warn({ err: error }, "record store failed"));
  await records.putTenants(tenants);
  return records;
}

interface MeteringParts {
  readonly meter: Meter;
  readonly prices: () => PriceTable;
  readonly records: RecordStore | null;
  readonly log: Logger;
  readonly stack: AsyncDisposableStack;
}

function meteringOf(options: GatewayOptions, { meter, prices, records, log, stack }: MeteringParts): Metering {
  const { usageFile } = options;
  const sinks: UsageSink[] = [];
  if (records !== null) sinks.push(new Ledger(records));
  if (usageFile !== undefined) {
    const file = new UsageFile({ path: usageFile, ...usageFileBounds });
    stack.defer(() => file.close());
    sinks.push(file);
  }
  const outlets = sinks.map((sink) => new UsageWriter(sink, log));
  for (const outlet of outlets) stack.defer(() => outlet.close());
  return new Metering({ prices, counters: new UsageCounters(meter.registry), outlets });
}

function version(): string {
  return JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version;
}
