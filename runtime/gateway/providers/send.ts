import type { IncomingHttpHeaders } from "node:http";
import { Readable } from "node:stream";
import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import type { RelayBody } from "../../lib/long-body.ts";
import type { Relay, RelayGate, RelayResult } from "../../lib/relay.ts";
import { endpointOf, errorBodyOf } from "../api/endpoints.ts";
import type { Exchange } from "../exchange.ts";
import { passingHeaders, retryAfterSeconds, verdictOf, verdictOfFailure, type Verdict } from "./answer.ts";
import { ourName } from "./choose.ts";
import type { ProviderOptions } from "./options.ts";
import type { Provider } from "./provider.ts";

/** Request header that keeps a request from leaving twice: whoever gets it answers itself. */
export const hopHeader = "x-penstock-hop";

/** Response header: who answered, when it was nobody of this gateway's fleets. */
export const providerHeader = "x-penstock-provider";

/** Headers of a client that providers may see: what its body is, and which version of an API it speaks. */
const passedOn = ["content-type", "accept", "anthropic-version", "anthropic-beta", "openai-beta"] as const;

/** A provider did not answer; nothing has left to the client. */
export class ProviderFailure extends Error {
  readonly verdict: Verdict;

  constructor(verdict: Verdict, cause: unknown) {
    super(verdict.reason, { cause });
    this.verdict = verdict;
  }
}

export interface SendParts {
  readonly relay: Relay;
  readonly betweenBytesTimeoutMs: number;
}

/**
 * Sends a request to a provider and its answer to the client. Throws `ProviderFailure`, or `client_closed`, while no byte
 * has left; afterwards a failure ends the answer, as at home.
 */
export async function send(provider: Provider, exchange: Exchange, parts: SendParts): Promise<RelayResult> {
  const { outgoing, path, request } = exchange;
  const { options } = provider;
  const gate = new Gate(provider, exchange);
  const url = new URL(options.url);
  const body = request.body(
    provider.nameOf(ourName({ model: exchange.model.spec.id, adapter: exchange.adapter })) ?? "",
  );
  using _running = provider.begin();
  const timeoutMs = options.firstByteSeconds * 1_000;
  const timer = setTimeout(() => gate.giveUp(), timeoutMs);
  // Another gateway of ours carries the trace on; nobody else learns of it.
  const ask = (traceHeaders: Readonly<Record<string, string>>): Promise<RelayResult> =>
    parts.relay.relay(
      {
        origin: url.origin,
        path: url.pathname.replace(/\/+$/, "") + path,
        method: "POST",
        headers: Object.entries({
          ...headersFor(exchange, options, body),
          ...(options.kind === "penstock" ? traceHeaders : {}),
        }).flat(),
        body,
        tap: exchange.account.tap,
        gate,
        errorBody: (error) => errorBodyOf(path, error),
        firstByteTimeoutMs: timeoutMs,
        betweenBytesTimeoutMs: parts.betweenBytesTimeoutMs,
      },
      outgoing,
    );
  try {
    const { trace } = exchange;
    return await (trace === null ? ask({}) : trace.relay({ url: options.url, explanation: undefined }, ask));
  } catch (thrown) {
    const error = toPenstockError(thrown);
    if (error.code === "client_closed") throw error;
    throw new ProviderFailure(gate.verdict ?? verdictOfFailure(error), error);
  } finally {
    clearTimeout(timer);
  }
}

/** Lets an answer of the right kind begin, and remembers what else came. */
class Gate implements RelayGate {
  readonly #abort = new AbortController();
  readonly #provider: Provider;
  readonly #exchange: Exchange;
  readonly #startedMs = performance.now();
  #status = 0;
  #waitSeconds: number | null = null;
  verdict: Verdict | null = null;

  constructor(provider: Provider, exchange: Exchange) {
    this.#provider = provider;
    this.#exchange = exchange;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  giveUp(): void {
    this.#abort.abort(new PenstockError("upstream_timeout", "The provider took too long."));
  }

  admits(status: number, headers: IncomingHttpHeaders): IncomingHttpHeaders | null {
    this.#status = status;
    this.#waitSeconds = retryAfterSeconds(headers["retry-after"]);
    const isGood = status >= 200 && status < 300 && isOfKind(headers["content-type"] ?? "", this.#exchange);
    return isGood ? passingHeaders(headers) : null;
  }

  opens(): boolean {
    const { outgoing, account, model, adapter } = this.#exchange;
    const { name, prices } = this.#provider.options;
    this.#provider.answered(ourName({ model: model.spec.id, adapter }), performance.now() - this.#startedMs);
    account.replica = null;
    account.provider = { name, prices: new Map(Object.entries(prices)) };
    if (!outgoing.headersSent) outgoing.setHeader(providerHeader, name);
    return true;
  }

  refusal(body: unknown): PenstockError {
    this.verdict = verdictOf(this.#status, this.#waitSeconds, body);
    return this.verdict.error;
  }
}

/** Whether an answer can be what was asked for: a page of a proxy, for one, is not. */
function isOfKind(contentType: string, { request, path }: Exchange): boolean {
  if (request.streams) return contentType.startsWith("text/event-stream");
  if (endpointOf(path).task === "speech") return !contentType.startsWith("text/");
  return contentType.includes("json");
}

function headersFor({ incoming }: Exchange, options: ProviderOptions, body: RelayBody): Record<string, string> {
  const headers: Record<string, string> = { [hopHeader]: "1", ...keyHeader(options) };
  for (const name of passedOn) {
    const value = incoming.headers[name];
    if (typeof value === "string") headers[name] = value;
  }
  if (!(body instanceof Readable)) headers["content-length"] = String(body.length);
  return headers;
}

/** The header with a provider's key. */
export function keyHeader({ key, headerStyle }: Pick<ProviderOptions, "key" | "headerStyle">): Record<string, string> {
  if (key === null) return {};
  return headerStyle === "bearer" ? { authorization: `Bearer ${key}` } : { "x-api-key": key };
}
