import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { MiddlewareHandler, NotFoundHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import { PenstockError, toPenstockError } from "../contracts/errors.ts";
import type { Logger } from "./log.ts";
import type { Outlet } from "./outlet.ts";
import type { NodeEnv } from "./serve.ts";

/** Any thrown thing as OpenAI's JSON answer, or as `bodyOf` has it; what is not in the table is logged with its stack. */
export function errorResponse(
  thrown: unknown,
  log: Logger,
  bodyOf: (error: PenstockError) => object = (error) => error.toBody(),
): Response {
  const error = thrown instanceof HTTPException ? fromHttpException(thrown) : toPenstockError(thrown);
  logError(error, log);
  return new Response(JSON.stringify(bodyOf(error)), { status: error.kind.status, headers: errorHeaders(error) });
}

/** As `errorResponse`, on Node's own response, of which nothing has left. */
export function sendError(
  outgoing: Outlet,
  { error, body, log }: { readonly error: PenstockError; readonly body: object; readonly log: Logger },
): void {
  logError(error, log);
  outgoing.writeHead(error.kind.status, Object.entries(errorHeaders(error)).flat());
  outgoing.end(JSON.stringify(body));
}

function logError(error: PenstockError, log: Logger): void {
  if (error.code === "internal_error") log.error({ err: error.cause }, "unexpected error");
  else log.debug({ err: error }, "request refused");
}

function errorHeaders({ retryAfterSeconds }: PenstockError): Record<string, string> {
  const headers = { "content-type": "application/json" };
  return retryAfterSeconds === undefined
    ? headers
    : { ...headers, "retry-after": String(Math.ceil(retryAfterSeconds)) };
}

function fromHttpException(error: HTTPException): PenstockError {
  if (error.status === 404) return new PenstockError("not_found", "There is nothing at this path.", { cause: error });
  return toPenstockError(error.cause ?? error);
}

/** `app.onError` for a service. */
export function onError(log: Logger): (thrown: Error) => Response {
  return (thrown) => errorResponse(thrown, log);
}

/** `app.notFound` for a service. */
export const notFound: NotFoundHandler<NodeEnv> = (c) => {
  throw new PenstockError("not_found", `There is nothing at ${c.req.method} ${c.req.path}.`);
};

/** Lets only `Authorization: Bearer <secret>` pass. The comparison takes the same time for every wrong secret. */
export function requireBearer(secret: string): MiddlewareHandler<NodeEnv> {
  const expected = digest(secret);
  return async function bearer(c, next) {
    const given = /^Bearer (.+)$/i.exec(c.req.header("authorization") ?? "")?.[1];
    if (given === undefined) {
      throw new PenstockError("invalid_api_key", "Send your key as `Authorization: Bearer <key>`.");
    }
    if (!timingSafeEqual(digest(given), expected)) {
      throw new PenstockError("invalid_api_key", "This key is not valid here.");
    }
    await next();
  };
}

function digest(secret: string): Buffer {
  return createHash("sha256").update(secret).digest();
}

/** Where the bytes of a body go. */
export interface Sink<Body> {
  add(chunk: Buffer): void;
  /** The body is complete. */
  end(): Body;
}

/** The whole body of a request, at most `maxBytes`. Rejects with `body_too_large` or `client_closed`. */
export function readBody(incoming: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  return readInto(incoming, maxBytes, { add: (chunk) => chunks.push(chunk), end: () => Buffer.concat(chunks) });
}

/**
 * As `readBody`, into `sink`.
 * Read from the events of Node's own request: web streams cost a multiple of it, and an iterator of the request 5 µs.
 */
export function readInto<Body>(incoming: IncomingMessage, maxBytes: number, sink: Sink<Body>): Promise<Body> {
  const { promise, resolve, reject } = Promise.withResolvers<Body>();
  const tooLarge = (): void =>
    reject(new PenstockError("body_too_large", `The body is larger than the limit of ${maxBytes} bytes; send less.`));
  const left = (cause?: Error): void =>
    reject(new PenstockError("client_closed", "The client left before its request was complete.", { cause }));
  if (Number(incoming.headers["content-length"] ?? 0) > maxBytes) tooLarge();
  else if (incoming.destroyed) left();
  else {
    let size = 0;
    // `on` and not `once`, which wraps each listener: a request ends once by itself.
    incoming.on("data", (chunk: Buffer) => {
      size += chunk.length;
      // What is too much is read on and dropped, until the answer has left and the connection is closed.
      if (size <= maxBytes) sink.add(chunk);
      else tooLarge();
    });
    incoming.on("end", () => resolve(sink.end()));
    incoming.on("error", left);
    incoming.on("close", () => {
      if (!incoming.readableEnded) left();
    });
  }
  return promise;
}
