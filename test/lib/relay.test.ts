import { createServer, IncomingMessage, ServerResponse, type RequestListener } from "node:http";
import { Socket, type AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { anthropicErrorBody } from "../../runtime/contracts/anthropic.ts";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { Relay, type RelayRequest, type RelayResult, type RelayTap } from "../../runtime/lib/relay.ts";
import { Reply } from "../../runtime/lib/reply.ts";
import { rawConnection } from "./raw-http.ts";

/** A server on loopback that is gone at the end of its block. */
async function listen(onRequest: RequestListener): Promise<AsyncDisposable & { readonly url: string }> {
  const server = createServer(onRequest);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

type Outcome = RelayResult | PenstockError;

/** A server that relays each request to `upstream` with `extra`, and how the first of them ended. */
async function relaying(upstream: RequestListener, extra: Partial<RelayRequest>) {
  await using stack = new AsyncDisposableStack();
  const relay = new Relay({ keepAlive: true });
  stack.defer(() => relay.close());
  const engine = stack.use(await listen(upstream));
  const { promise: result, resolve } = Promise.withResolvers<Outcome>();
  const front = stack.use(
    await listen((_, outgoing) => {
      const timeouts = { firstByteTimeoutMs: 5_000, betweenBytesTimeoutMs: 5_000 };
      relay
        .relay(
          { origin: engine.url, path: "/", method: "POST", headers: [], body: null, ...timeouts, ...extra },
          outgoing,
        )
        .then(resolve, (error: PenstockError) => {
          outgoing.writeHead(error.kind.status).end(error.code);
          resolve(error);
        });
    }),
  );
  const parts = stack.move();
  return { url: front.url, result, [Symbol.asyncDispose]: () => parts.disposeAsync() };
}

/** Relays one request; answers what the client got and how the relay ended. */
async function through(upstream: RequestListener, extra: Partial<RelayRequest> = {}) {
  await using server = await relaying(upstream, extra);
  const response = await fetch(server.url);
  const text = await response.text();
  return { response, text, result: await server.result };
}

/** Notes what it sees, and puts brackets around it. */
function brackets(): RelayTap & { readonly calls: string[] } {
  const calls: string[] = [];
  return {
    calls,
    begin: (status, headers) => void calls.push(`${status} ${headers["content-type"] ?? ""}`),
    write: (chunk) => (chunk.toString() === "hidden" ? null : Buffer.from(`[${chunk.toString()}]`)),
    end: () => Buffer.from("."),
  };
}

test("a tap sees the answer begin and end, and the client gets what it lets through", async () => {
  const tap = brackets();
  const { text, result, response } = await through(
    (_, outgoing) => {
      outgoing.writeHead(200, { "content-type": "text/event-stream", "content-length": "10" });
      outgoing.write("hidden", () => setTimeout(() => outgoing.end("data"), 20));
    },
    { tap },
  );
  expect(text).toBe("[data].");
  expect(tap.calls).toEqual(["200 text/event-stream"]);
  expect(response.headers.get("content-length")).toBeNull();
  expect(result).toMatchObject({ outcome: "complete", bytes: 10 });
});

test("a tap that fails at the end cuts its own answer, and others of the same turn are sent", async () => {
  const tap: RelayTap = { ...brackets(), end: () => fail() };
  const fail = (): never => {
    throw new Error("a bug");
  };
  await using server = await relaying((_, outgoing) => void outgoing.end("data"), { tap });
  const cut = fetch(server.url).then((response) => response.text());
  const { text, result } = await through((_, outgoing) => void outgoing.end("data"));
  await expect(cut).rejects.toThrow();
  expect(await server.result).toMatchObject({ outcome: "cut", status: 200 });
  expect([text, result]).toMatchObject(["data", { outcome: "complete" }]);
});

test("a tap sees no refusal that the caller may retry", async () => {
  const tap = brackets();
  const { result } = await through((_, outgoing) => void outgoing.writeHead(503).end("{}"), { tap });
  expect(result).toBeInstanceOf(PenstockError);
  expect(tap.calls).toEqual([]);
});

test("a stream that breaks ends with an error in the client's own shape", async () => {
  const { text, result } = await through(
    (incoming, outgoing) => {
      outgoing.writeHead(200, { "content-type": "text/event-stream" });
      outgoing.write("data: 1\n\n", () => incoming.socket.destroy());
    },
    { errorBody: anthropicErrorBody },
  );
  expect(text).toMatch(
    /^data: 1\n\nevent: error\ndata: \{"type":"error","error":\{"type":"api_error","message":".+"\}\}\n\n$/,
  );
  expect(result).toMatchObject({ outcome: "cut" });
});

test("a body that fails on its way says why", async () => {
  const body = Readable.from(
    (async function* () {
      yield Buffer.from("begin");
      throw new PenstockError("body_too_large", "Too large.");
    })(),
    { objectMode: false },
  );
  const { response, text } = await through((incoming) => void incoming.resume(), { body });
  expect([response.status, text]).toEqual([413, "body_too_large"]);
});

test("a body that fails before anything of it was sent says why too", async () => {
  await using upstream = await listen((incoming) => void incoming.resume());
  const relay = new Relay({ keepAlive: true });
  const body = new Readable({ read: () => undefined });
  const outgoing = new Reply(new ServerResponse(new IncomingMessage(new Socket())));
  const timeouts = { firstByteTimeoutMs: 5_000, betweenBytesTimeoutMs: 5_000 };
  const request = { origin: upstream.url, path: "/", body, ...timeouts };
  const result = relay.relay({ ...request, method: "POST", headers: [] }, outgoing);
  body.destroy(new PenstockError("body_too_large", "Too large."));
  await expect(result).rejects.toMatchObject({ code: "body_too_large" });
  await relay.close();
});

test("a slow upstream holds back who writes to it", async () => {
  const size = 64 * 1024;
  let read = 0;
  const { promise: paused, resolve: pause } = Promise.withResolvers<void>();
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const body = Readable.from(
    (async function* () {
      for (let n = 0; n < 1_000; n += 1) {
        read += size;
        yield Buffer.alloc(size);
      }
    })(),
    { objectMode: false },
  );
  const answered = through(
    (incoming, outgoing) => {
      pause();
      incoming.on("end", () => outgoing.end("ok"));
      void released.then(() => incoming.resume());
    },
    { body },
  );
  await paused;
  // What loopback's buffers hold is a few megabytes; when they are full nothing more is read.
  let before = -1;
  await expect.poll(() => before === (before = read), { interval: 200 }).toBe(true);
  expect(read).toBeLessThan(32 * 1024 * 1024);
  release();
  expect((await answered).text).toBe("ok");
  expect(read).toBe(1_000 * size);
});

test("a client that reads nothing is cut off, and with it the engine's request", async () => {
  const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
  await using server = await relaying(
    (incoming, outgoing) => {
      incoming.socket.once("close", () => stop());
      outgoing.writeHead(200, { "content-type": "text/event-stream" });
      const fill = (): void => {
        while (outgoing.write(Buffer.alloc(65_536)));
        outgoing.once("drain", fill);
      };
      fill();
    },
    { betweenBytesTimeoutMs: 300 },
  );
  using client = await rawConnection(Number(new URL(server.url).port));
  client.socket.pause();
  client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  expect(await server.result).toMatchObject({ outcome: "client_left", status: 200 });
  await stopped;
});

test("a client that reads slowly, but reads, gets everything", async () => {
  const size = 8 * 2 ** 20;
  const extra = { betweenBytesTimeoutMs: 2_000 };
  await using server = await relaying((_, outgoing) => void outgoing.end(Buffer.alloc(size)), extra);
  const { body } = await fetch(server.url);
  let read = 0;
  for await (const chunk of body ?? []) {
    read += (chunk as Uint8Array).length;
    await delay(5);
  }
  expect(read).toBe(size);
  expect(await server.result).toMatchObject({ outcome: "complete", bytes: size });
});
