import { isUtf8 } from "node:buffer";
import { PenstockError } from "../../contracts/errors.ts";

/** Bounds of what a form may make us keep. Files are never kept. */
export interface FormBounds {
  /** All values of fields together, in bytes. */
  readonly fieldsBytes: number;
  /** Parts of a form, fields and files alike. */
  readonly parts: number;
}

/** Header lines of one part, in bytes. */
const maxHeadBytes = 8 * 1024;

const disposition = /^form-data((?:; *[!#$&+\-.^_`|~A-Za-z0-9]+\*?=(?:"(?:[^"\\\r\n]|\\.)*"|[^";\s]+))+)$/i;
const parameter = /; *([^=]+)=(?:"((?:[^"\\]|\\.)*)"|([^";\s]+))/g;

type State = "start" | "boundary" | "head" | "field" | "file" | "end";

/**
 * Watches the bytes of a `multipart/form-data` body go by and reads its small fields; the bytes are the caller's.
 *
 * It is stricter than RFC 7578 where parsers differ, because the engine reads the same bytes with another parser and
 * must not find fields that were not checked here: a delimiter follows a line break and ends in one, and its characters
 * stand nowhere else; lines end with CRLF; every part has one `Content-Disposition` with one plain `name`; a field's
 * name comes once, unless it is a list's (`x[]`). Throws `invalid_value` for everything else.
 */
export class FormWatcher {
  /** Values of the fields that have gone by as a whole. */
  readonly fields = new Map<string, string>();
  readonly #delimiter: Buffer;
  readonly #bounds: FormBounds;
  #state: State = "start";
  /** Bytes that cannot be judged before more come; never more than a head or a delimiter. */
  #pending: Buffer = Buffer.alloc(0);
  #name = "";
  #value: Buffer[] = [];
  #fieldsBytes = 0;
  #parts = 0;

  constructor(boundary: string, bounds: FormBounds) {
    this.#delimiter = Buffer.from(`--${boundary}`);
    this.#bounds = bounds;
  }

  /** Whether the last part has ended. */
  get ended(): boolean {
    return this.#state === "end";
  }

  /** Takes the next bytes. */
  write(chunk: Buffer): void {
    let rest: Buffer | null = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    this.#pending = Buffer.alloc(0);
    while (rest !== null && rest.length > 0) {
      const left = this.#step(rest);
      if (left.needsMore) {
        // A copy, so that a few bytes do not keep a whole chunk alive.
        this.#pending = Buffer.from(left.rest);
        return;
      }
      rest = left.rest;
    }
  }

