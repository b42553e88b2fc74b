import type { IncomingMessage } from "node:http";
import type { PenstockError } from "../../contracts/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { RelayResult } from "../../lib/relay.ts";
import type { EndpointPath } from "../api/endpoints.ts";
import type { UsageRecord } from "../metering/record.ts";
import type { TracingOptions } from "./options.ts";

/** Spans of requests. Without it nothing of OpenTelemetry is loaded, and a client's trace context passes as it is. */
export interface Tracing extends AsyncDisposable {
  /** Begins the span of a request; it continues the client's trace, if there is one. */
  begin(incoming: IncomingMessage, request: { readonly id: string; readonly path: EndpointPath }): RequestTrace;
}

/** What is known of a request once it was read. */
export interface Named {
  readonly tenant: string;
  /** As the client named it. */
  readonly requestModel: string;
  /** Id of the configured model. */
  readonly model: string;
  readonly adapter: string | undefined;
  readonly streams: boolean;
  readonly maxTokens: number | undefined;
}

/** The span of one request, and those within it. They hold names, numbers and addresses; never a word of a prompt. */
export interface RequestTrace {
  readonly traceId: string;
  /** Whether anybody will see it. */
  readonly isRecording: boolean;
  named(named: Named): void;
  /** A span around something that the gateway waits for. */
  step<Value>(name: string, waiting: Promise<Value>): Promise<Value>;
  /** A span around sending the request on. `send` gets the headers that carry the trace further. */
  relay(
    target: RelayTarget,
    send: (headers: Readonly<Record<string, string>>) => Promise<RelayResult>,
  ): Promise<RelayResult>;
  settled(record: UsageRecord): void;
  /** `status` as metrics count it: an HTTP status, `client_left` or `cut`. */
  end(status: string, error: PenstockError | null): void;
}

/** Where a request is sent. */
export interface RelayTarget {
  readonly url: string;
  /** Why it is sent there. */
  readonly explanation: readonly object[] | undefined;
}

/** Opens the exporter. Spans that wait for it are bounded; what it cannot send is dropped, and the log says so once. */
export async function openTracing(
  options: TracingOptions,
  parts: { readonly version: string; readonly log: Logger },
): Promise<Tracing> {
  // Loaded only when it is used (measured: 0.1 to 0.2 s and 26 MiB).
  const { OtlpTracing } = await import("./otlp-tracing.ts");
  return new OtlpTracing(options, parts);
}
