import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** A file that the server has. */
export interface ServedFile {
  readonly body: Buffer;
  readonly etag: string;
}

/** One request, as a test sees it afterwards. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  /** Requested bytes, end exclusive; null for the whole file. */
  readonly range: readonly [start: number, end: number] | null;
}

/** What goes wrong with one answer. */
export type Fault =
  | { readonly kind: "status"; readonly status: number; readonly headers?: Record<string, string> }
  /** The connection breaks after so many bytes of the body. */
  | { readonly kind: "cut"; readonly afterBytes: number }
  /** The headers promise so many bytes more than come, or (negative) fewer. */
  | { readonly kind: "wrongLength"; readonly extraBytes: number }
  /** More bytes come than the range has, and the headers say so. */
  | { readonly kind: "overrun"; readonly extraBytes: number }
  /** The answer has these headers besides, or instead of its own. */
  | { readonly kind: "headers"; readonly headers: Record<string, string> }
  /** The body comes in chunks, without a length. */
  | { readonly kind: "chunked" }
  /** Headers come, the body never does. */
  | { readonly kind: "stall" }
  /** The body comes only once the test lets it. */
  | { readonly kind: "hold"; readonly until: Promise<void> };

/** What a dialect of the server (a hub, an object store) answers; a file goes out by ranges. */
export type Reply =
  | { readonly status: number; readonly headers?: Record<string, string>; readonly body?: string }
  | { readonly file: ServedFile; readonly headers?: Record<string, string> };

interface Options {
  /** False: `Range` is ignored, as simple servers do. */
  readonly ranges?: boolean;
  /** False: `If-Range` is ignored, so that a changed file goes out in parts. */
  readonly ifRange?: boolean;
  /** The most that goes out over one connection, in bytes a second. */
  readonly bytesPerSecond?: number;
  /** Key and certificate (PEM): the server speaks TLS. */
  readonly tls?: { readonly key: string; readonly cert: string };
  /** A dialect in front of the plain files; undefined goes on to those. */
  readonly route?: (request: SeenRequest, server: RangeServer) => Reply | undefined;
}

/** An HTTP server with files, byte ranges and faults, on a real socket. */
export class RangeServer implements AsyncDisposable {
  readonly files = new Map<string, ServedFile>();
  readonly requests: SeenRequest[] = [];
  /** Bytes of file bodies that were sent. */
  bytesServed = 0;
  /** Asked for each request to a file; the first fault that is answered happens. */
  readonly faults: ((request: SeenRequest) => Fault | undefined)[] = [];
  readonly #options: Options;
  /** Connections that were made so far, and those that are open. */
  connections = 0;
  openConnections = 0;
  readonly #server: Server;

