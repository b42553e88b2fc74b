import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InvalidAnswer } from "../../runtime/lib/http1/answer-head.ts";
import { AnswerParser } from "../../runtime/lib/http1/answer-parser.ts";
import { writeHead } from "../../runtime/lib/http1/request-head.ts";

interface Heard {
  readonly status: number;
  readonly headers: object;
  readonly body: string;
  readonly persists: boolean;
  /** What stands behind the answer. */
  readonly rest: string;
}

/** Reads an answer that comes in pieces. Null: it is not whole. */
function read(pieces: readonly string[], { method = "POST", closes = false } = {}): Heard | null {
  const data: Buffer[] = [];
  let head: { status: number; headers: object; persists: boolean } | undefined;
  let ends = 0;
  const parser = new AnswerParser(method, {
    onHead: ({ status, headers, persists }) => (head = { status, headers, persists }),
    onData: (chunk) => data.push(Buffer.from(chunk)) > 0,
    onEnd: () => (ends += 1),
  });
  let rest = "";
  for (const piece of pieces) {
    const bytes = Buffer.from(piece, "latin1");
    rest += (parser.isDone ? bytes : parser.feed(bytes))?.toString("latin1") ?? "";
  }
  if (closes) parser.close();
  expect(ends).toBe(parser.isDone ? 1 : 0);
  if (head === undefined || !parser.isDone) return null;
  return { ...head, body: Buffer.concat(data).toString("latin1"), rest };
}

const ok = "HTTP/1.1 200 OK\r\n";

describe("an answer is read", () => {
  test.each<[string, string, Partial<Heard>]>([
    ["with a length", `${ok}Content-Length: 3\r\n\r\nabc`, { body: "abc", persists: true, rest: "" }],
    ["with no body", `${ok}content-length: 0\r\n\r\n`, { body: "", persists: true }],
    [
      "in chunks",
      `${ok}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n`,
      { body: "abc0123456789" },
    ],
    ["in chunks with extensions", `${ok}Transfer-Encoding: Chunked\r\n\r\n1;a=b\r\nx\r\n0 ;c\r\n\r\n`, { body: "x" }],
    ["in chunks with a trailer", `${ok}transfer-encoding: chunked\r\n\r\n0\r\nA: b\r\nC: d\r\n\r\n`, { body: "" }],
    ["without a reason", "HTTP/1.1 404\r\ncontent-length: 1\r\n\r\nx", { status: 404, body: "x" }],
    ["with an empty reason", "HTTP/1.1 503 \r\ncontent-length: 0\r\n\r\n", { status: 503 }],
    [
      "behind early hints",
      `HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n${ok}content-length: 1\r\n\r\ny`,
      { status: 200, body: "y" },
    ],
    ["behind continue", `HTTP/1.1 100 Continue\r\n\r\n${ok}content-length: 0\r\n\r\n`, { status: 200 }],
    ["of 204, which has no body", "HTTP/1.1 204 No Content\r\n\r\n", { status: 204, body: "", persists: true }],
    ["of 304, whose length is of another body", "HTTP/1.1 304 -\r\ncontent-length: 9\r\n\r\n", { body: "", rest: "" }],
    ["that closes", `${ok}connection: close\r\ncontent-length: 0\r\n\r\n`, { persists: false }],
    ["that closes, among other words", `${ok}Connection: x, Close\r\ncontent-length: 0\r\n\r\n`, { persists: false }],
    ["of HTTP/1.0", "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", { persists: false }],
    [
      "of HTTP/1.0 that stays",
      "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
      { persists: true },
    ],
    ["with more behind it", `${ok}content-length: 1\r\n\r\nxHTTP/1.1 200 OK`, { body: "x", rest: "HTTP/1.1 200 OK" }],
  ])("%s", (_, text, heard) => {
    expect(read([text])).toMatchObject(heard);
  });

  test("to HEAD, which has no body", () => {
    expect(read([`${ok}content-length: 9\r\n\r\n`], { method: "HEAD" })).toMatchObject({ body: "", persists: true });
  });

  test("until the connection ends, and is not whole before", () => {
    expect(read([`${ok}\r\nab`, "c"])).toBeNull();
    expect(read([`${ok}\r\nab`, "c"], { closes: true })).toMatchObject({ body: "abc", persists: false });
  });

  test.each([
    ["with a length", `${ok}content-length: 3\r\n\r\nab`],
    ["in chunks", `${ok}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n`],
    ["in its head", `${ok}content-le`],
  ])("not as whole when the connection ends: %s", (_, text) => {
    expect(read([text], { closes: true })).toBeNull();
  });

  test("with its headers: lower case, joined, cookies apart, names of objects as any other", () => {
    const lines = ["X-A: 1", "x-a:2 ", "Set-Cookie: a", "set-cookie: b", "constructor: c", "e:", "content-length: 0"];
    expect(read([`${ok}${lines.join("\r\n")}\r\n\r\n`])?.headers).toEqual({
      "x-a": "1, 2",
      "set-cookie": ["a", "b"],
      constructor: "c",
      e: "",
      "content-length": "0",
    });
  });

  test("the same however it is cut in pieces", () => {
    const chunks = fc.array(fc.string({ minLength: 1, maxLength: 20, unit: "binary-ascii" }), { maxLength: 6 });
    fc.assert(
      fc.property(chunks, fc.boolean(), fc.array(fc.nat()), (parts, inChunks, cuts) => {
        const body = parts.join("");
        const framed = inChunks
          ? `transfer-encoding: chunked\r\n\r\n${parts.map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join("")}0\r\n\r\n`
          : `content-length: ${body.length}\r\n\r\n${body}`;
        const text = `HTTP/1.1 102 -\r\n\r\n${ok}${framed}next`;
        const places = [0, ...cuts.map((cut) => cut % text.length).toSorted((a, b) => a - b), text.length];
        const pieces = places.slice(1).map((place, at) => text.slice(places[at], place));
        expect(read(pieces)).toMatchObject({ status: 200, body, rest: "next" });
      }),
    );
  });
});

