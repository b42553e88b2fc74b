import { PenstockError, type ErrorCode } from "../../contracts/errors.ts";

/** What may still help after a failure: the same range again, the whole download from its list on, or nothing. */
export type Retry = "range" | "start_over" | "never";

/** A failure of a source, with what may still help. */
export class SourceError extends PenstockError {
  readonly retry: Retry;

  constructor(
    code: ErrorCode,
    message: string,
    details: { retry: Retry; cause?: unknown; retryAfterSeconds?: number },
  ) {
    super(code, message, details);
    this.retry = details.retry;
  }
}

/** There is nothing at this URI. */
export function notFound(uri: string, cause?: unknown): SourceError {
  return new SourceError("source_not_found", `There is nothing at ${uri}. Check the model's source.`, {
    retry: "never",
    cause,
  });
}

/** The store refuses; `remedy` is a sentence that names the credential to set. */
export function denied(uri: string, remedy: string, cause?: unknown): SourceError {
  return new SourceError("source_denied", `Access to ${uri} is denied. ${remedy}`, { retry: "never", cause });
}

/** The store, or the way to it, failed; the same request may work later. */
export function failed(uri: string, what: string, details: { cause?: unknown; retryAfterSeconds?: number } = {}) {
  return new SourceError("source_failed", `Reading ${uri} failed: ${what}. Try again later.`, {
    retry: "range",
    ...details,
  });
}

/** The source cannot be used as it is; asking again changes nothing. `what` is a whole sentence that says what to do. */
export function unusable(uri: string, what: string, cause?: unknown): SourceError {
  return new SourceError("source_failed", `${uri} cannot be used. ${what}`, { retry: "never", cause });
}

/** The file is no longer the one that was listed. */
export function replaced(uri: string, path: string): SourceError {
  return new SourceError(
    "source_failed",
    `${path} of ${uri} was replaced during download. Load the model again once its upload is complete.`,
    { retry: "start_over" },
  );
}

interface Refusal {
  readonly uri: string;
  readonly status: number;
  /** Sentence that names the credential to set. */
  readonly remedy: string;
  readonly retryAfterSeconds?: number | undefined;
  readonly cause?: unknown;
}

/** The error for an HTTP status that is not a success. */
export function statusError({ uri, status, remedy, retryAfterSeconds, cause }: Refusal): SourceError {
  if (status === 404 || status === 410) return notFound(uri, cause);
  if (status === 401 || status === 403) return denied(uri, remedy, cause);
  const temporary = status === 408 || status === 425 || status === 429 || status >= 500;
  if (!temporary) return unusable(uri, `The server answered ${status}; check the address.`, cause);
  return failed(uri, `the server answered ${status}`, {
    cause,
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
  });
}

/** `thrown` as a SourceError. What a signal aborted stays what it is, so that callers see their own reason. */
export function toSourceError(thrown: unknown, { uri, signal }: { uri: string; signal: AbortSignal }): unknown {
  if (signal.aborted) return signal.reason;
  if (thrown instanceof PenstockError) return thrown;
  const words = thrown instanceof Error ? describe(thrown) : "an unknown error";
  return failed(uri, words, { cause: thrown });
}

/** The code of a system or network error where it has one: messages of other libraries may hold signed addresses. */
function describe(error: Error): string {
  return `the connection broke (${codeOf(error) ?? codeOf(error.cause) ?? error.name})`;
}

function codeOf(thrown: unknown): string | undefined {
  return thrown instanceof Error && "code" in thrown && typeof thrown.code === "string" ? thrown.code : undefined;
}
