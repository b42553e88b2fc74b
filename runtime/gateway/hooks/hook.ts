import type { z } from "zod";
import type { ErrorCode } from "../../contracts/errors.ts";
import type { EndpointPath } from "../api/endpoints.ts";

export { z } from "zod";

/*
 * What a hook module may import, as `penstock/hooks`. A hook is a module of the operator's that exports a `hook`. Each has
 * a thread of its own and sees copies: it cannot hold up, change or end anything but its own answer.
 */

/** What a hook sees of a request. */
export interface HookRequest {
  /** The `x-request-id` of the answer. */
  readonly requestId: string;
  /** Null where requests are not traced. */
  readonly traceId: string | null;
  readonly tenant: string;
  /** Id of the API key, or `issuer subject` of a token; never the secret. */
  readonly credentialId: string;
  /** Id of the configured model; `body.model` is what the client wrote. */
  readonly model: string;
  readonly endpoint: EndpointPath;
  /** Without those that hold credentials. */
  readonly headers: Readonly<Record<string, string>>;
  /** The JSON body, checked; null for an upload, which streams past. */
  readonly body: Readonly<Record<string, unknown>> | null;
}

/** What a hook sees of an answer that does not stream. */
export interface HookResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** The JSON that the engine answered, or what the hook before made of it; null for anything but JSON. */
  readonly body: unknown;
}

/** Codes that a hook may refuse with. */
export const refusalCodes = [
  "refused_by_hook",
  "invalid_value",
  "unsupported",
  "forbidden",
  "rate_limited",
  "budget_exceeded",
  "overloaded",
] as const satisfies readonly ErrorCode[];

/** Ends a request with an error: `refuse` is the message that the client sees, 1 to 1,000 characters. */
export interface Refusal {
  readonly refuse: string;
  /** Default: `refused_by_hook`, a 400. */
  readonly code?: (typeof refusalCodes)[number];
}

type Answer<Change> = undefined | void | Refusal | Change;
type Awaitable<Value> = Value | Promise<Value>;

/** What a hook does. Whatever it leaves out costs nothing. Nothing returned means: go on, unchanged. */
export interface HookStages {
  /** Before limits, the response cache and the engine. A changed `body` is checked again as if the client had sent it. */
  before?(request: HookRequest): Awaitable<Answer<{ readonly body: Readonly<Record<string, unknown>> }>>;
  /** After an answer that does not stream has come as a whole. */
  after?(response: HookResponse, request: HookRequest): Awaitable<Answer<{ readonly body: unknown }>>;
  /** Called at the first event of a stream; what it returns then sees each event. */
  events?(request: HookRequest): EventTransformer;
}

/**
 * Sees the JSON of each event of one stream, in their order, the closing `[DONE]` and errors aside. Returns the events that
 * come in its place: none to leave it out.
 */
export type EventTransformer = (event: unknown) => Awaitable<Answer<readonly unknown[]>>;

/** The `hook` that a module exports. */
export interface Hook<Options extends z.ZodType = z.ZodType> {
  /** Names it in metrics and logs. */
  readonly name: string;
  /** Checks the `options` of the config. */
  readonly options: Options;
  /** Called once when the gateway starts or reads its config again. */
  create(options: z.infer<Options>): Awaitable<HookStages>;
}

/** Gives a hook its types. */
export function defineHook<Options extends z.ZodType>(hook: Hook<Options>): Hook<Options> {
  return hook;
}