function thrownBy(work: () => unknown): unknown {
  try {
    work();
    return undefined;
  } catch (error) {
    return error;
  }
}

describe("an answer is refused", () => {
  const long = "x".repeat(20_000);
  test.each([
    ["another protocol", "HTTP/2 200 OK\r\n\r\n"],
    ["no status line", "200 OK\r\n\r\n"],
    ["a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n"],
    ["a feed alone as the end of a line", "HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n"],
    ["a feed alone within a header", `${ok}a: b\ncontent-length: 5\r\n\r\n`],
    ["a return alone within a header", `${ok}a: b\rcontent-length: 5\r\n\r\n`],
    ["a zero byte", `${ok}a: b\0\r\n\r\n`],
    ["a header without a colon", `${ok}content-length 0\r\n\r\n`],
    ["a header without a name", `${ok}: x\r\n\r\n`],
    ["a blank in front of the colon", `${ok}content-length : 0\r\n\r\n`],
    ["a folded line", `${ok}a: b\r\n content-length: 5\r\n\r\n`],
    ["two lengths", `${ok}content-length: 1\r\ncontent-length: 2\r\n\r\nxx`],
    ["the same length twice", `${ok}content-length: 1\r\ncontent-length: 1\r\n\r\nx`],
    ["a list of lengths", `${ok}content-length: 1, 1\r\n\r\nx`],
    ["a length below zero", `${ok}content-length: -1\r\n\r\n`],
    ["a length with a sign", `${ok}content-length: +1\r\n\r\nx`],
    ["a length in hexadecimal", `${ok}content-length: 0x1\r\n\r\nx`],
    ["no length", `${ok}content-length:\r\n\r\n`],
    ["a length beyond numbers", `${ok}content-length: 99999999999999999999\r\n\r\n`],
    ["length and chunks", `${ok}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`],
    ["another encoding", `${ok}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n`],
    ["two encodings", `${ok}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`],
    ["chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
    ["a chunk without a size", `${ok}transfer-encoding: chunked\r\n\r\n\r\n`],
    ["a size that is none", `${ok}transfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n`],
    ["a size beyond numbers", `${ok}transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n`],
    ["a size that a feed ends", `${ok}transfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n`],
    ["a chunk longer than its size", `${ok}transfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n`],
    ["a long line of a size", `${ok}transfer-encoding: chunked\r\n\r\n1;${long}`],
    ["a long trailer", `${ok}transfer-encoding: chunked\r\n\r\n0\r\n${"a: b\r\n".repeat(3_000)}\r\n`],
    ["a long head that is whole", `${ok}a: ${long}\r\n\r\n`],
    ["a head without end", `${ok}a: ${long}`],
    ["an upgrade", "HTTP/1.1 101 Switching Protocols\r\n\r\n"],
    ["heads without end", "HTTP/1.1 103 -\r\n\r\n".repeat(20)],
  ])("with %s", (_, text) => {
    expect(() => read([text])).toThrow(InvalidAnswer);
    expect(() => read(Array.from(text))).toThrow(InvalidAnswer);
  });

  test("or read, but never with another error", () => {
    const word = fc.constantFrom(
      ok,
      "\r\n",
      "\r\n\r\n",
      "\n",
      ":",
      " ",
      "0",
      "3",
      "abc",
      "content-length",
      "transfer-encoding",
      "chunked",
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 30 }), (words) => {
        expect(thrownBy(() => read([words.join("")], { closes: true })) ?? new InvalidAnswer()).toBeInstanceOf(
          InvalidAnswer,
        );
      }),
    );
  });
});