  private constructor(options: Options) {
    this.#options = options;
    const answer: RequestListener = (incoming, outgoing) => void this.#answer(incoming, outgoing);
    this.#server = options.tls === undefined ? createServer(answer) : createTlsServer(options.tls, answer);
    this.#server.on("connection", (socket) => {
      this.connections += 1;
      this.openConnections += 1;
      socket.on("close", () => (this.openConnections -= 1));
    });
  }

  static async start(options: Options = {}): Promise<RangeServer> {
    const server = new RangeServer(options);
    server.#server.listen(0, "127.0.0.1");
    await once(server.#server, "listening");
    return server;
  }

  get url(): string {
    const { port } = this.#server.address() as AddressInfo; // a TCP server that listens has one
    return this.#options.tls === undefined ? `http://127.0.0.1:${port}` : `https://localhost:${port}`;
  }

  /** Adds or replaces a file. Its ETag follows from its bytes unless it is given; an empty one is not sent. */
  put(path: string, body: Buffer, etag = `"${createHash("md5").update(body).digest("hex")}"`): void {
    this.files.set(path, { body, etag });
  }

  /** Lets the next `times` requests that match fail. */
  fail(times: number, fault: Fault, matches: (request: SeenRequest) => boolean = () => true): void {
    let left = times;
    this.faults.push((request) => {
      if (left === 0 || !matches(request)) return undefined;
      left -= 1;
      return fault;
    });
  }

  /** Requests for bytes of a file, without those for one byte that only ask for its length. */
  get reads(): SeenRequest[] {
    return this.requests.filter(({ method, range }) => method === "GET" && (range === null || range[1] > 1));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #answer(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    outgoing.on("error", () => undefined);
    const request = await seen(incoming);
    this.requests.push(request);
    const file = this.files.get(request.path);
    const reply = this.#options.route?.(request, this) ?? (file === undefined ? { status: 404 } : { file });
    const fault = this.#faultFor(request);
    if (fault?.kind === "status") {
      outgoing.writeHead(fault.status, fault.headers).end();
    } else if ("file" in reply) {
      await this.#sendFile(outgoing, { request, reply, fault });
    } else {
      outgoing.writeHead(reply.status, reply.headers).end(request.method === "HEAD" ? "" : reply.body);
    }
  }

  #faultFor(request: SeenRequest): Fault | undefined {
    for (const choose of this.faults) {
      const fault = choose(request);
      if (fault !== undefined) return fault;
    }
    return undefined;
  }

  async #sendFile(
    outgoing: ServerResponse,
    { request, reply, fault }: { request: SeenRequest; reply: Reply & { file: ServedFile }; fault: Fault | undefined },
  ): Promise<void> {
    const { body, etag } = reply.file;
    const { range, headers } = request;
    const expected = headers["if-match"];
    if (expected !== undefined && expected !== etag) return void outgoing.writeHead(412).end();
    const unchanged = this.#options.ifRange === false || (headers["if-range"] ?? etag) === etag;
    const partial = range !== null && this.#options.ranges !== false && unchanged ? range : null;
    if (partial !== null && partial[0] >= Math.min(body.length, partial[1])) {
      return void outgoing.writeHead(416, { "content-range": `bytes */${body.length}`, etag }).end();
    }
    const start = partial?.[0] ?? 0;
    const end = partial?.[1] ?? body.length;
    const slice = body.subarray(start, end + (fault?.kind === "overrun" ? fault.extraBytes : 0));
    const extra = fault?.kind === "wrongLength" ? fault.extraBytes : 0;
    outgoing.writeHead(partial === null ? 200 : 206, {
      ...(etag === "" ? {} : { etag }),
      ...(fault?.kind === "chunked" ? {} : { "content-length": slice.length + extra }),
      ...(partial === null
        ? {}
        : { "content-range": `bytes ${start}-${Math.min(end, body.length) - 1}/${body.length}` }),
      ...reply.headers,
      ...(fault?.kind === "headers" ? fault.headers : {}),
    });
    if (request.method === "HEAD") return void outgoing.end();
    await this.#sendBody(outgoing, slice, fault);
  }

  async #sendBody(outgoing: ServerResponse, slice: Buffer, fault: Fault | undefined): Promise<void> {
    if (fault?.kind === "stall") return outgoing.flushHeaders();
    if (fault?.kind === "hold") {
      outgoing.flushHeaders();
      await fault.until;
    }
    if (fault?.kind === "cut") {
      const some = slice.subarray(0, fault.afterBytes);
      this.bytesServed += some.length;
      outgoing.write(some, () => outgoing.destroy());
      return;
    }
    const { bytesPerSecond } = this.#options;
    if (bytesPerSecond !== undefined) return this.#sendSlowly(outgoing, slice, bytesPerSecond);
    this.bytesServed += slice.length;
    const extra = fault?.kind === "wrongLength" ? fault.extraBytes : 0;
    // Node would refuse a body that is not as long as promised; the socket does not.
    if (extra === 0) outgoing.end(slice);
    else {
      outgoing.flushHeaders();
      outgoing.socket?.end(slice);
    }
  }

  async #sendSlowly(outgoing: ServerResponse, slice: Buffer, bytesPerSecond: number): Promise<void> {
    const pauseMs = 20;
    const step = Math.max(1, Math.round((bytesPerSecond * pauseMs) / 1_000));
    for (let at = 0; at < slice.length && !outgoing.destroyed; at += step) {
      const part = slice.subarray(at, at + step);
      this.bytesServed += part.length;
      outgoing.write(part);
      await sleep(pauseMs);
    }
    outgoing.end();
  }
}

async function seen(incoming: IncomingMessage): Promise<SeenRequest> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming as AsyncIterable<Buffer>) chunks.push(chunk);
  const { pathname, searchParams } = new URL(incoming.url ?? "/", "http://server");
  const { headers, method = "GET" } = incoming;
  // Azure's client has a header of its own for ranges.
  const asked = /^bytes=(\d+)-(\d+)$/.exec(String(headers["x-ms-range"] ?? headers.range ?? ""));
  return {
    method,
    path: decodeURIComponent(pathname),
    query: searchParams,
    headers,
    body: Buffer.concat(chunks).toString("utf8"),
    range: asked === null ? null : [Number(asked[1]), Number(asked[2]) + 1],
  };
}

/** Bytes that are different at each place, so that a range put in the wrong place shows. */
export function patternedBytes(length: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let state = seed >>> 0 || 1;
  for (let at = 0; at < length; at += 1) {
    // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[at] = state & 0xff;
  }
  return bytes;
}

/** What bytes hash to, in hexadecimal digits. */
export function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}
