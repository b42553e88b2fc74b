import type { IncomingHttpHeaders } from "node:http";

/** The first part of an answer. */
export interface AnswerHead {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: IncomingHttpHeaders;
  /** Bytes of the body; `chunked`, or `close`: until the connection ends. */
  readonly framing: number | "chunked" | "close";
  /** Whether the other side keeps the connection open after this answer. */
  readonly persists: boolean;
}

/** An answer that HTTP/1.1 (RFC 9112) forbids, or that could be read in two ways. The connection is then of no use. */
export class InvalidAnswer extends Error {}

const statusLine = /^HTTP\/1\.([01]) ([1-5]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/;
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const forbidden = /[^\t\x20-\x7e\x80-\xff]/;
const length = /^\d{1,15}$/;

/** Names as they were written, in lower case: servers write the same few in each answer. */
const knownNames = new Map<string, string>();
const maxKnownNames = 500;

/** Reads the lines before the body, without the empty one. Throws `InvalidAnswer`. */
export function readHead(text: string, method: string): AnswerHead {
  const lines = text.split("\r\n");
  const start = statusLine.exec(lines[0] ?? "");
  if (start === null) throw new InvalidAnswer("a status line that is none");
  const status = Number(start[2]);
  const headers: Record<string, string | string[]> = {};
  for (let at = 1; at < lines.length; at += 1) addHeader(headers, lines[at] ?? "");
  const connection = String(headers["connection"] ?? "").toLowerCase();
  const isNewer = start[1] === "1";
  const framing = framingOf(status, headers, { method, isNewer });
  const persists = framing !== "close" && (isNewer ? !/\bclose\b/.test(connection) : /\bkeep-alive\b/.test(connection));
  return { status, headers, framing, persists };
}

function addHeader(headers: Record<string, string | string[]>, line: string): void {
  const colon = line.indexOf(":");
  const name = nameOf(line.slice(0, Math.max(0, colon)));
  const written = line.slice(colon + 1);
  // In front of `trim`, which would take a line feed for a blank.
  if (forbidden.test(written)) throw new InvalidAnswer(`a header ${name} with a character that it may not have`);
  const value = written.trim();
  const before = Object.hasOwn(headers, name) ? headers[name] : undefined;
  if (before === undefined) headers[name] = name === "set-cookie" ? [value] : value;
  else if (Array.isArray(before)) before.push(value);
  else if (name === "content-length") throw new InvalidAnswer("more than one content-length");
  else headers[name] = `${before}, ${value}`;
}

function nameOf(written: string): string {
  const known = knownNames.get(written);
  if (known !== undefined) return known;
  if (!token.test(written)) throw new InvalidAnswer("a header line that is none");
  const name = written.toLowerCase();
  if (knownNames.size < maxKnownNames) knownNames.set(written, name);
  return name;
}

/** RFC 9112, 6.3. What gives two lengths is refused: a connection that is used again would mix up two answers. */
function framingOf(
  status: number,
  headers: IncomingHttpHeaders,
  { method, isNewer }: { readonly method: string; readonly isNewer: boolean },
): AnswerHead["framing"] {
  const encoding = headers["transfer-encoding"];
  const bytes = headers["content-length"];
  if (encoding !== undefined) {
    if (bytes !== undefined) throw new InvalidAnswer("both transfer-encoding and content-length");
    if (!isNewer || encoding.toLowerCase() !== "chunked") throw new InvalidAnswer("a transfer-encoding but chunked");
  }
  if (bytes !== undefined && !length.test(bytes)) throw new InvalidAnswer("a content-length that is no number");
  if (method === "HEAD" || status < 200 || status === 204 || status === 304) return 0;
  if (encoding !== undefined) return "chunked";
  return bytes === undefined ? "close" : Number(bytes);
}
