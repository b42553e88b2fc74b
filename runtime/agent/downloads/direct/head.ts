import type { Outcome } from "./protocol.ts";

/** Node's own limit for a response head, and far more than a store sends. */
export const maxHeadBytes = 16 * 1024;
const maxHeaders = 128;

/** What an answer must be. */
export interface Expected {
  readonly start: number;
  readonly end: number;
  readonly sizeBytes: number;
  readonly etag: string | null;
}

/** A response head. */
export interface Head {
  readonly status: number;
  /** By lower-case name. A name that comes twice with different values is not in here but makes the head malformed. */
  readonly headers: ReadonlyMap<string, string>;
}

const statusLine = /^HTTP\/1\.1 ([1-5]\d\d)(?: [\t\x20-\x7E\x80-\xFF]*)?$/;
const headerLine = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*([\t\x20-\x7E\x80-\xFF]*)$/;
/** Two of these that differ say two different things about one body. */
const once = new Set(["content-length", "content-range", "transfer-encoding", "content-encoding", "etag"]);

/** Parses a head without its last empty line. Undefined when it is not HTTP/1.1 by the letter. */
export function parseHead(text: string): Head | undefined {
  const [first = "", ...lines] = text.split("\r\n");
  const status = statusLine.exec(first)?.[1];
  if (status === undefined || lines.length > maxHeaders) return undefined;
  const headers = new Map<string, string>();
  for (const line of lines) {
    const [, name, value] = headerLine.exec(line) ?? [];
    if (name === undefined || value === undefined) return undefined;
    const key = name.toLowerCase();
    const trimmed = value.trimEnd();
    if (once.has(key) && headers.has(key) && headers.get(key) !== trimmed) return undefined;
    headers.set(key, trimmed);
  }
  return { status: Number(status), headers };
}

/** What is wrong with an answer; undefined for the plain 206 that was asked for. */
export function judge({ status, headers }: Head, expected: Expected): Outcome | undefined {
  if (status === 412 || status === 416) return { kind: "replaced" };
  // The whole file: a server without ranges, or one whose If-Range did not match. The other path tells which.
  if (status < 300 && status !== 206) return { kind: "unfit", reason: "odd_answer" };
  if (status !== 206) return { kind: "status", status, retryAfterSeconds: retryAfter(headers.get("retry-after")) };
  const { start, end, sizeBytes, etag } = expected;
  const identity = (headers.get("content-encoding") ?? "identity") === "identity";
  if (!identity || headers.has("transfer-encoding")) return { kind: "unfit", reason: "odd_answer" };
  const actual = headers.get("etag") ?? headers.get("last-modified");
  if (etag !== null && actual !== undefined && actual !== etag) return { kind: "replaced" };
  const [, from, to, total] =
    /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16})$/.exec(headers.get("content-range") ?? "") ?? [];
  if (total === undefined) return { kind: "unfit", reason: "odd_answer" };
  if (Number(total) !== sizeBytes) return { kind: "replaced" };
  if (Number(from) !== start || Number(to) !== end - 1) {
    return { kind: "broken", what: "the server sent another range than was asked for" };
  }
  if (headers.get("content-length") !== String(end - start)) return { kind: "unfit", reason: "odd_answer" };
  return undefined;
}

/** Seconds of a Retry-After; null for none, and for dates, which stores do not send. */
function retryAfter(value: string | undefined): number | null {
  return value !== undefined && /^\d{1,5}$/.test(value) && Number(value) > 0 ? Number(value) : null;
}
