/** What is sent in front of a body. */
export interface RequestHead {
  readonly method: string;
  readonly path: string;
  /** `host:port`. */
  readonly host: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Bytes of the body; `chunked` where nobody knows; null: there is none. */
  readonly length: number | "chunked" | null;
}

/** Headers that are written here, whatever the caller says. */
const own: ReadonlySet<string> = new Set(["host", "connection", "content-length", "transfer-encoding"]);

const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const forbidden = /[^\t\x20-\x7e\x80-\xff]/;
const path = /^\/[\x21-\x7e]*$/;

/**
 * The lines of a request, the empty one included, one character a byte. Throws for what would break out of its line: such a
 * request says something else than its parts.
 */
export function writeHead(request: RequestHead): string {
  const { headers, length } = request;
  if (!path.test(request.path)) throw new TypeError("a path with a character that it may not have");
  let text = `${request.method} ${request.path} HTTP/1.1\r\nhost: ${request.host}\r\nconnection: keep-alive\r\n`;
  for (const name in headers) {
    if (own.has(name)) continue;
    const value = headers[name] ?? "";
    if (!token.test(name) || forbidden.test(value)) throw new TypeError(`a header that cannot be sent: ${name}`);
    text += `${name}: ${value}\r\n`;
  }
  if (length === "chunked") return `${text}transfer-encoding: chunked\r\n\r\n`;
  return length === null ? `${text}\r\n` : `${text}content-length: ${length}\r\n\r\n`;
}
