import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from "node:http";
import { createServer as createTlsServer, type Server as TlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { getRequestListener, type HttpBindings } from "@hono/node-server";
import type { Hono } from "hono";
import { PenstockError } from "../contracts/errors.ts";
import type { Logger } from "./log.ts";
import { expectProxyHeaders, type ProxyProtocol } from "./proxy-protocol.ts";
import { followTls, readTls, type TlsFiles } from "./tls.ts";

/** What a Hono app of ours sees of Node: the raw request and response. */
export interface NodeEnv {
  Bindings: HttpBindings;
}

/** Where to listen. Port 0 takes a free one. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** What a client may cost before anything of its request is looked at. */
export interface HttpLimits {
  /** The request line and all headers together; more is answered with 431. */
  readonly maxHeaderBytes: number;
  /** More headers than this are answered with 431. Below 2,000, above which Node leaves headers out without a word. */
  readonly maxHeaders: number;
  /** From the start of a connection or request to the end of its headers; then 408. */
  readonly headersTimeoutMs: number;
  /** From the start of a request to the end of its body; then 408. A large upload over a slow line must fit. */
  readonly requestTimeoutMs: number;
  /** How long a connection stays open between requests. Above the 60 s after which load balancers close theirs. */
  readonly keepAliveTimeoutMs: number;
  /** Connections above this are closed at once. */
  readonly maxConnections: number;
}

export const httpLimits: HttpLimits = {
  maxHeaderBytes: 16_384,
  maxHeaders: 100,
  headersTimeoutMs: 20_000,
  requestTimeoutMs: 300_000,
  keepAliveTimeoutMs: 75_000,
  maxConnections: 50_000,
};

export interface ServeOptions {
  readonly limits?: Partial<HttpLimits>;
  /**
   * Takes a request in front of the app, and answers it on Node's own response, errors included; null leaves it to the app.
   * For what is so hot that a web request and the app's routes would be felt.
   */
  readonly direct?: (incoming: IncomingMessage, outgoing: ServerResponse) => Promise<void> | null;
  /** The listener is behind a TCP load balancer that speaks the PROXY protocol; `peerAddress` tells what it said. */
  readonly proxyProtocol?: Pick<ProxyProtocol, "trusts">;
  /** Serves HTTPS, and follows the files. The log says when a new certificate is in use, or is not. */
  readonly tls?: { readonly files: TlsFiles; readonly log: Logger; readonly pollMs?: number };
}

/** A server that listens. */
export interface Listening {
  /** `http://host:port` or `https://host:port`, with the port that was really taken. */
  readonly url: string;
  readonly port: number;
  /** Stops accepting, waits up to `deadlineMs` for open requests, then cuts what is left. */
  close(deadlineMs: number): Promise<void>;
}

/** Serves `app` over HTTP or HTTPS. Throws `port_in_use` or `invalid_config` that says what to do. */
export async function serve(
  app: Hono<NodeEnv>,
  address: ListenAddress,
  options: ServeOptions = {},
): Promise<Listening> {
  const limits = { ...httpLimits, ...options.limits };
  // Our code never compares Request or Response by class, so Node's own globals stay as they are.
  const listener = getRequestListener(app.fetch, { overrideGlobalObjects: false });
  const { server, follower } = await createBounded(limits, options.tls);
  server.on("request", (incoming, outgoing) => {
    if (hasTooManyHeaders(incoming, limits)) return refuseHeaders(outgoing);
    // Taken now: a request that is destroyed before its end loses its socket.
    const { socket } = incoming;
    outgoing.on("finish", () => discardRest(incoming, socket));
    const answering = options.direct?.(incoming, outgoing) ?? null;
    if (answering === null) void listener(incoming, outgoing);
    else answering.catch(() => outgoing.destroy());
  });
  if (options.proxyProtocol !== undefined) {
    expectProxyHeaders(server, { ...options.proxyProtocol, timeoutMs: limits.headersTimeoutMs });
  }
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  await listen(server, address);
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  const scheme = options.tls === undefined ? "http" : "https";
  return {
    url: `${scheme}://${host}:${port}`,
    port,
    async close(deadlineMs) {
      follower?.[Symbol.dispose]();
      await closeServer(server, sockets, deadlineMs);
    },
  };
}

interface BoundedServer {
  readonly server: Server | TlsServer;
  readonly follower?: Disposable;
}

async function createBounded(limits: HttpLimits, tls: ServeOptions["tls"]): Promise<BoundedServer> {
  const options: ServerOptions = {
    maxHeaderSize: limits.maxHeaderBytes,
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    // By TCP, so that a request that is silent for long stays known: AWS's load balancer forgets a connection after 350 s.
    keepAlive: true,
    keepAliveInitialDelay: 60_000,
    // Node looks for requests that take too long only this often.
    connectionsCheckingInterval: Math.min(1_000, limits.headersTimeoutMs / 4),
    requireHostHeader: true,
    insecureHTTPParser: false,
  };
  const bound = <Each extends Server | TlsServer>(server: Each): Each => {
    server.maxConnections = limits.maxConnections;
    return server;
  };
  if (tls === undefined) return { server: bound(createServer(options)) };
  const current = await readTls(tls.files);
  const needsClientCertificate = current.ca !== undefined;
  const server = createTlsServer({
    ...options,
    ...current,
    requestCert: needsClientCertificate,
    rejectUnauthorized: needsClientCertificate,
    handshakeTimeout: limits.headersTimeoutMs,
  });
  return { server: bound(server), follower: followTls(server, tls.files, { ...tls, current }) };
}

async function listen(server: Server, { host, port }: ListenAddress): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen({ host, port }, resolve);
  try {
    await promise;
  } catch (cause) {
    throw listenError(cause, { host, port });
  } finally {
    server.off("error", reject);
  }
}

