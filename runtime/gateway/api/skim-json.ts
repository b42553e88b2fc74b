import { isUtf8 } from "node:buffer";
import { parseJson } from "../../contracts/validate.ts";

/** What a JSON body says, without what its long strings say behind their beginning. */
export interface Skimmed {
  /** As `parseJson` has it, but that long strings are cut and end with a mark (`isCut`). */
  readonly value: unknown;
  /** Bytes of `data:` addresses that were left out. */
  readonly cutDataBytes: number;
}

/** A body below this is parsed whole, which is as fast. */
const worthBytes = 16 * 1_024;

/** Strings longer than this are cut: no field that the gateway acts upon is longer, but an address. */
const longBytes = 1_024;
/** Addresses with a signature of S3 or Azure in them have 2 KB at most. */
const longAddressBytes = 8 * 1_024;
/** What is kept of a long string: more than the name of a model may have, so that one which is too long is told so. */
const keptBytes = 320;

/** A body in which nothing was cut up to here, as a part of it, is likely to be of short strings throughout. */
const hopefulShare = 0.25;

/** Ends a string that was cut: "private use two", which no text has, and of the characters that V8 keeps in a byte. */
const mark = "\u0092";

/** Whether there is more of a string than `skimJson` kept. Such a string begins as the client wrote it, and no more is known. */
export function isCut(text: string): boolean {
  return text.endsWith(mark);
}

/**
 * Parses a JSON body, and leaves out what the gateway does not look at. A prompt of 220 KB that becomes strings is parsed
 * and collected at a multiple of what all else costs that the gateway does with it; its engine reads it anyway, and
 * refuses what is wrong within a long string. Throws `invalid_json` for everything else that is no JSON.
 */
export function skimJson(bytes: Buffer): Skimmed {
  return (bytes.length < worthBytes ? null : skim(bytes)) ?? readWhole(bytes);
}

/** As `skimJson`, with nothing left out. */
export function readWhole(bytes: Buffer): Skimmed {
  return { value: parseJson(bytes), cutDataBytes: 0 };
}

/** Null for what is not worth it, and for what is no JSON: to parse the whole then tells what is wrong, and where. */
function skim(bytes: Buffer): Skimmed | null {
  if (bytes[0] === 0xef || !isUtf8(bytes)) return null; // a byte order mark is for the decoder
  const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const pieces: string[] = [];
  let taken = 0;
  let cutDataBytes = 0;
  for (let open = nextQuote(bytes, words, 0); open !== -1;) {
    if (taken === 0 && open > bytes.length * hopefulShare) return null;
    const start = open + 1;
    const end = endOfString(bytes, words, start);
    if (end === -1) return null;
    const length = end - start;
    if (length > longBytes && (length > longAddressBytes || !isAddress(bytes, start))) {
      const cut = wholeCharacters(bytes, start, start + keptBytes);
      pieces.push(bytes.toString("utf8", taken, cut), mark);
      if (isData(bytes, start)) cutDataBytes += end - cut;
      taken = end;
    }
    open = nextQuote(bytes, words, end + 1);
  }
  if (pieces.length === 0) return null;
  pieces.push(bytes.toString("utf8", taken));
  try {
    return { value: JSON.parse(pieces.join("")), cutDataBytes };
  } catch {
    return null;
  }
}

const quote = 0x22;
const backslash = 0x5c;

/** How far a quote is looked for word by word: as far takes as long as a call into the native search. */
const nearBytes = 128;

/** The next quote at or behind `from`; -1 when there is none. `words` are the same bytes. */
function nextQuote(bytes: Buffer, words: DataView, from: number): number {
  let at = from;
  for (const near = Math.min(from + nearBytes, bytes.length - 3); at < near; at += 4) {
    const others = words.getInt32(at, true) ^ 0x22222222;
    // A byte of a word is zero, and was a quote, where this is not zero ("determine if a word has a zero byte").
    if (((others - 0x01010101) & ~others & 0x80808080) !== 0) break;
  }
  for (const near = Math.min(at + 4, bytes.length); at < near; at += 1) if (bytes[at] === quote) return at;
  return bytes.indexOf(quote, at);
}

/** Where the quote is that ends the string which begins at `start`; -1 when there is none. */
function endOfString(bytes: Buffer, words: DataView, start: number): number {
  for (let at = nextQuote(bytes, words, start); at !== -1; at = nextQuote(bytes, words, at + 1)) {
    if (bytes[at - 1] !== backslash || (at - startOfBackslashes(bytes, start, at)) % 2 === 0) return at;
  }
  return -1;
}

/** Where the backslashes begin that stand before `at`. */
function startOfBackslashes(bytes: Buffer, start: number, at: number): number {
  let first = at;
  while (first > start && bytes[first - 1] === backslash) first -= 1;
  return first;
}

/** The last place up to `wanted` that is within no character and no escape. */
function wholeCharacters(bytes: Buffer, start: number, wanted: number): number {
  let at = wanted;
  while (at > start && isContinuation(bytes[at])) at -= 1;
  // The longest escape has six bytes.
  for (let back = at - 1; back >= start && back >= at - 6; back -= 1) {
    if (bytes[back] === backslash) return startOfBackslashes(bytes, start, back);
  }
  return at;
}

function isContinuation(byte: number | undefined): boolean {
  return byte !== undefined && (byte & 0xc0) === 0x80;
}

function isAddress(bytes: Buffer, start: number): boolean {
  return /^http/i.test(bytes.toString("latin1", start, start + 4));
}

function isData(bytes: Buffer, start: number): boolean {
  return bytes.toString("latin1", start, start + 5) === "data:";
}
