import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createAdaptorServer, type HttpBindings } from "@hono/node-server";
import type { Hono } from "hono";
import { PenstockError } from "../contracts/errors.ts";

/** What a Hono app of ours sees of Node: the raw request and response. */
export interface NodeEnv {
  Bindings: HttpBindings;
}

/** Where to listen. Port 0 takes a free one. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** A server that listens. */
export interface Listening {
  /** `http://host:port`, with the port that was really taken. */
  readonly url: string;
  readonly port: number;
  /** Stops accepting, waits up to `deadlineMs` for open requests, then cuts what is left. */
  close(deadlineMs: number): Promise<void>;
}

/** Serves `app` over HTTP. Throws `port_in_use` or `invalid_config` that says what to do. */
export async function serve(app: Hono<NodeEnv>, address: ListenAddress): Promise<Listening> {
  // Our code never compares Request or Response by class, so Node's own globals stay as they are.
  const server = createAdaptorServer({ fetch: app.fetch, overrideGlobalObjects: false }) as Server; // http, not http2
  await listen(server, address);
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return { url: `http://${host}:${port}`, port, close: (deadlineMs) => closeServer(server, deadlineMs) };
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

async function closeServer(server: Server, deadlineMs: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.close(() => resolve());
  // A connection becomes idle when its last stream ends; closing it then keeps a client's keep-alive from delaying us.
  const idle = setInterval(() => server.closeIdleConnections(), 20);
  const cut = setTimeout(() => server.closeAllConnections(), deadlineMs);
  await promise;
  clearInterval(idle);
  clearTimeout(cut);
}

export type { IncomingMessage, ServerResponse };