function listenError(cause: unknown, { host, port }: ListenAddress): PenstockError {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  if (code === "EADDRINUSE") {
    return new PenstockError(
      "port_in_use",
      `Port ${port} on ${host} is in use. Stop what listens there, or choose another port with --port.`,
      { cause },
    );
  }
  if (code === "EACCES") {
    return new PenstockError("invalid_config", `Port ${port} needs privileges. Choose one above 1023 with --port.`, {
      cause,
    });
  }
  return new PenstockError("invalid_config", `Cannot listen on ${host}:${port} (${String(code)}). Check --host.`, {
    cause,
  });
}

async function closeServer(server: Server, sockets: ReadonlySet<Socket>, deadlineMs: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.close(() => resolve());
  // A connection becomes idle when its last stream ends; closing it then keeps a client's keep-alive from delaying us.
  const idle = setInterval(() => server.closeIdleConnections(), 20);
  // Node's closeAllConnections knows none that is still in its TLS handshake.
  const cut = setTimeout(() => sockets.forEach((socket) => socket.destroy()), deadlineMs);
  await promise;
  clearInterval(idle);
  clearTimeout(cut);
}

function hasTooManyHeaders({ rawHeaders }: IncomingMessage, { maxHeaders }: HttpLimits): boolean {
  return rawHeaders.length / 2 > maxHeaders;
}

function refuseHeaders(outgoing: ServerResponse): void {
  outgoing.writeHead(431, { connection: "close" }).end();
}

/** Once a request is answered, this much of a body that nobody read is thrown away, so that the connection can go on. */
const discardBytes = 1_048_576;
const discardMs = 500;

/**
 * Takes the rest of a body that was answered early, as one that is too large is. A client that goes on sending gets the
 * connection closed: our side first, so that it can still read the answer, then all of it.
 */
function discardRest(incoming: IncomingMessage, socket: Socket): void {
  if (incoming.complete || socket.destroyed) return;
  const end = (): void => {
    if (incoming.complete || socket.destroyed) return;
    socket.end();
    socket.pause();
    setTimeout(() => socket.destroy(), discardMs).unref();
  };
  const timer = setTimeout(end, discardMs).unref();
  let discarded = 0;
  // Node itself drops the body of a request that was answered, so that only the socket still tells how much comes.
  socket.on("data", function count(chunk: Buffer): void {
    discarded += chunk.length;
    if (incoming.complete) {
      clearTimeout(timer);
      socket.off("data", count);
    } else if (discarded > discardBytes) end();
  });
}

export type { IncomingMessage, ServerResponse };
