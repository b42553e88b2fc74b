import { setTimeout as delay } from "node:timers/promises";
import { Hono } from "hono";
import { describe, expect, it } from "vitest";
import { onError, readBody } from "../../runtime/lib/http.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { serve, type HttpLimits, type NodeEnv } from "../../runtime/lib/serve.ts";
import { rawConnection, statusesIn } from "./raw-http.ts";

const mebibyte = 1_048_576;

/** A server that reads bodies up to 1 MiB and answers their length. It remembers what reached the app. */
async function echo(limits: Partial<HttpLimits> = {}) {
  const seen: string[] = [];
  const app = new Hono<NodeEnv>();
  app.onError(onError(createLog("test", "silent")));
  app.post("/echo", async (c) => {
    seen.push(c.req.path);
    return c.json({ bytes: (await readBody(c.env.incoming, mebibyte)).length });
  });
  app.post("/deaf", (c) => c.text("not interested"));
  app.all("*", (c) => {
    seen.push(c.req.path);
    return c.text("ok");
  });
  const listening = await serve(app, { host: "127.0.0.1", port: 0 }, { limits });
  return { ...listening, seen, [Symbol.asyncDispose]: () => listening.close(0) };
}

const post = (headers: string, body = "") => `POST /echo HTTP/1.1\r\nHost: a\r\n${headers}\r\n${body}`;
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

