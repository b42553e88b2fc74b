import type { Algorithm } from "../../sources/source.ts";

/** Why the plain sockets do not do for a file, so that its source's own client reads it. */
export type FallbackReason =
  /** Not worth a thread. */
  | "small"
  /** No O_DIRECT. */
  | "not_linux"
  /** The source knows no plain request for the file, or the file has no ranges. */
  | "no_request"
  /** The plain request was refused or redirected, and a fresh one too. */
  | "refused"
  /** The server does not speak HTTP/1.1 to us. */
  | "not_http1"
  /** Not a plain 206: chunked, compressed, the whole file, or heads that are too long or malformed. */
  | "odd_answer"
  /** The thread that transfers died. */
  | "worker_died";

/** A range that the transfer thread shall bring to disk. */
export interface RangeOrder {
  readonly id: number;
  readonly file: number;
  readonly start: number;
  readonly end: number;
  /** `http:` or `https:`; may carry a signature. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** What the answer's ETag (or Last-Modified) must be; null skips that comparison. */
  readonly etag: string | null;
  readonly stallTimeoutMs: number;
}

/** How a range ended. */
export type Outcome =
  | { readonly kind: "done" }
  /** The network or the server broke it; `what` is safe to show. */
  | { readonly kind: "broken"; readonly what: string }
  | { readonly kind: "status"; readonly status: number; readonly retryAfterSeconds: number | null }
  | { readonly kind: "replaced" }
  | { readonly kind: "unfit"; readonly reason: FallbackReason }
  | { readonly kind: "disk"; readonly code: string; readonly message: string };

export interface FileOrder {
  readonly file: number;
  /** Where the file lies already, at its full length. */
  readonly path: string;
  readonly sizeBytes: number;
  /** What to hash with while bytes arrive; null for nothing. */
  readonly algorithm: Algorithm | null;
  /** What is on disk from an earlier try: it is read back for the hash. */
  readonly onDisk: readonly (readonly [start: number, end: number])[];
}

/** What the transfer thread is told. */
export type ToWorker =
  | ({ readonly kind: "file" } & FileOrder)
  /** Certificates (PEM) of the authorities that the agent trusts; before the first range over TLS. */
  | { readonly kind: "trust"; readonly ca: readonly string[] }
  | ({ readonly kind: "range" } & RangeOrder)
  | { readonly kind: "cancel"; readonly id: number }
  /** Answered with `digest` once all bytes of the file are hashed. */
  | { readonly kind: "digest"; readonly file: number }
  /** All ranges of the file are done. */
  | { readonly kind: "close"; readonly file: number }
  /** Nothing more is wanted of the file, its hash neither. */
  | { readonly kind: "forget"; readonly file: number }
  | { readonly kind: "stop" };

/** What the transfer thread tells. */
export type FromWorker =
  /** Bytes that came in since the last such message, by range; not on disk yet. */
  | { readonly kind: "bytes"; readonly counts: readonly (readonly [id: number, bytes: number])[] }
  /** The bytes of the range before `position` are written. */
  | { readonly kind: "end"; readonly id: number; readonly position: number; readonly outcome: Outcome }
  /** Bytes of a file whose hash is waited for that were hashed so far. */
  | { readonly kind: "hashed"; readonly file: number; readonly bytes: number }
  | { readonly kind: "digest"; readonly file: number; readonly value: string };

/** What the hash thread is told; it works in this order. */
export type ToHasher =
  | { readonly kind: "file"; readonly file: number; readonly path: string; readonly algorithm: Algorithm }
  /** Bytes at `address` of the shared memory. */
  | {
      readonly kind: "block";
      readonly file: number;
      readonly start: number;
      readonly end: number;
      readonly address: number;
    }
  | { readonly kind: "disk"; readonly file: number; readonly start: number; readonly end: number }
  | { readonly kind: "digest"; readonly file: number }
  | { readonly kind: "forget"; readonly file: number };

/** `done` answers each `block` and `disk`, in order. */
export type FromHasher =
  { readonly kind: "done" } | { readonly kind: "digest"; readonly file: number; readonly value: string };

/** Sends a message to a thread. */
export function post<Message>(port: { postMessage(message: Message): void }, message: Message): void {
  port.postMessage(message);
}