  #step(bytes: Buffer): Progress {
    switch (this.#state) {
      case "start":
        return this.#start(bytes);
      case "boundary":
        return this.#afterBoundary(bytes);
      case "head":
        return this.#head(bytes);
      case "field":
      case "file":
        return this.#body(bytes);
      case "end":
        break;
    }
    // What follows the last boundary means nothing.
    return done(bytes.subarray(bytes.length));
  }

  #start(bytes: Buffer): Progress {
    const size = this.#delimiter.length;
    if (!this.#delimiter.subarray(0, bytes.length).equals(bytes.subarray(0, size))) {
      throw broken("it does not begin with its boundary");
    }
    if (bytes.length < size) return more(bytes);
    this.#state = "boundary";
    return done(bytes.subarray(size));
  }

  #afterBoundary(bytes: Buffer): Progress {
    if (bytes.length < 2) return more(bytes);
    const two = bytes.toString("latin1", 0, 2);
    if (two !== "\r\n" && two !== "--") throw broken("its boundary stands within the content");
    this.#state = two === "--" ? "end" : "head";
    return done(bytes.subarray(2));
  }

  #head(bytes: Buffer): Progress {
    if (bytes[0] === 0x0d) throw broken("a part needs a header");
    const end = bytes.indexOf("\r\n\r\n");
    if (end > maxHeadBytes || (end === -1 && bytes.length > maxHeadBytes)) throw broken("a part's header is too long");
    if (end === -1) return more(bytes);
    this.#parts += 1;
    if (this.#parts > this.#bounds.parts) throw broken(`it has more than ${this.#bounds.parts} parts`);
    const { name, isFile } = readHead(bytes.toString("utf8", 0, end));
    if (this.fields.has(name) && !isFile && !name.endsWith("[]")) throw broken("a field comes twice", name);
    if (isFile && name === "model") throw broken("`model` is not a file", name);
    this.#name = name;
    this.#state = isFile ? "file" : "field";
    return done(bytes.subarray(end + 4));
  }

  #body(bytes: Buffer): Progress {
    const at = bytes.indexOf(this.#delimiter);
    if (at === -1) {
      const kept = Math.min(bytes.length, this.#delimiter.length + 1);
      this.#keep(bytes.subarray(0, bytes.length - kept));
      return more(bytes.subarray(bytes.length - kept));
    }
    if (at < 2 || bytes[at - 2] !== 0x0d || bytes[at - 1] !== 0x0a) {
      throw broken("its boundary stands within the content");
    }
    this.#keep(bytes.subarray(0, at - 2));
    this.#endPart();
    this.#state = "boundary";
    return done(bytes.subarray(at + this.#delimiter.length));
  }

  #keep(bytes: Buffer): void {
    if (this.#state === "file" || bytes.length === 0) return;
    this.#fieldsBytes += bytes.length;
    if (this.#fieldsBytes > this.#bounds.fieldsBytes) {
      throw broken(`its fields are longer than ${this.#bounds.fieldsBytes} bytes`, this.#name);
    }
    this.#value.push(bytes);
  }

  #endPart(): void {
    if (this.#state === "field") {
      const value = Buffer.concat(this.#value);
      if (!isUtf8(value)) throw broken("a field is not UTF-8", this.#name);
      this.fields.set(this.#name, value.toString("utf8"));
    }
    this.#value = [];
  }
}

interface Progress {
  readonly rest: Buffer;
  /** Nothing can be told from `rest` until more bytes come. */
  readonly needsMore: boolean;
}

function done(rest: Buffer): Progress {
  return { rest, needsMore: false };
}

function more(rest: Buffer): Progress {
  return { rest, needsMore: true };
}

/** Boundary of a `content-type`, in RFC 2046's characters. Throws `invalid_value`. */
export function boundaryOf(contentType: string | undefined): string {
  const match = /^multipart\/form-data *; *boundary=(?:"([^"]+)"|([^\s;,"]+)) *$/i.exec(contentType ?? "");
  const boundary = match?.[1] ?? match?.[2] ?? "";
  if (!/^[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]$/.test(boundary)) {
    throw broken("send it as `multipart/form-data` with one plain `boundary`");
  }
  return boundary;
}

function readHead(text: string): { name: string; isFile: boolean } {
  const lines = text.split("\r\n");
  const named = lines.filter((line) => /^content-disposition *:/i.test(line));
  if (named.length !== 1) throw broken("a part needs one `Content-Disposition`");
  if (lines.some((line) => !/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\0\r\n]*$/.test(line)))
    throw broken("a header is malformed");
  const value = named[0]?.slice(named[0].indexOf(":") + 1).trim() ?? "";
  const match = disposition.exec(value);
  if (match === null) throw broken("a `Content-Disposition` is malformed");
  const found = new Map<string, string>();
  for (const [, key = "", quoted, bare] of (match[1] ?? "").matchAll(parameter)) {
    const parameterName = key.trim().toLowerCase();
    if (found.has(parameterName)) throw broken("a `Content-Disposition` names something twice");
    found.set(parameterName, quoted ?? bare ?? "");
  }
  const name = found.get("name");
  if (name === undefined || found.has("name*") || !/^[\w.[\]-]{1,128}$/.test(name)) {
    throw broken("a part needs one plain `name`");
  }
  return { name, isFile: found.has("filename") || found.has("filename*") };
}

function broken(why: string, param?: string): PenstockError {
  return new PenstockError("invalid_value", `The form cannot be read: ${why}.`, param === undefined ? {} : { param });
}
