import type { IncomingHttpHeaders } from "node:http";
import { errorFromBody, PenstockError } from "../../contracts/errors.ts";
import { isRecord } from "../metering/tokens.ts";

/** What a provider's answer that is none means for it. */
export interface Verdict {
  /** What the client gets when nobody else answers. Never the provider's word on our key or our limits. */
  readonly error: PenstockError;
  /** Whether the provider, not the request, is at fault. */
  readonly isFault: boolean;
  /** Seconds for which it is not used; null for what its failures in a row say. */
  readonly pauseSeconds: number | null;
  /** For the log. */
  readonly reason: string;
}

/** A provider that refuses our key or our bill is asked again after this. */
const refusedPauseSeconds = 60;

/** A provider that limits us and does not say for how long. */
const limitedPauseSeconds = 5;

/** What is passed on of a provider's message. */
const maxMessageLength = 500;

/** Answers about the request itself. */
const aboutRequest: ReadonlySet<number> = new Set([400, 413, 415, 422]);

/** Judges an answer that was kept back, by its status, its `Retry-After` in seconds, and its body. */
export function verdictOf(status: number, waitSeconds: number | null, body: unknown): Verdict {
  if (aboutRequest.has(status)) {
    return { error: requestError(body), isFault: false, pauseSeconds: null, reason: `it answers ${status}` };
  }
  if (status === 401 || status === 402 || status === 403) {
    const reason = `it refuses our account with ${status}: check the key that \`keyEnv\` names`;
    return { error: failed(), isFault: true, pauseSeconds: refusedPauseSeconds, reason };
  }
  if (status === 404) {
    const reason = "it answers 404: check its `url` and its names in `models`";
    return { error: failed(), isFault: true, pauseSeconds: null, reason };
  }
  const isLimited = status === 429 || (status === 503 && waitSeconds !== null);
  if (!isLimited) {
    const reason = status < 300 ? "it answers with something else than asked for" : `it answers ${status}`;
    return { error: failed(), isFault: true, pauseSeconds: null, reason };
  }
  const pauseSeconds = waitSeconds ?? limitedPauseSeconds;
  const error = new PenstockError("overloaded", "Nobody who serves this model has room; try again later.", {
    retryAfterSeconds: Math.max(1, Math.ceil(pauseSeconds)),
  });
  return { error, isFault: false, pauseSeconds, reason: `it has no room (${status})` };
}

/** What a connection that failed means. */
export function verdictOfFailure(error: PenstockError): Verdict {
  const isSlow = error.code === "upstream_timeout";
  return {
    error: isSlow
      ? new PenstockError("upstream_timeout", "The model took too long to answer; try again later.", { cause: error })
      : failed(error),
    isFault: true,
    pauseSeconds: null,
    reason: isSlow ? "its first byte took too long" : "its connection failed",
  };
}

/** `Retry-After` in seconds, as a number or a date; null when there is none. */
export function retryAfterSeconds(header: string | string[] | undefined): number | null {
  if (typeof header !== "string") return null;
  if (/^\d+$/.test(header.trim())) return Number(header);
  const at = Date.parse(header);
  return Number.isNaN(at) ? null : Math.max(0, (at - Date.now()) / 1_000);
}

/** Headers of an answer that describe its body; the rest is between the provider and us. */
const passedOn = ["content-type", "content-length", "content-encoding"] as const;

export function passingHeaders(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(passedOn.flatMap((name) => (headers[name] === undefined ? [] : [[name, headers[name]]])));
}

function failed(cause?: PenstockError): PenstockError {
  return new PenstockError("upstream_failed", "The provider of this model does not answer; try again later.", {
    cause,
  });
}

function requestError(body: unknown): PenstockError {
  const ours = errorFromBody(body);
  if (ours !== undefined && ours.kind.status >= 400 && ours.kind.type === "invalid_request_error") return ours;
  const said = isRecord(body) && isRecord(body["error"]) ? body["error"] : {};
  const message = typeof said["message"] === "string" ? said["message"] : "The model does not take this request.";
  const param = typeof said["param"] === "string" ? { param: said["param"].slice(0, 200) } : {};
  return new PenstockError("invalid_value", message.slice(0, maxMessageLength), param);
}
