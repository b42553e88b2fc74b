import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { ROOT_CONTEXT, SpanKind, type Tracer } from "@opentelemetry/api";
import { ExportResultCode, W3CTraceContextPropagator, type ExportResult } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { detectResources, envDetector, resourceFromAttributes } from "@opentelemetry/resources";
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
  type ReadableSpan,
  type Sampler,
  type SpanExporter,
} from "@opentelemetry/sdk-trace";
import type { Logger } from "../../lib/log.ts";
import type { EndpointPath } from "../api/endpoints.ts";
import { attributes, operations } from "./attributes.ts";
import type { Sampling, TracingOptions } from "./options.ts";
import { SpanTrace } from "./span-trace.ts";
import type { Tracing } from "./tracing.ts";

/** Spans that wait: a few thousand requests, some 10 MB; what comes then is dropped. */
const queue = {
  maxQueueSize: 8_192,
  maxExportBatchSize: 512,
  scheduledDelayMillis: 2_000,
  exportTimeoutMillis: 5_000,
};

/** How long a stop waits for the collector. */
const flushTimeoutMs = 5_000;

const propagator = new W3CTraceContextPropagator();
const headersOf = {
  get: (headers: IncomingMessage["headers"], name: string) => headers[name],
  keys: (headers: IncomingMessage["headers"]) => Object.keys(headers),
};

/** Spans that leave in batches by OTLP. Nothing is registered globally: contexts are handed on by name. */
export class OtlpTracing implements Tracing {
  readonly #provider: TracerProvider;
  readonly #tracer: Tracer;

  constructor(
    { endpoint, serviceName, sampling }: TracingOptions,
    { version, log }: { readonly version: string; readonly log: Logger },
  ) {
    const exporter = new ToldOnce(
      new OTLPTraceExporter({ url: endpoint, timeoutMillis: queue.exportTimeoutMillis }),
      log,
    );
    const own = { "service.name": serviceName, "service.version": version, "service.instance.id": randomUUID() };
    this.#provider = new TracerProvider({
      resource: detectResources({ detectors: [envDetector] }).merge(resourceFromAttributes(own)),
      sampler: samplerOf(sampling),
      spanProcessors: [new BatchSpanProcessor({ exporter, ...queue })],
    });
    this.#tracer = this.#provider.getTracer("penstock-gateway", version);
  }

  begin(incoming: IncomingMessage, { id, path }: { readonly id: string; readonly path: EndpointPath }): SpanTrace {
    const parent = propagator.extract(ROOT_CONTEXT, incoming.headers, headersOf);
    const span = this.#tracer.startSpan(
      operations[path],
      {
        kind: SpanKind.SERVER,
        attributes: {
          [attributes.operation]: operations[path],
          [attributes.provider]: "penstock",
          [attributes.httpMethod]: "POST",
          [attributes.httpRoute]: path,
          [attributes.requestId]: id,
        },
      },
      parent,
    );
    return new SpanTrace({ tracer: this.#tracer, span, parent, path });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, flushTimeoutMs);
    await Promise.race([this.#provider.shutdown().catch(() => undefined), late]);
    clearTimeout(timer);
  }
}

function samplerOf({ ratio, parentBased }: Sampling): Sampler {
  const root = new TraceIdRatioBasedSampler(ratio);
  return parentBased ? new ParentBasedSampler({ root }) : root;
}

/** Says once that the collector cannot be reached, and once that it can again. */
class ToldOnce implements SpanExporter {
  readonly #exporter: SpanExporter;
  readonly #log: Logger;
  #fails = false;

  constructor(exporter: SpanExporter, log: Logger) {
    this.#exporter = exporter;
    this.#log = log;
  }

  export(spans: ReadableSpan[], done: (result: ExportResult) => void): void {
    this.#exporter.export(spans, (result) => {
      const fails = result.code !== ExportResultCode.SUCCESS;
      if (fails && !this.#fails) {
        this.#log.warn({ reason: result.error?.message }, "spans cannot be exported; they are dropped until they can");
      } else if (!fails && this.#fails) this.#log.info("spans are exported again");
      this.#fails = fails;
      // Whoever waits has nothing left to do about it.
      done({ code: ExportResultCode.SUCCESS });
    });
  }

  async forceFlush(): Promise<void> {
    await this.#exporter.forceFlush?.();
  }

  async shutdown(): Promise<void> {
    await this.#exporter.shutdown();
  }
}