describe("request smuggling", () => {
  it.each([
    ["content-length and chunks", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", `0\r\n\r\n${smuggled}`)],
    ["chunks and content-length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", `0\r\n\r\n${smuggled}`)],
    ["two content-lengths", post("Content-Length: 0\r\nContent-Length: 5\r\n", smuggled)],
    ["two equal content-lengths", post("Content-Length: 5\r\nContent-Length: 5\r\n", smuggled)],
    ["a list of content-lengths", post("Content-Length: 0, 5\r\n", smuggled)],
    ["a signed content-length", post("Content-Length: +0\r\n", smuggled)],
    ["a negative content-length", post("Content-Length: -1\r\n", smuggled)],
    ["a hexadecimal content-length", post("Content-Length: 0x0\r\n", smuggled)],
    ["a content-length beyond all numbers", post("Content-Length: 99999999999999999999999\r\n", smuggled)],
    ["a space before the colon", post("Content-Length : 0\r\n", smuggled)],
    ["chunked that is not last", post("Transfer-Encoding: chunked, identity\r\n", `0\r\n\r\n${smuggled}`)],
    ["chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", `0\r\n\r\n${smuggled}`)],
    ["a made-up encoding", post("Transfer-Encoding: xchunked\r\n", `0\r\n\r\n${smuggled}`)],
    ["a folded header", post("X-A: b\r\n c\r\nTransfer-Encoding:\r\n chunked\r\n", `0\r\n\r\n${smuggled}`)],
    ["bare line feeds", `POST /echo HTTP/1.1\nHost: a\nContent-Length: 0\n\n${smuggled}`],
    ["a bare carriage return", post("X-A: b\rContent-Length: 5\r\n", smuggled)],
    ["a null in a header", post("X-A: b\0c\r\n", smuggled)],
    ["a chunk size with a sign", post("Transfer-Encoding: chunked\r\n", `-1\r\n\r\n${smuggled}`)],
    ["a chunk size beyond all numbers", post("Transfer-Encoding: chunked\r\n", `fffffffffffffffff\r\n${smuggled}`)],
    ["a chunk that ends in a bare line feed", post("Transfer-Encoding: chunked\r\n", `1\na\n0\n\n${smuggled}`)],
    ["a chunk longer than its size", post("Transfer-Encoding: chunked\r\n", `1\r\nabc\r\n0\r\n\r\n${smuggled}`)],
    ["no host", "GET /echo HTTP/1.1\r\n\r\n"],
    ["a version that does not exist", "GET /echo HTTP/9.9\r\nHost: a\r\n\r\n"],
    ["another protocol", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
  ])("with %s ends in 400 and the end of the connection", async (_name, bytes) => {
    await using server = await echo();
    using client = await rawConnection(server.port);
    client.send(Buffer.from(bytes, "latin1"));
    const { received } = await client.closed;
    // Where the head was sound an answer to it may be out; the rest must not count as a request.
    expect(statusesIn(received).at(-1)).toBe(400);
    expect(server.seen).not.toContain("/smuggled");
  });

  it("with two hosts reaches no app twice", async () => {
    await using server = await echo();
    using client = await rawConnection(server.port);
    client.send("GET /one HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    await expect.poll(() => statusesIn(client.received).length).toBe(1);
    expect(server.seen.length).toBeLessThanOrEqual(1);
  });

  it("is not what pipelining is: both requests are answered, in order", async () => {
    await using server = await echo();
    using client = await rawConnection(server.port);
    client.send(
      `${post("Content-Length: 3\r\n", "abc")}${post("Transfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n")}`,
    );
    await expect.poll(() => statusesIn(client.received)).toEqual([200, 200]);
    expect(client.received.indexOf('"bytes":3')).toBeLessThan(client.received.indexOf('"bytes":2'));
  });
});

describe("content-length that lies", () => {
  it("too long: the request ends with the connection, and nothing of it is kept", async () => {
    await using server = await echo();
    using client = await rawConnection(server.port);
    client.send(post("Content-Length: 1000\r\n", "short"));
    await expect.poll(() => server.seen).toEqual(["/echo"]);
    client.socket.end();
    const { received } = await client.closed;
    expect(received).not.toContain("bytes");
  });

  it("too long and silent: 408 when the time for a request is over", async () => {
    await using server = await echo({ requestTimeoutMs: 300, headersTimeoutMs: 200 });
    using client = await rawConnection(server.port);
    client.send(post("Content-Length: 1000\r\n", "short"));
    const { received } = await client.closed;
    expect(statusesIn(received)).toEqual([408]);
  });

  it("too short: what follows is a request of its own, and refused as none", async () => {
    await using server = await echo();
    using client = await rawConnection(server.port);
    client.send(post("Content-Length: 3\r\n", "abcdefghi"));
    const { received } = await client.closed;
    expect(received).not.toContain('"bytes":9');
    expect(statusesIn(received).at(-1)).toBe(400);
  });
});

describe("slow clients", () => {
  it("that send nothing are closed", async () => {
    await using server = await echo({ headersTimeoutMs: 200 });
    using client = await rawConnection(server.port);
    const { received } = await client.closed;
    expect(statusesIn(received)).toEqual([408]);
  });

  it("that trickle a header get 408, however often they send", async () => {
    await using server = await echo({ headersTimeoutMs: 300 });
    using client = await rawConnection(server.port);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    const trickle = setInterval(() => client.send("X-A: b\r\n"), 20);
    const { received } = await client.closed;
    clearInterval(trickle);
    expect(statusesIn(received)).toEqual([408]);
    expect(server.seen).toEqual([]);
  });

  it("that trickle a body get 408, however often they send", async () => {
    await using server = await echo({ headersTimeoutMs: 200, requestTimeoutMs: 500 });
    using client = await rawConnection(server.port);
    client.send(post("Content-Length: 100000\r\n"));
    const trickle = setInterval(() => client.send("x"), 20);
    const { received } = await client.closed;
    clearInterval(trickle);
    expect(statusesIn(received)).toEqual([408]);
  });

  it("that wait between requests are let go, those with a long answer are not", async () => {
    const app = new Hono<NodeEnv>();
    app.get("/slow", (c) => delay(1_500).then(() => c.text("done")));
    const limits = { headersTimeoutMs: 200, requestTimeoutMs: 300, keepAliveTimeoutMs: 100 };
    const listening = await serve(app, { host: "127.0.0.1", port: 0 }, { limits });
    using client = await rawConnection(listening.port);
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    const { received, isReset } = await client.closed;
    expect(received).toContain("done");
    expect(isReset).toBe(false);
    await listening.close(0);
  });
});

describe("large requests", () => {
  it("a header of 1 MB gets 431", async () => {
    await using server = await echo();
    using client = await rawConnection(server.port);
    client.send(`GET / HTTP/1.1\r\nHost: a\r\nX-A: ${"a".repeat(mebibyte)}\r\n\r\n`);
    const { received } = await client.closed;
    expect(statusesIn(received)).toEqual([431]);
    expect(server.seen).toEqual([]);
  });

  it("a path of 1 MB gets 431", async () => {
    await using server = await echo();
    using client = await rawConnection(server.port);
    client.send(`GET /${"a".repeat(mebibyte)} HTTP/1.1\r\nHost: a\r\n\r\n`);
    const { received } = await client.closed;
    expect(statusesIn(received)).toEqual([431]);
  });

  it("too many headers get 431 instead of being left out", async () => {
    await using server = await echo({ maxHeaders: 100 });
    using few = await rawConnection(server.port);
    few.send(`GET /few HTTP/1.1\r\nHost: a\r\n${"a:b\r\n".repeat(99)}\r\n`);
    await expect.poll(() => statusesIn(few.received)).toEqual([200]);
    using many = await rawConnection(server.port);
    many.send(`GET /many HTTP/1.1\r\nHost: a\r\n${"a:b\r\n".repeat(100)}\r\n`);
    const { received } = await many.closed;
    expect(statusesIn(received)).toEqual([431]);
    expect(server.seen).toEqual(["/few"]);
  });

  it.each([
    ["with a content-length", "Content-Length: 104857600\r\n", (chunk: Buffer) => chunk],
    ["that nobody reads", "Content-Length: 104857600\r\n", (chunk: Buffer) => chunk],
    [
      "in chunks",
      "Transfer-Encoding: chunked\r\n",
      (chunk: Buffer) => Buffer.concat([Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from("\r\n")]),
    ],
  ])("100 MB %s is answered early and not taken in", async (name, header, frame) => {
    await using server = await echo();
    using client = await rawConnection(server.port);
    const path = name === "that nobody reads" ? "/deaf" : "/echo";
    client.send(`POST ${path} HTTP/1.1\r\nHost: a\r\n${header}\r\n`);
    const chunk = frame(Buffer.alloc(65_536, "x"));
    let sent = 0;
    const pump = (): void => {
      while (sent < 100 * mebibyte && !client.socket.destroyed) {
        sent += chunk.length;
        if (!client.socket.write(chunk)) return void client.socket.once("drain", pump);
      }
    };
    pump();
    const { received } = await client.closed;
    expect(statusesIn(received)).toEqual([path === "/deaf" ? 200 : 413]);
    // What the kernel buffers on both sides comes on top of what is thrown away.
    expect(sent).toBeLessThan(20 * mebibyte);
  });

  it("a small body that was not read costs no connection", async () => {
    await using server = await echo();
    using client = await rawConnection(server.port);
    client.send(`POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n`);
    await expect.poll(() => statusesIn(client.received)).toEqual([200]);
    client.send("x".repeat(500_000));
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    await expect.poll(() => statusesIn(client.received)).toEqual([200, 200]);
  });
});

describe("connections", () => {
  it("above the limit are closed, and others go on", async () => {
    await using server = await echo({ maxConnections: 2 });
    using first = await rawConnection(server.port);
    using second = await rawConnection(server.port);
    using third = await rawConnection(server.port);
    await third.closed;
    expect(third.received).toBe("");
    for (const client of [first, second]) {
      client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
      await expect.poll(() => statusesIn(client.received)).toEqual([200]);
    }
  });

  it("that never became a request do not hold up a stop beyond its deadline", async () => {
    const server = await echo();
    using client = await rawConnection(server.port);
    client.send("GET / HT");
    const started = performance.now();
    await server.close(100);
    await client.closed;
    expect(performance.now() - started).toBeLessThan(5_000);
  });
});
