import { fileURLToPath } from "node:url";
import {
  Server,
  ServerCredentials,
  status,
  type sendUnaryData,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import type { ListenAddress } from "../../lib/serve.ts";
import type { Demand } from "./demand.ts";

/** Below this many requests at once a fleet is idle: less than one request of a second in twenty. */
const idleBelow = 0.05;
/** How often a stream looks whether other gateways have demand, and how often it says so again. */
const lookIntervalMs = 1_000;
const repeatMs = 10_000;
/** What a replica is expected to take when the ScaledObject does not say. */
const defaultTargetRequests = 8;
/** How long open calls may take when the gateway stops. */
const stopMs = 1_000;

/** What KEDA sends: the metadata of the trigger, of which `fleet` must be there. */
const scaledObject = z.object({
  name: z.string().optional(),
  scalerMetadata: z.object({
    fleet: z.string().min(1),
    targetRequests: z.coerce.number().positive().default(defaultTargetRequests),
  }),
});
type Target = z.infer<typeof scaledObject>["scalerMetadata"];

interface Active {
  readonly result: boolean;
}

/** Where KEDA asks how many replicas each fleet needs. */
export interface ExternalScaler extends AsyncDisposable {
  /** `host:port` that it listens on. */
  readonly address: string;
}

/** What the scaler answers from. */
export interface ScalerOptions {
  readonly demand: Demand;
  /** Fleets that there are now. */
  readonly fleets: () => readonly string[];
}

/**
 * KEDA's external-push scaler over gRPC. A first request is told at once through `StreamIsActive`, so that a fleet at zero
 * does not wait for the next poll. Plain text: the cluster's network policy lets only KEDA in, and it tells numbers alone.
 * Throws `port_in_use`.
 */
export async function startExternalScaler(listen: ListenAddress, options: ScalerOptions): Promise<ExternalScaler> {
  const server = new Server({ "grpc.max_receive_message_length": 64 * 1024 });
  const streams = new Set<Watch>();
  server.addService(serviceOf(), {
    IsActive: unary((ref) => ({ result: isActive(targetOf(ref, options), options) })),
    GetMetricSpec: unary((ref) => {
      const { fleet, targetRequests } = targetOf(ref, options);
      const targetSize = Math.max(1, Math.round(targetRequests));
      return { metricSpecs: [{ metricName: metricName(fleet), targetSize, targetSizeFloat: targetRequests }] };
    }),
    GetMetrics: unary((request) => {
      const { fleet } = targetOf(z.object({ scaledObjectRef: z.unknown() }).parse(request).scaledObjectRef, options);
      const demand = options.demand.total(fleet);
      return {
        metricValues: [{ metricName: metricName(fleet), metricValue: Math.ceil(demand), metricValueFloat: demand }],
      };
    }),
    StreamIsActive: (call: ServerWritableStream<unknown, Active>) => {
      try {
        const watch = new Watch(call, targetOf(call.request, options), options);
        streams.add(watch);
        call.on("cancelled", () => {
          watch.end();
          streams.delete(watch);
        });
      } catch (error) {
        call.emit("error", { code: status.INVALID_ARGUMENT, details: messageOf(error) });
      }
    },
  });
  const port = await bind(server, listen);
  return {
    address: `${listen.host}:${port}`,
    async [Symbol.asyncDispose]() {
      for (const watch of streams) watch.end();
      await stop(server);
    },
  };
}

/** A stream that KEDA keeps open: a line when a fleet wakes, falls idle, and now and then. */
class Watch {
  readonly #call: ServerWritableStream<unknown, Active>;
  readonly #target: Target;
  readonly #options: ScalerOptions;
  readonly #timer: NodeJS.Timeout;
  readonly #unlisten: () => void;
  #said: boolean | null = null;
  #saidAtMs = 0;

  constructor(call: ServerWritableStream<unknown, Active>, target: Target, options: ScalerOptions) {
    this.#call = call;
    this.#target = target;
    this.#options = options;
    this.#timer = setInterval(() => this.#look(), lookIntervalMs).unref();
    this.#unlisten = options.demand.onFirst((fleet) => {
      if (fleet === target.fleet) this.#say(true);
    });
    this.#look();
  }

  end(): void {
    clearInterval(this.#timer);
    this.#unlisten();
    this.#call.end();
  }

  #look(): void {
    const active = isActive(this.#target, this.#options);
    if (active !== this.#said || (active && performance.now() - this.#saidAtMs >= repeatMs)) this.#say(active);
  }

  #say(result: boolean): void {
    this.#said = result;
    this.#saidAtMs = performance.now();
    this.#call.write({ result });
  }
}

function isActive({ fleet }: Target, { demand }: ScalerOptions): boolean {
  return demand.total(fleet) >= idleBelow;
}

function metricName(fleet: string): string {
  return `penstock-demand-${fleet}`;
}

/** Throws an error that names what is wrong with a ScaledObject's trigger. */
function targetOf(ref: unknown, { fleets, demand }: ScalerOptions): Target {
  const parsed = scaledObject.safeParse(ref);
  if (!parsed.success) {
    throw new Error("The trigger's metadata must have `fleet`, and `targetRequests` above 0 if it is there.");
  }
  const { scalerMetadata } = parsed.data;
  if (!fleets().includes(scalerMetadata.fleet)) {
    throw new Error(`No fleet is named ${scalerMetadata.fleet.slice(0, 64)}; there are ${fleets().join(", ")}.`);
  }
  // From now on other gateways' demand for it is known too.
  demand.watch(scalerMetadata.fleet);
  return scalerMetadata;
}

function unary<Answer>(answer: (request: unknown) => Answer) {
  return (call: ServerUnaryCall<unknown, Answer>, callback: sendUnaryData<Answer>): void => {
    try {
      callback(null, answer(call.request));
    } catch (error) {
      callback({ code: status.INVALID_ARGUMENT, details: messageOf(error) });
    }
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : "The request is not one of KEDA's.";
}

function serviceOf(): ServiceDefinition {
  const loaded = loadSync(fileURLToPath(new URL("external-scaler.proto", import.meta.url)), { longs: Number });
  // The loader answers messages, enums and services alike; this one is the service of the file beside us.
  return loaded["externalscaler.ExternalScaler"] as ServiceDefinition;
}

async function bind(server: Server, { host, port }: ListenAddress): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  server.bindAsync(`${host}:${port}`, ServerCredentials.createInsecure(), (error, bound) => {
    if (error === null) resolve(bound);
    else reject(new PenstockError("port_in_use", `The scaler cannot listen on ${host}:${port}; choose another port.`));
  });
  return await promise;
}

async function stop(server: Server): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(() => {
    server.forceShutdown();
    resolve();
  }, stopMs);
  server.tryShutdown(() => resolve());
  await promise;
  clearTimeout(timer);
}
