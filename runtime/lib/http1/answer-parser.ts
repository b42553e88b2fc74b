import { InvalidAnswer, readHead, type AnswerHead } from "./answer-head.ts";

/** Hears of one answer, in this order; `onData` as often as there is some. */
export interface AnswerEvents {
  onHead(head: AnswerHead): void;
  /** False: no more for now; `feed` answers what it did not read. */
  onData(chunk: Buffer): boolean;
  onEnd(): void;
}

/** Lines before a body. */
const maxHeadBytes = 16_384;
/** Lines before the one that counts: `103 Early Hints` comes once or twice. */
const maxInterim = 10;
/** The size of a chunk and what may stand behind it. */
const maxSizeLine = 256;
const maxTrailerBytes = 8_192;

const sizeLine = /^([0-9a-fA-F]{1,12})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?$/;
const headEnd = Buffer.from("\r\n\r\n");
const lineEnd = Buffer.from("\r\n");

type State = "head" | "sized" | "until close" | "size" | "chunk" | "chunk end" | "trailer" | "done";

/** Reads one answer of HTTP/1.1 from the bytes of a connection. Make one for each request. */
export class AnswerParser {
  readonly #events: AnswerEvents;
  readonly #method: string;
  #state: State = "head";
  /** The beginning of something whose end has not come: a head, a line. */
  #pending: Buffer | null = null;
  /** Bytes that are left of the body, or of a chunk. */
  #left = 0;
  #interim = 0;
  #trailerBytes = 0;
  /** `onData` wants no more for now. */
  #stopped = false;

  /** `method` is the request's: an answer to HEAD has no body. */
  constructor(method: string, events: AnswerEvents) {
    this.#method = method;
    this.#events = events;
  }

  get isDone(): boolean {
    return this.#state === "done";
  }

  /** Whether its head has come. */
  get hasHead(): boolean {
    return this.#state !== "head";
  }

  /**
   * Reads the next bytes. Returns those that it did not read: behind the answer's end, or since `onData` said so. Throws
   * `InvalidAnswer`.
   */
  feed(bytes: Buffer): Buffer | null {
    let rest: Buffer | null = bytes;
    if (this.#pending !== null) {
      rest = Buffer.concat([this.#pending, bytes]);
      this.#pending = null;
    }
    while (rest !== null && rest.length > 0 && this.#state !== "done") {
      const before: Buffer = rest;
      rest = this.#step(before);
      if (rest !== null && this.#stopped) {
        this.#stopped = false;
        return rest.length === 0 ? null : rest;
      }
    }
    return rest === null || rest.length === 0 ? null : rest;
  }

  /** The other side has closed. True when that ends the answer; an answer that it cuts is for the caller to report. */
  close(): boolean {
    if (this.#state !== "until close") return false;
    this.#end();
    return true;
  }

  /** Reads one piece. Null: the rest must wait for more. */
  #step(bytes: Buffer): Buffer | null {
    if (this.#state === "head") return this.#readHead(bytes);
    if (this.#state === "sized" || this.#state === "chunk") return this.#readSized(bytes);
    if (this.#state === "size") return this.#readLine(bytes, maxSizeLine, (line) => this.#beginChunk(line));
    if (this.#state === "chunk end") return this.#readLine(bytes, 0, () => (this.#state = "size"));
    if (this.#state === "trailer") return this.#readLine(bytes, maxTrailerBytes, (line) => this.#readTrailer(line));
    this.#emit(bytes);
    return null;
  }

  #readHead(bytes: Buffer): Buffer | null {
    const end = bytes.indexOf(headEnd);
    if (end > maxHeadBytes || (end === -1 && bytes.length > maxHeadBytes)) throw new InvalidAnswer("too long a head");
    if (end === -1) {
      this.#pending = bytes;
      return null;
    }
    const head = readHead(bytes.toString("latin1", 0, end), this.#method);
    const rest = bytes.subarray(end + headEnd.length);
    if (head.status < 200) {
      this.#interim += 1;
      if (head.status === 101 || this.#interim > maxInterim) throw new InvalidAnswer("an upgrade, or too many heads");
      return rest;
    }
    this.#events.onHead(head);
    if (head.framing === "chunked") this.#state = "size";
    else if (head.framing === "close") this.#state = "until close";
    else if (head.framing === 0) this.#end();
    else {
      this.#state = "sized";
      this.#left = head.framing;
    }
    return rest;
  }

  #readSized(bytes: Buffer): Buffer {
    const isChunk = this.#state === "chunk";
    const data = bytes.length > this.#left ? bytes.subarray(0, this.#left) : bytes;
    this.#left -= data.length;
    this.#emit(data);
    if (this.#left === 0) {
      if (isChunk) this.#state = "chunk end";
      else this.#end();
    }
    return bytes.subarray(data.length);
  }

  #readLine(bytes: Buffer, maxLength: number, take: (line: string) => void): Buffer | null {
    const end = bytes.indexOf(lineEnd);
    if (end > maxLength || (end === -1 && bytes.length > maxLength + 1)) throw new InvalidAnswer("too long a line");
    if (end === -1) {
      this.#pending = bytes;
      return null;
    }
    take(bytes.toString("latin1", 0, end));
    return bytes.subarray(end + lineEnd.length);
  }

  #beginChunk(line: string): void {
    const size = sizeLine.exec(line)?.[1];
    if (size === undefined) throw new InvalidAnswer("a chunk without a size");
    this.#left = Number.parseInt(size, 16);
    this.#state = this.#left === 0 ? "trailer" : "chunk";
  }

  #readTrailer(line: string): void {
    this.#trailerBytes += line.length;
    if (this.#trailerBytes > maxTrailerBytes) throw new InvalidAnswer("too long a trailer");
    if (line === "") this.#end();
  }

  #emit(data: Buffer): void {
    if (!this.#events.onData(data)) this.#stopped = true;
  }

  #end(): void {
    this.#state = "done";
    this.#events.onEnd();
  }
}
