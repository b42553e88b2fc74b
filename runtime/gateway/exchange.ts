import type { IncomingMessage, ServerResponse } from "node:http";
import type { Deployment } from "./registry/catalog.ts";

/** One request on its way through the stages. */
export interface Exchange {
  /** Returned to the client and written in every log line of the request. */
  readonly id: string;
  readonly incoming: IncomingMessage;
  readonly outgoing: ServerResponse;
  /** The engine's path, such as `/v1/chat/completions`. */
  readonly path: string;
  /** The bytes as they came: they are parsed once, for checks, and relayed unchanged. */
  readonly body: Buffer;
  readonly model: Deployment;
  /** The adapter that the request names as `model:adapter`. */
  readonly adapter: string | undefined;
  /** Whether the client asked for server-sent events. */
  readonly streams: boolean;
  /** Aborted when the client leaves. */
  readonly signal: AbortSignal;
}
