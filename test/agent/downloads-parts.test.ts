import { randomBytes } from "node:crypto";
import * as fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { combineCrc64, Crc64, crc64TableBytes, crc64Text } from "../../runtime/agent/downloads/direct/crc64.ts";
import { judge, parseHead } from "../../runtime/agent/downloads/direct/head.ts";
import { Width } from "../../runtime/agent/downloads/width.ts";

describe("response heads", () => {
  it.each([
    ['HTTP/1.1 206 Partial Content\r\nContent-Length: 5 \r\nETag:\t"x"', { "content-length": "5", etag: '"x"' }],
    ["HTTP/1.1 206\r\nX: a\r\nx: b", { x: "b" }],
    ["HTTP/1.1 206 \r\nContent-Length: 5\r\ncontent-length: 5", { "content-length": "5" }],
  ])("are read: %j", (text, headers) => {
    expect(parseHead(text)).toEqual({ status: 206, headers: new Map(Object.entries(headers)) });
  });

  it.each([
    "",
    "HTTP/1.0 206 OK",
    "HTTP/2 206",
    "HTTP/1.1 2060 OK",
    "HTTP/1.1 206 OK\n",
    "HTTP/1.1 206 OK\r\nno colon",
    "HTTP/1.1 206 OK\r\nspace : x",
    "HTTP/1.1 206 OK\r\nfolded: x\r\n more",
    "HTTP/1.1 206 OK\r\nbare: x\ny",
    "HTTP/1.1 206 OK\r\nnul: \0",
    "HTTP/1.1 206 OK\r\nContent-Length: 5\r\nContent-Length: 6",
    `HTTP/1.1 206 OK${"\r\nx: y".repeat(200)}`,
  ])("are refused: %j", (text) => {
    expect(parseHead(text)).toBeUndefined();
  });

  it("never throw, whatever comes", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 300 }), (text) => {
        const head = parseHead(`HTTP/1.1 206 OK\r\n${text}`);
        const expected = { start: 0, end: 1, sizeBytes: 1, etag: null };
        // A plain 206 to that takes both of these headers.
        const isPlain = head?.headers.get("content-range") === "bytes 0-0/1" && head.headers.has("content-length");
        expect(head !== undefined && judge(head, expected) === undefined).toBe(isPlain);
      }),
    );
  });
});

describe("answers", () => {
  const good = { "content-range": "bytes 10-19/100", "content-length": "10", etag: '"v"' };
  const verdict = (status: number, headers: Record<string, string>) =>
    judge({ status, headers: new Map(Object.entries(headers)) }, { start: 10, end: 20, sizeBytes: 100, etag: '"v"' });

  it.each<[string, [number, Record<string, string | undefined>], object]>([
    ["what was asked for", [206, good], { kind: "good" }],
    ["no ETag at all", [206, { ...good, etag: undefined }], { kind: "good" }],
    ["identity named", [206, { ...good, "content-encoding": "identity" }], { kind: "good" }],
    ["another ETag", [206, { ...good, etag: '"w"' }], { kind: "replaced" }],
    [
      "another Last-Modified for want of an ETag",
      [206, { ...good, etag: undefined, "last-modified": "x" }],
      { kind: "replaced" },
    ],
    ["another total", [206, { ...good, "content-range": "bytes 10-19/101" }], { kind: "replaced" }],
    ["412", [412, {}], { kind: "replaced" }],
    ["416", [416, {}], { kind: "replaced" }],
    ["another start", [206, { ...good, "content-range": "bytes 9-19/100" }], { kind: "broken" }],
    ["another end", [206, { ...good, "content-range": "bytes 10-20/100" }], { kind: "broken" }],
    ["no total", [206, { ...good, "content-range": "bytes 10-19/*" }], { kind: "unfit" }],
    ["a huge total", [206, { ...good, "content-range": `bytes 10-19/${"9".repeat(400)}` }], { kind: "unfit" }],
    ["another length", [206, { ...good, "content-length": "11" }], { kind: "unfit" }],
    ["no length", [206, { ...good, "content-length": undefined }], { kind: "unfit" }],
    ["chunks", [206, { ...good, "transfer-encoding": "chunked" }], { kind: "unfit" }],
    ["an encoding", [206, { ...good, "content-encoding": "gzip" }], { kind: "unfit" }],
    ["the whole file", [200, good], { kind: "unfit" }],
    ["an interim answer", [103, {}], { kind: "unfit" }],
    ["503 with Retry-After", [503, { "retry-after": "7" }], { kind: "status", status: 503, retryAfterSeconds: 7 }],
    ["a date", [503, { "retry-after": "Thu, 01 Jan 2026" }], { kind: "status", retryAfterSeconds: null }],
    ["a redirect", [302, { location: "http://elsewhere" }], { kind: "status", status: 302 }],
  ])("are judged: %s", (_, [status, headers], outcome) => {
    const given = Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== undefined));
    const actual = verdict(status, given as Record<string, string>); // undefined was filtered out
    expect(actual ?? { kind: "good" }).toMatchObject(outcome);
  });
});

