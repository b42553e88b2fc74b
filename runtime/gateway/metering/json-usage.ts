import { isRecord, readUsage, type TokenCounts } from "./tokens.ts";

/** An answer up to this is kept as a whole. */
const maxKeptBytes = 64 * 1024;

/** Of a longer one, such as embeddings, usage is looked for in its beginning and its end: nothing else is kept. */
const edgeBytes = 4 * 1024;

/** Finds the usage in one JSON answer as it passes. */
export class JsonUsage {
  #chunks: Buffer[] = [];
  #size = 0;
  #head: Buffer | null = null;

  write(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    if (this.#size <= maxKeptBytes) return;
    const kept = Buffer.concat(this.#chunks);
    this.#head ??= Buffer.from(kept.subarray(0, edgeBytes));
    this.#chunks = [Buffer.from(kept.subarray(-edgeBytes))];
  }

  /** The counts, once the last byte has come; null when there are none, or the answer is no JSON. */
  end(): TokenCounts | null {
    const [first] = this.#chunks;
    const bytes = this.#chunks.length === 1 && first !== undefined ? first : Buffer.concat(this.#chunks);
    this.#chunks = [];
    // Names and numbers are ASCII, and a string of one character a byte is made and searched fastest.
    const text = bytes.toString("latin1");
    if (this.#head === null) return lastUsage(text) ?? wholeUsage(text);
    return lastUsage(text) ?? lastUsage(this.#head.toString("latin1"));
  }
}

function wholeUsage(json: string): TokenCounts | null {
  if (!json.includes('"usage"')) return null;
  try {
    const parsed: unknown = JSON.parse(json);
    return isRecord(parsed) ? readUsage(parsed["usage"]) : null;
  } catch {
    return null;
  }
}

/** The last object named `usage` in a piece of JSON. It holds numbers, and objects of numbers. */
function lastUsage(piece: string): TokenCounts | null {
  const last = piece.slice(Math.max(0, piece.lastIndexOf('"usage"')));
  const match = /^"usage"\s*:\s*(\{(?:[^{}"]|"[^"]*"|\{[^{}]*\})*\})/.exec(last);
  try {
    return match?.[1] === undefined ? null : readUsage(JSON.parse(match[1]));
  } catch {
    return null;
  }
}
