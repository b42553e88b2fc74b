import { errors } from "undici";
import { errorFromBody, PenstockError } from "../contracts/errors.ts";

/** What failed underneath, as an error of the table. */
export function upstreamError(cause: Error): PenstockError {
  // The request's own body failed on its way.
  if (cause instanceof PenstockError) return cause;
  if (cause instanceof errors.HeadersTimeoutError || cause instanceof errors.BodyTimeoutError) {
    return new PenstockError("upstream_timeout", "The model took too long to answer; try again later.", { cause });
  }
  if (cause instanceof errors.ConnectTimeoutError || cause.message.includes("ECONNREFUSED")) {
    return new PenstockError("upstream_failed", "The model's server cannot be reached; try again.", { cause });
  }
  return new PenstockError("engine_died", "The model's engine stopped while it answered; send the request again.", {
    cause,
  });
}

/** A body as JSON; undefined where it is none. */
export function parsedBody(chunks: readonly Buffer[]): unknown {
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch {
    return undefined;
  }
}

/** What an upstream said with an error status: its own error where it is one of the table. */
export function refusalError(status: number, body: unknown): PenstockError {
  return (
    errorFromBody(body) ??
    new PenstockError("upstream_failed", `The model's server answered ${status}; try again.`, { cause: { body } })
  );
}