test("a reader that wants no more gets the rest when it says so", () => {
  const seen: string[] = [];
  const parser = new AnswerParser("POST", {
    onHead: () => undefined,
    onData: (chunk) => seen.push(String(chunk)) === 0,
    onEnd: () => seen.push("end"),
  });
  const rest = parser.feed(Buffer.from(`${ok}transfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n`));
  expect(seen).toEqual(["a"]);
  const more = parser.feed(rest ?? Buffer.alloc(0));
  expect(seen).toEqual(["a", "b"]);
  expect(parser.feed(more ?? Buffer.alloc(0))).toBeNull();
  expect(seen).toEqual(["a", "b", "end"]);
});

describe("a request", () => {
  const request = { method: "POST", path: "/a?b", host: "h:1", headers: {}, length: 2 } as const;

  test("is written with what belongs to the connection, and nothing of that from its headers", () => {
    const headers = { "x-a": "b", host: "evil", connection: "close", "content-length": "9", "transfer-encoding": "x" };
    expect(writeHead({ ...request, headers })).toBe(
      "POST /a?b HTTP/1.1\r\nhost: h:1\r\nconnection: keep-alive\r\nx-a: b\r\ncontent-length: 2\r\n\r\n",
    );
    expect(writeHead({ ...request, length: "chunked" })).toContain("\r\ntransfer-encoding: chunked\r\n\r\n");
    expect(writeHead({ ...request, length: null })).toMatch(/keep-alive\r\n\r\n$/);
  });

  test.each<[string, Partial<Parameters<typeof writeHead>[0]>]>([
    ["a line in a value", { headers: { a: "b\r\nc: d" } }],
    ["a character that becomes a line in one byte", { headers: { a: "b\u010ac: d" } }],
    ["a line in a name", { headers: { "a\r\nb": "c" } }],
    ["a blank in a path", { path: "/a b" }],
    ["a line in a path", { path: "/a\r\nx: y" }],
    ["a path that is none", { path: "a" }],
  ])("is not written with %s", (_, wrong) => {
    expect(() => writeHead({ ...request, ...wrong })).toThrow(TypeError);
  });
});
