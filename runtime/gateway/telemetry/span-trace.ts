import { SpanKind, SpanStatusCode, trace, type Context, type Span, type Tracer } from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { toPenstockError, type PenstockError } from "../../contracts/errors.ts";
import type { RelayResult } from "../../lib/relay.ts";
import type { EndpointPath } from "../api/endpoints.ts";
import type { UsageRecord } from "../metering/record.ts";
import { attributes, operations } from "./attributes.ts";
import type { Named, RelayTarget, RequestTrace } from "./tracing.ts";

const propagator = new W3CTraceContextPropagator();
const setHeader = {
  set(headers: Record<string, string>, name: string, value: string): void {
    headers[name] = value;
  },
};

/** Replicas of a routing decision that an event tells. */
const maxExplained = 16;

interface SpanParts {
  readonly tracer: Tracer;
  readonly span: Span;
  /** What the client sent of its own trace. */
  readonly parent: Context;
  readonly path: EndpointPath;
}

/** A request's span. One that is not sampled has no spans within it, and still carries the trace further. */
export class SpanTrace implements RequestTrace {
  readonly #parts: SpanParts;
  readonly #context: Context;
  #name: string;

  constructor(parts: SpanParts) {
    this.#parts = parts;
    this.#context = trace.setSpan(parts.parent, parts.span);
    this.#name = operations[parts.path];
  }

  get traceId(): string {
    return this.#parts.span.spanContext().traceId;
  }

  get isRecording(): boolean {
    return this.#parts.span.isRecording();
  }

  named({ tenant, requestModel, model, adapter, streams, maxTokens }: Named): void {
    if (!this.isRecording) return;
    const { span, path } = this.#parts;
    this.#name = `${operations[path]} ${model}`;
    span.updateName(this.#name);
    span.setAttributes({
      [attributes.tenant]: tenant,
      [attributes.requestModel]: requestModel,
      [attributes.responseModel]: adapter === undefined ? model : `${model}:${adapter}`,
      [attributes.requestStream]: streams,
      ...(adapter === undefined ? {} : { [attributes.adapter]: adapter }),
      ...(maxTokens === undefined || maxTokens === 0 ? {} : { [attributes.maxTokens]: maxTokens }),
    });
  }

  async step<Value>(name: string, waiting: Promise<Value>): Promise<Value> {
    if (!this.isRecording) return waiting;
    const span = this.#parts.tracer.startSpan(name, { kind: SpanKind.INTERNAL }, this.#context);
    try {
      return await waiting;
    } catch (error) {
      fail(span, toPenstockError(error));
      throw error;
    } finally {
      span.end();
    }
  }

  async relay(
    { url, explanation }: RelayTarget,
    send: (headers: Readonly<Record<string, string>>) => Promise<RelayResult>,
  ): Promise<RelayResult> {
    if (!this.isRecording) return send(headersOf(this.#context));
    const { tracer, span: own, path } = this.#parts;
    const { hostname, port, protocol } = new URL(url);
    own.addEvent("penstock.route", {
      [attributes.replica]: url,
      ...(explanation === undefined ? {} : { "penstock.scores": JSON.stringify(explanation.slice(0, maxExplained)) }),
    });
    const known = {
      [attributes.operation]: operations[path],
      [attributes.serverAddress]: hostname,
      [attributes.serverPort]: Number(port || (protocol === "https:" ? 443 : 80)),
    };
    const span = tracer.startSpan(this.#name, { kind: SpanKind.CLIENT, attributes: known }, this.#context);
    try {
      const result = await send(headersOf(trace.setSpan(this.#context, span)));
      span.setAttributes({ [attributes.httpStatus]: result.status, [attributes.outcome]: result.outcome });
      if (result.status >= 400) span.setAttribute(attributes.errorType, String(result.status));
      if (result.outcome === "cut") span.setStatus({ code: SpanStatusCode.ERROR });
      return result;
    } catch (error) {
      fail(span, toPenstockError(error));
      throw error;
    } finally {
      span.end();
    }
  }

  settled(record: UsageRecord): void {
    if (!this.isRecording) return;
    const { replica, ttftMs } = record;
    this.#parts.span.setAttributes({
      [attributes.inputTokens]: record.promptTokens,
      [attributes.outputTokens]: record.completionTokens,
      [attributes.cachedTokens]: record.cachedTokens,
      [attributes.outcome]: record.outcome,
      [attributes.coldStartSeconds]: record.coldStartSeconds,
      [attributes.costUsd]: record.costUsd,
      ...(ttftMs === null ? {} : { [attributes.timeToFirstChunk]: ttftMs / 1_000 }),
      ...(replica === null ? {} : { [attributes.replica]: replica }),
    });
  }

  end(status: string, error: PenstockError | null): void {
    const { span } = this.#parts;
    const code = Number(status);
    if (Number.isInteger(code)) span.setAttribute(attributes.httpStatus, code);
    else if (error === null) span.setAttribute(attributes.errorType, status);
    if (error !== null) span.setAttribute(attributes.errorType, error.code);
    // What a client did wrong, or that it left, is no error of this server.
    if (code >= 500 || status === "cut") span.setStatus({ code: SpanStatusCode.ERROR });
    span.end();
  }
}

/** The code alone: a message may name what a client wrote. */
function fail(span: Span, { code }: PenstockError): void {
  span.setAttribute(attributes.errorType, code);
  span.setStatus({ code: SpanStatusCode.ERROR });
}

function headersOf(context: Context): Record<string, string> {
  const headers: Record<string, string> = {};
  propagator.inject(context, headers, setHeader);
  return headers;
}