describe("CRC-64/NVME", () => {
  const tables = 65_536;
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
  const bytes = new Uint8Array(memory.buffer, 0, tables);
  const crc64 = new Crc64(memory, tables);
  const sumOf = (content: Uint8Array): bigint => {
    bytes.set(content);
    return crc64.update(0n, 0, content.length);
  };

  it("has the check value of its definition, and S3's text", () => {
    expect(crc64TableBytes).toBeLessThanOrEqual(65_536);
    const sum = sumOf(Buffer.from("123456789"));
    expect(sum).toBe(0xae8b14860a799888n);
    expect(crc64Text(sum)).toBe("rosUhgp5mIg=");
    expect(sumOf(new Uint8Array())).toBe(0n);
  });

  it("is the same in one go, in pieces one after another, and in pieces put together", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 5_000 }), fc.integer({ min: 0, max: 5_000 }), (first, second) => {
        const content = randomBytes(first + second);
        const whole = sumOf(content);
        const [left, right] = [sumOf(content.subarray(0, first)), sumOf(content.subarray(first))];
        expect(combineCrc64(left, right, second)).toBe(whole);
        bytes.set(content);
        expect(crc64.update(crc64.update(0n, 0, first), first, first + second)).toBe(whole);
      }),
    );
  });
});

describe("the number of connections", () => {
  /** Runs 100 probes against a server that gives `speedOf(connections)`; answers the widths that there were. */
  function widths(speedOf: (connections: number) => number, options: { shrinkAt?: number } = {}): number[] {
    vi.useFakeTimers();
    try {
      using width = new Width({ first: 4, most: 32, probeMs: 100 });
      const seen = [width.limit];
      width.onGrow(() => seen.push(width.limit));
      for (let probe = 0; probe < 100; probe += 1) {
        width.add(speedOf(width.limit) * 100);
        vi.advanceTimersByTime(100);
        if (probe === options.shrinkAt) for (let refusal = 0; refusal < 5; refusal += 1) width.shrink();
      }
      return seen;
    } finally {
      vi.useRealTimers();
    }
  }

  it("grows to the most against a server that limits each", () => {
    expect(widths((connections) => connections * 1_000)).toEqual([4, 8, 16, 32]);
  });

  it("stays with a few where more bring no more, and looks again only now and then", () => {
    const seen = widths(() => 1_000_000);
    expect(seen).toEqual([4, 8, 4, 8, 4, 8, 4]);
  });

  it("grows later when the network has become better", () => {
    let probes = 0;
    const seen = widths((connections) => ((probes += 1) < 30 ? 1_000 : connections * 1_000));
    expect(seen).toEqual([4, 8, 4, 8, 16, 32]);
  });

  it("stops where the server's own limit is", () => {
    const seen = widths((connections) => Math.min(connections, 16) * 1_000);
    expect(seen.slice(0, 5)).toEqual([4, 8, 16, 32, 16]);
  });

  it("is halved once, however many ranges the server refuses at a time", () => {
    expect(widths((connections) => connections * 1_000, { shrinkAt: 20 }).slice(0, 5)).toEqual([4, 8, 16, 32, 16]);
  });

  it("does not take a slow start for an answer", () => {
    let probes = 0;
    expect(widths((connections) => ((probes += 1) > 10 ? connections * 1_000 : 0))).toEqual([4, 8, 16, 32]);
  });

  it("is never more than the most, nor less than one", () => {
    using width = new Width({ first: 4, most: 1, probeMs: 1_000 });
    expect(width.limit).toBe(1);
  });
});
