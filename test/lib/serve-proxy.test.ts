import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import * as fc from "fast-check";
import { Hono } from "hono";
import { describe, expect, it } from "vitest";
import { createLog } from "../../runtime/lib/log.ts";
import { parseProxyHeader, peerAddress } from "../../runtime/lib/proxy-protocol.ts";
import { serve, type NodeEnv, type ServeOptions } from "../../runtime/lib/serve.ts";
import { temporaryFolder } from "../support/folders.ts";
import { certificateAuthority } from "./certificates.ts";
import { rawConnection, statusesIn } from "./raw-http.ts";

const get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const text = "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n";
const trusts = (address: string) => address === "127.0.0.1";

/** A version 2 header. */
function binary(command: number, family: number, body: readonly number[]): Buffer {
  const head = Buffer.from("\r\n\r\n\0\r\nQUIT\n\0\0\0\0", "latin1");
  head.writeUInt8(command, 12);
  head.writeUInt8(family, 13);
  head.writeUInt16BE(body.length, 14);
  return Buffer.concat([head, Buffer.from(body)]);
}

const ports = [0, 1, 0, 2];
const ipv4 = [192, 0, 2, 7, 10, 0, 0, 1, ...ports];
const ipv6 = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, ...Array<number>(16).fill(1), ...ports];

async function addressServer(options: ServeOptions = { proxyProtocol: { trusts } }) {
  const app = new Hono<NodeEnv>();
  app.all("/", (c) => c.text(`<${peerAddress(c.env.incoming.socket) ?? "nobody"}>`));
  const listening = await serve(app, { host: "127.0.0.1", port: 0 }, options);
  return { ...listening, [Symbol.asyncDispose]: () => listening.close(0) };
}

describe("a PROXY header", () => {
  it.each([
    ["version 1", text, "192.0.2.7"],
    ["version 1 with IPv6", "PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7"],
    ["version 1 that knows nothing", "PROXY UNKNOWN\r\n", "127.0.0.1"],
    ["version 2", binary(0x21, 0x11, ipv4), "192.0.2.7"],
    ["version 2 with IPv6", binary(0x21, 0x21, ipv6), "2001:db8:0:0:0:0:0:7"],
    ["version 2 with more after the addresses", binary(0x21, 0x11, [...ipv4, 4, 0, 1, 0]), "192.0.2.7"],
    ["version 2 of a health check", binary(0x20, 0, []), "127.0.0.1"],
  ])("of %s says who asks, for every request of the connection", async (_name, header, expected) => {
    await using server = await addressServer();
    using client = await rawConnection(server.port);
    client.send(Buffer.concat([Buffer.from(header), Buffer.from(get)]));
    await expect.poll(() => client.received).toContain(`<${expected}>`);
    client.send(get);
    await expect.poll(() => statusesIn(client.received)).toEqual([200, 200]);
    expect(client.received.split(`<${expected}>`)).toHaveLength(3);
  });

  it("may come byte by byte, and so may what follows", async () => {
    await using server = await addressServer();
    using client = await rawConnection(server.port);
    client.socket.setNoDelay(true);
    for (const byte of Buffer.concat([binary(0x21, 0x11, ipv4), Buffer.from(get)])) {
      client.send(Buffer.of(byte));
      await new Promise(setImmediate);
    }
    await expect.poll(() => client.received).toContain("<192.0.2.7>");
  });

  it.each([
    ["none", get],
    ["an address that is none", "PROXY TCP4 300.0.0.1 10.0.0.1 1 2\r\n"],
    ["no end", `PROXY TCP4 ${"1".repeat(200)}`],
    ["an unknown version", binary(0x31, 0x11, ipv4)],
    ["too few bytes", binary(0x21, 0x11, ipv4.slice(0, 8))],
    ["a unix socket", binary(0x21, 0x31, Array<number>(216).fill(0))],
    ["too many bytes", binary(0x21, 0x11, [...ipv4, ...Array<number>(5_000).fill(0)])],
  ])("with %s ends the connection without an answer", async (_name, bytes) => {
    await using server = await addressServer();
    using client = await rawConnection(server.port);
    client.send(Buffer.from(bytes));
    expect((await client.closed).received).toBe("");
  });

  it("that does not come in time ends the connection, as does one that is cut off", async () => {
    await using server = await addressServer({ proxyProtocol: { trusts }, limits: { headersTimeoutMs: 200 } });
    using silent = await rawConnection(server.port);
    using cut = await rawConnection(server.port);
    cut.send("PROXY TC");
    cut.socket.end();
    expect((await silent.closed).received).toBe("");
    expect((await cut.closed).received).toBe("");
  });

  it("is taken from load balancers of ours alone", async () => {
    await using strict = await addressServer({ proxyProtocol: { trusts: () => false } });
    using client = await rawConnection(strict.port);
    client.send(`${text}${get}`);
    expect((await client.closed).received).toBe("");
    await using plain = await addressServer({});
    using other = await rawConnection(plain.port);
    other.send(`${text}${get}`);
    expect(statusesIn((await other.closed).received)).toEqual([400]);
  });

  it("comes before TLS", async () => {
    await using folder = await temporaryFolder();
    const authority = certificateAuthority();
    const { cert, key } = authority.issue("server");
    const files = { certFile: join(folder.path, "tls.crt"), keyFile: join(folder.path, "tls.key") };
    await writeFile(files.certFile, cert);
    await writeFile(files.keyFile, key);
    const log = createLog("test", "silent");
    await using server = await addressServer({ proxyProtocol: { trusts }, tls: { files, log } });
    using raw = await rawConnection(server.port);
    raw.socket.removeAllListeners("data");
    raw.send(text);
    const secure = connectTls({ socket: raw.socket, ca: authority.cert, servername: "localhost" });
    let received = "";
    secure.on("data", (chunk) => (received += chunk.toString()));
    secure.write(get);
    await expect.poll(() => received).toContain("<192.0.2.7>");
    secure.destroy();
  });

  it("is read the same wherever it is cut", () => {
    const headers = [Buffer.from(text), binary(0x21, 0x11, ipv4), binary(0x21, 0x21, ipv6)];
    fc.assert(
      fc.property(fc.constantFrom(...headers), fc.nat(), fc.uint8Array(), (header, at, after) => {
        const cut = at % header.length;
        expect(parseProxyHeader(header.subarray(0, cut)).kind).toBe("incomplete");
        expect(parseProxyHeader(Buffer.concat([header, after]))).toMatchObject({
          kind: "complete",
          length: header.length,
        });
      }),
    );
  });

  it("is told from anything else, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 13, maxLength: 300 }), (bytes) => {
        expect(parseProxyHeader(Buffer.from(bytes)).kind).toBe("invalid");
        expect(parseProxyHeader(Buffer.concat([binary(0x21, 0x11, []).subarray(0, 12), bytes])).kind).toBeOneOf([
          "invalid",
          "incomplete",
          "complete",
        ]);
      }),
    );
  });
});
