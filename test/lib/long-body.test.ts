import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { editedLength, LongBody, readLongBody, SentBody, type Edit } from "../../runtime/lib/long-body.ts";

const kibibyte = 1_024;

/** Bytes that differ from place to place, and from `seed` to `seed`. */
function bytesOf(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 1) bytes[at] = (at * 31 + seed * 7 + (at >> 8)) % 251;
  return bytes;
}

/** What `readLongBody` makes of a body that was sent over a socket, in pieces where it is not told its length. */
async function received(sent: Buffer, asStream = false, maxBytes = 64 * 2 ** 20): Promise<Buffer | LongBody> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer | LongBody>();
  const server = createServer((incoming: IncomingMessage, outgoing) => {
    void readLongBody(incoming, maxBytes)
      .then(resolve, reject)
      .finally(() => outgoing.end());
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  const body = asStream ? Readable.toWeb(Readable.from(cut(sent, 10_000))) : new Uint8Array(sent);
  const sending = fetch(`http://127.0.0.1:${port}`, { method: "POST", body, duplex: "half" });
  try {
    return await promise;
  } finally {
    await sending.catch(() => undefined); // an answer to a body that was too large
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  }
}

function cut(bytes: Buffer, length: number): Buffer[] {
  return Array.from({ length: Math.ceil(bytes.length / length) }, (_, at) =>
    bytes.subarray(at * length, (at + 1) * length),
  );
}

async function long(length: number, seed?: number): Promise<LongBody> {
  const body = await received(bytesOf(length, seed));
  if (Buffer.isBuffer(body)) throw new Error("it is short");
  return body;
}

const all = (pieces: Iterable<Buffer>): Buffer => Buffer.concat([...pieces]);

test.each([0, 1, 64 * kibibyte, 64 * kibibyte + 1, 256 * kibibyte, 256 * kibibyte + 1, 1_000_000, 3 * 2 ** 20])(
  "a body of %i bytes is read whole, however it comes",
  async (length) => {
    for (const asStream of [false, true]) {
      const sent = bytesOf(length);
      const body = await received(sent, asStream);
      expect(body instanceof LongBody).toBe(length > 64 * kibibyte);
      expect(body.length).toBe(length);
      const read = body instanceof LongBody ? body.bytes : body;
      expect(read.equals(sent)).toBe(true);
      if (body instanceof LongBody) body.release();
    }
  },
);

test("a body that is longer than it may be is refused, also when it does not say how long it is", async () => {
  for (const asStream of [false, true]) {
    const reading = received(bytesOf(500_000), asStream, 400_000);
    await expect(reading).rejects.toMatchObject({ code: "body_too_large" });
  }
});

test("what is sent is the body with its edits, each time anew", async () => {
  const body = await long(300_000);
  const places = fc.uniqueArray(fc.tuple(fc.nat({ max: 300_000 }), fc.nat({ max: 70_000 }), fc.string()), {
    maxLength: 4,
    selector: ([at]) => at,
  });
  fc.assert(
    fc.property(places, (some) => {
      const edits: Edit[] = [];
      const expected: Buffer[] = [];
      let until = 0;
      for (const [at, length, adds] of some.toSorted(([one], [other]) => one - other)) {
        if (at < until) continue;
        const removes = Math.min(length, body.length - at);
        edits.push({ at, removes, adds: Buffer.from(adds) });
        expected.push(body.bytes.subarray(until, at), Buffer.from(adds));
        until = at + removes;
      }
      expected.push(body.bytes.subarray(until));
      const sent = new SentBody(body, edits);
      expect(sent.length).toBe(editedLength(body.length, edits));
      for (const _ of ["once", "again"]) expect(all(sent).equals(Buffer.concat(expected))).toBe(true);
    }),
    { numRuns: 50 },
  );
  body.release();
});

test("memory goes to another body only when it was released, and nobody sees what is in it then", async () => {
  const first = await long(200_000, 1);
  const memory = first.bytes.buffer;
  const second = await long(200_000, 2);
  expect(second.bytes.buffer).not.toBe(memory);

  const sending = new SentBody(first, [])[Symbol.iterator]();
  const begun = sending.next();
  first.release();
  first.release();
  const [third, fourth] = [await long(200_000, 3), await long(200_000, 4)];
  expect(third.bytes.buffer).toBe(memory);
  expect(fourth.bytes.buffer).not.toBe(memory);
  expect(fourth.bytes.buffer).not.toBe(second.bytes.buffer);

  expect(begun.value).toEqual(bytesOf(200_000, 1).subarray(0, 64 * kibibyte));
  expect(() => sending.next()).toThrow("released");
  expect(() => first.bytes).toThrow("released");
  expect(third.bytes.equals(bytesOf(200_000, 3))).toBe(true);
  for (const body of [second, third, fourth]) body.release();
});

test("a body that breaks off keeps its memory from everybody", async () => {
  const before = await long(200_000, 1);
  const memory = before.bytes.buffer;
  before.release();
  const incoming = new Readable({ read: () => undefined }) as IncomingMessage;
  incoming.headers = {};
  const reading = readLongBody(incoming, 1e6);
  incoming.push(bytesOf(100_000, 9));
  await new Promise((resolve) => setImmediate(resolve));
  incoming.destroy();
  await expect(reading).rejects.toMatchObject({ code: "client_closed" });
  const next = await long(200_000, 2);
  expect(next.bytes.buffer).not.toBe(memory);
  next.release();
});
