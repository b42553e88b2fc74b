import type { IncomingMessage, ServerResponse } from "node:http";
import type { Principal } from "../contracts/tenant.ts";
import type { EndpointPath } from "./api/endpoints.ts";
import type { Account } from "./metering/metering.ts";
import type { Deployment } from "./registry/catalog.ts";
import type { ReadRequest } from "./stages/read.ts";
import type { Recorder } from "./stages/response-cache.ts";

/** One request on its way through the stages. */
export interface Exchange {
  /** Returned to the client and written in every log line of the request. */
  readonly id: string;
  readonly incoming: IncomingMessage;
  readonly outgoing: ServerResponse;
  /** The engine's path, such as `/v1/chat/completions`. */
  readonly path: EndpointPath;
  readonly principal: Principal;
  readonly request: ReadRequest;
  readonly model: Deployment;
  /** The adapter that the request names as `model:adapter`. */
  readonly adapter: string | undefined;
  /** What the request cost, as the relay sees it. */
  readonly account: Account;
  /** Keeps the answer for the response cache; null where it is not kept. */
  readonly recorder: Recorder | null;
  /** Aborted when the client leaves. */
  readonly signal: AbortSignal;
}
