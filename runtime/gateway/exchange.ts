import type { IncomingMessage } from "node:http";
import type { Principal } from "../contracts/tenant.ts";
import type { Leaving } from "../lib/leaving.ts";
import type { Outlet } from "../lib/outlet.ts";
import type { Admitted } from "./admission/admission.ts";
import type { EndpointPath } from "./api/endpoints.ts";
import type { Account } from "./metering/metering.ts";
import type { Trip } from "./providers/trip.ts";
import type { Deployment } from "./registry/catalog.ts";
import type { ReadRequest } from "./stages/read.ts";
import type { Recorder } from "./stages/response-cache.ts";
import type { RequestTrace } from "./telemetry/tracing.ts";

/** One request on its way through the stages. */
export interface Exchange {
  /** Returned to the client and written in every log line of the request. */
  readonly id: string;
  readonly incoming: IncomingMessage;
  /** Node's own response, or what stands in front of it while hooks see the answer. */
  readonly outgoing: Outlet;
  /** The engine's path, such as `/v1/chat/completions`. */
  readonly path: EndpointPath;
  readonly principal: Principal;
  readonly request: ReadRequest;
  readonly model: Deployment;
  /** The adapter that the request names as `model:adapter`. */
  readonly adapter: string | undefined;
  /** What the request cost, as the relay sees it. */
  readonly account: Account;
  /** Its way to a provider when home cannot answer it; null where it must stay. */
  readonly trip: Trip | null;
  /** Its place among the requests of its model, which it may have to wait for. */
  readonly admitted: Pick<Admitted, "takePlace">;
  /** Keeps the answer for the response cache; null where it is not kept. */
  readonly recorder: Recorder | null;
  /** Null where nothing is traced. */
  readonly trace: RequestTrace | null;
  /** Tells when the client leaves. */
  readonly client: Leaving;
}
