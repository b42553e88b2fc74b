import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { Reply } from "../../runtime/lib/reply.ts";

/** What a client gets of a reply. */
async function got(write: (reply: Reply, response: ServerResponse) => void): Promise<Response> {
  const server = createServer((_, response) => write(new Reply(response), response)).listen(0, "127.0.0.1");
  onTestFinished(() => void server.close());
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  return fetch(`http://127.0.0.1:${port}`);
}

test("headers that were set leave with those of the head, which win", async () => {
  const response = await got((reply) => {
    reply.setHeader("x-a", "1");
    reply.setHeader("x-b", "2");
    reply.setHeader("x-a", "3");
    expect(reply.headersSent).toBe(false);
    reply.writeHead(201, ["x-b", "4", "x-c", "5, 6", "content-length", "2"]);
    expect(reply.headersSent).toBe(true);
    reply.end("ok");
  });
  expect(response.status).toBe(201);
  const named = ["x-a", "x-b", "x-c", "content-length"].map((name) => response.headers.get(name));
  expect(named).toEqual(["3", "4", "5, 6", "2"]);
  expect(await response.text()).toBe("ok");
});

test("a header that somebody sets on Node's own response is kept too", async () => {
  const response = await got((reply, own) => {
    own.setHeader("connection", "close");
    reply.setHeader("x-a", "1");
    reply.writeHead(200);
    reply.end();
  });
  expect([response.headers.get("connection"), response.headers.get("x-a")]).toEqual(["close", "1"]);
});

test("a value that would break out of its line is refused", async () => {
  const response = await got((reply) => {
    reply.setHeader("x-a", "b\r\nx-c: d");
    expect(() => reply.writeHead(200)).toThrow("Invalid character");
    reply.end();
  });
  expect(response.headers.get("x-c")).toBeNull();
});
