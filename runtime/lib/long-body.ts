import type { IncomingMessage } from "node:http";
import type { Readable } from "node:stream";
import { readInto, type Sink } from "./http.ts";

/**
 * Bodies longer than this are kept in memory that is lent, given back and lent again. Left to V8, the prompts of a hundred
 * long conversations outlive its quick collections, and the thorough ones that they cause hold up everybody: 33 ms at the
 * 99th percentile, and 3 to 10 since (`npm run bench:gateway -- --only large`, docs/benchmarks.md).
 */
const longBytes = 64 * 1_024;

/** The smallest room; others are twice as large as the one before. */
const smallestRoomBytes = 256 * 1_024;

/** What is kept of rooms that nobody has. */
const maxFreeBytes = 64 * 2 ** 20;

/** What leaves at once. */
const pieceBytes = 64 * 1_024;

const freeRooms = new Map<number, Buffer[]>();
let freeBytes = 0;

/** Memory with whatever was in it before. */
function takeRoom(bytes: number): Buffer {
  const room = freeRooms.get(bytes)?.pop();
  if (room === undefined) return Buffer.allocUnsafeSlow(bytes);
  freeBytes -= bytes;
  return room;
}

function giveBack(room: Buffer): void {
  if (freeBytes + room.length > maxFreeBytes) return;
  freeBytes += room.length;
  const free = freeRooms.get(room.length);
  if (free === undefined) freeRooms.set(room.length, [room]);
  else free.push(room);
}

/** Some bytes of a body with others in their place. */
export interface Edit {
  readonly at: number;
  /** How many bytes are left out there. */
  readonly removes: number;
  readonly adds: Buffer;
}

/** Bytes of what `edits` make of `length` bytes. */
export function editedLength(length: number, edits: readonly Edit[]): number {
  return edits.reduce((sum, { adds, removes }) => sum + adds.length - removes, length);
}

/** What `edits` make of `bytes`, piece by piece. `edits` are in order of their place. */
export function* edited(bytes: Buffer, edits: readonly Edit[]): Generator<Buffer> {
  let from = 0;
  for (const { at, removes, adds } of edits) {
    yield bytes.subarray(from, at);
    yield adds;
    from = at + removes;
  }
  yield bytes.subarray(from);
}

/**
 * A long body, until it is released: its memory is another request's then. So nothing of it is handed out but copies, and
 * what `bytes` gives must be kept no longer than the caller's own turn.
 */
export class LongBody {
  #room: Buffer | null;
  readonly #bytes: Buffer;

  constructor(room: Buffer, length: number) {
    this.#room = room;
    this.#bytes = room.subarray(0, length);
  }

  get length(): number {
    return this.#bytes.length;
  }

  /** Throws when it was released. */
  get bytes(): Buffer {
    if (this.#room === null) throw released();
    return this.#bytes;
  }

  /** Copies of what `edits` make of it, as they are asked for. Throws as `bytes` does. */
  *copies(edits: readonly Edit[]): Generator<Buffer> {
    for (const part of edited(this.bytes, edits)) {
      for (let at = 0; at < part.length; at += pieceBytes) {
        // Whoever sends may come back for more when the request is over.
        if (this.#room === null) throw released();
        yield Buffer.from(part.subarray(at, at + pieceBytes));
      }
    }
  }

  /** Nobody needs it any more. Once more does nothing. */
  release(): void {
    if (this.#room !== null) giveBack(this.#room);
    this.#room = null;
  }
}

function released(): Error {
  return new Error("this body was released");
}

/** A long body on its way: it can be iterated once for each time that it is sent. */
export class SentBody implements Iterable<Buffer> {
  readonly #body: LongBody;
  readonly #edits: readonly Edit[];
  readonly length: number;

  constructor(body: LongBody, edits: readonly Edit[]) {
    this.#body = body;
    this.#edits = edits;
    this.length = editedLength(body.length, edits);
  }

  [Symbol.iterator](): Iterator<Buffer> {
    return this.#body.copies(this.#edits);
  }
}

/** What is sent on: bytes, or what can be iterated anew for each time, or a stream, which is sent once. */
export type RelayBody = Buffer | SentBody | Readable;

/** The whole body of a request, which its caller releases when it is long. Rejects as `readBody` does. */
export function readLongBody(incoming: IncomingMessage, maxBytes: number): Promise<Buffer | LongBody> {
  return readInto(incoming, maxBytes, new LongSink());
}

/** Takes a room once a body has shown that it is long; what a client says of its length takes none. */
class LongSink implements Sink<Buffer | LongBody> {
  readonly #chunks: Buffer[] = [];
  #room: Buffer | null = null;
  #length = 0;

  add(chunk: Buffer): void {
    const length = this.#length + chunk.length;
    if (length <= longBytes) this.#chunks.push(chunk);
    else chunk.copy(this.#roomFor(length), this.#length);
    this.#length = length;
  }

  end(): Buffer | LongBody {
    if (this.#room !== null) return new LongBody(this.#room, this.#length);
    // The request lives until it is answered, and this with its listeners.
    const chunks = this.#chunks.splice(0);
    const [only] = chunks;
    return chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks, this.#length);
  }

  #roomFor(bytes: number): Buffer {
    const before = this.#room;
    if (before !== null && before.length >= bytes) return before;
    const room = takeRoom(Math.max(smallestRoomBytes, 2 ** Math.ceil(Math.log2(bytes))));
    if (before === null) {
      let at = 0;
      for (const chunk of this.#chunks.splice(0)) at += chunk.copy(room, at);
    } else {
      before.copy(room, 0, 0, this.#length);
      giveBack(before);
    }
    this.#room = room;
    return room;
  }
}
