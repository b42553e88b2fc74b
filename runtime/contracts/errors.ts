/** What a code of the error table means to a client. */
export interface ErrorKind {
  /** HTTP status of the answer, when no byte has left yet. */
  readonly status: number;
  /** OpenAI's `error.type`. */
  readonly type: "invalid_request_error" | "authentication_error" | "rate_limit_error" | "server_error";
  /** Whether the same request may succeed later, or on another replica. */
  readonly retryable: boolean;
}

const request = { type: "invalid_request_error", retryable: false } as const;
const server = { type: "server_error", retryable: true } as const;
const broken = { type: "server_error", retryable: false } as const;

/**
 * The one table of errors: code -> HTTP status, OpenAI type, retryable. What is not in here is a bug and leaves as
 * `internal_error` without its message.
 */
export const errorTable = {
  invalid_json: { status: 400, ...request },
  invalid_value: { status: 400, ...request },
  missing_field: { status: 400, ...request },
  unsupported: { status: 400, ...request },
  adapter_invalid: { status: 400, ...request },
  context_length_exceeded: { status: 400, ...request },
  invalid_config: { status: 400, ...request },
  refused_by_hook: { status: 400, ...request },
  invalid_api_key: { status: 401, type: "authentication_error", retryable: false },
  forbidden: { status: 403, type: "authentication_error", retryable: false },
  not_found: { status: 404, ...request },
  model_not_found: { status: 404, ...request },
  method_not_allowed: { status: 405, ...request },
  model_in_use: { status: 409, ...server },
  body_too_large: { status: 413, ...request },
  client_closed: { status: 499, ...request },
  rate_limited: { status: 429, type: "rate_limit_error", retryable: true },
  budget_exceeded: { status: 429, type: "rate_limit_error", retryable: false },
  queue_full: { status: 429, type: "rate_limit_error", retryable: true },
  internal_error: { status: 500, ...broken },
  port_in_use: { status: 500, ...broken },
  upstream_failed: { status: 502, ...server },
  engine_died: { status: 502, ...server },
  overloaded: { status: 503, ...server },
  draining: { status: 503, ...server },
  no_replica: { status: 503, ...server },
  insufficient_memory: { status: 503, ...server },
  insufficient_gpu_memory: { status: 503, ...server },
  model_not_ready: { status: 503, ...server },
  adapter_not_ready: { status: 503, ...server },
  hook_failed: { status: 503, ...server },
  hold_expired: { status: 503, ...server },
  source_not_found: { status: 503, ...broken },
  source_denied: { status: 503, ...broken },
  source_failed: { status: 503, ...server },
  checksum_mismatch: { status: 503, ...broken },
  model_file_invalid: { status: 503, ...broken },
  engine_start_failed: { status: 503, ...broken },
  verification_failed: { status: 503, ...broken },
  upstream_timeout: { status: 504, ...server },
  cache_full: { status: 507, ...broken },
  disk_full: { status: 507, ...broken },
} as const satisfies Record<string, ErrorKind>;

/** A code of the error table. */
export type ErrorCode = keyof typeof errorTable;

/** OpenAI's error body, as every Penstock service answers it. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly code: string;
    readonly param: string | null;
  };
}

interface ErrorDetails {
  /** Path of the request field that is wrong, in OpenAI's spelling: `messages[0].content`. */
  readonly param?: string;
  /** Sent as `Retry-After`. */
  readonly retryAfterSeconds?: number;
  /** What happened underneath: logged, never sent. */
  readonly cause?: unknown;
}

/** Any failure that a client may see. Its message is safe to show and says what to do. */
export class PenstockError extends Error {
  readonly code: ErrorCode;
  readonly param: string | null;
  readonly retryAfterSeconds: number | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.name = "PenstockError";
    this.code = code;
    this.param = details.param ?? null;
    this.retryAfterSeconds = details.retryAfterSeconds;
  }

  get kind(): ErrorKind {
    return errorTable[this.code];
  }

  /** The OpenAI-shaped body of this error. */
  toBody(): ErrorBody {
    return { error: { message: this.message, type: this.kind.type, code: this.code, param: this.param } };
  }
}

/** Whether `code` is in the error table. */
export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && Object.hasOwn(errorTable, code);
}

/** Anything thrown, as an error of the table. What is not in the table keeps its message to itself. */
export function toPenstockError(thrown: unknown): PenstockError {
  if (thrown instanceof PenstockError) return thrown;
  return new PenstockError("internal_error", "Something went wrong on the server; its log has the details.", {
    cause: thrown,
  });
}

/** An error that another Penstock service answered, read back from its body; undefined when the body is not one. */
export function errorFromBody(body: unknown): PenstockError | undefined {
  if (typeof body !== "object" || body === null || !("error" in body)) return undefined;
  const { error } = body;
  if (typeof error !== "object" || error === null) return undefined;
  const code = "code" in error && isErrorCode(error.code) ? error.code : undefined;
  const message = "message" in error && typeof error.message === "string" ? error.message : undefined;
  if (code === undefined || message === undefined) return undefined;
  const param = "param" in error && typeof error.param === "string" ? { param: error.param } : {};
  return new PenstockError(code, message, param);
}
