import { isRecord, noTokens, readUsage, type TokenCounts } from "./tokens.ts";

/** An event that is longer passes unread. Those that hold usage are a few hundred bytes; Responses repeat the answer. */
const maxEventBytes = 1024 * 1024;

/** Without the quote in front: JSON is full of those, and a search for a rare first character is three times as fast. */
const usageMark = 'usage"';

/**
 * Finds the usage in a stream of server-sent events. Text that a model wrote cannot pass for it: within JSON strings a
 * quote has a backslash before it, and usage is only read from where an engine writes it.
 */
export class SseUsage {
  /** Events with data, without the closing `[DONE]`. */
  events = 0;
  usage: TokenCounts | null = null;
  readonly #hides: boolean;
  /** What ends an event; which line ends a stream has shows in its first line. */
  #blankLine: "\n\n" | "\r\n\r\n" | null = null;
  /** The beginning of an event whose end has not come. */
  #pending: Buffer | null = null;
  /** The event that is passing is too long to be read. */
  #skips = false;

  /** `hides`: takes out the event that holds nothing but usage, which the client did not ask for. */
  constructor(hides: boolean) {
    this.#hides = hides;
  }

  /** The next bytes; returns what goes to the client. */
  write(chunk: Buffer): Buffer | null {
    const bytes = this.#pending === null ? chunk : Buffer.concat([this.#pending, chunk]);
    // One character a byte, so that positions are those of the bytes: strings are searched faster than buffers.
    const text = bytes.toString("latin1");
    const complete = this.#completeLength(text);
    const hidden = complete === 0 ? null : this.#read(bytes, text, complete);
    const passing = complete + this.#keep(bytes, complete);
    if (!this.#hides) return chunk;
    if (hidden !== null) return Buffer.concat([...hidden, bytes.subarray(complete, passing)]);
    if (passing === bytes.length) return bytes;
    return passing === 0 ? null : bytes.subarray(0, passing);
  }

  /** Keeps the beginning of an event until its end comes. Returns how many bytes of it need not wait for that. */
  #keep(bytes: Buffer, complete: number): number {
    const rest = bytes.length - complete;
    this.#pending = null;
    if (rest > maxEventBytes) {
      this.#skips = true;
      return rest;
    }
    // A copy, so that a few bytes do not keep a whole chunk alive.
    if (rest > 0) this.#pending = Buffer.from(bytes.subarray(complete));
    return 0;
  }

  /** The stream has ended, or broken off; returns what was held back. */
  end(): Buffer | null {
    const rest = this.#pending;
    this.#pending = null;
    if (rest === null) return null;
    // A last event without its blank line, which the standard lets clients ignore.
    const hidden = this.#read(rest, rest.toString("latin1"), rest.length);
    if (!this.#hides) return null;
    return hidden === null ? rest : Buffer.concat(hidden);
  }

  /** Length of the events that are there as a whole. */
  #completeLength(text: string): number {
    if (this.#blankLine === null) {
      const line = text.indexOf("\n");
      if (line === -1) return 0;
      this.#blankLine = text[line - 1] === "\r" ? "\r\n\r\n" : "\n\n";
    }
    // Nearly always, since an engine writes an event at a time.
    if (text.endsWith(this.#blankLine)) return text.length;
    const last = text.lastIndexOf(this.#blankLine);
    return last === -1 ? 0 : last + this.#blankLine.length;
  }

  /** Reads whole events. Returns the pieces that are left when something was taken out. */
  #read(bytes: Buffer, text: string, length: number): Buffer[] | null {
    const blank = this.#blankLine ?? "\n\n";
    let from = 0;
    if (this.#skips) {
      this.#skips = false;
      from = text.indexOf(blank) + blank.length;
    }
    this.#count(text, from, length);
    let pieces: Buffer[] | null = null;
    let kept = 0;
    for (let at = text.indexOf(usageMark, from); at !== -1 && at < length; at = text.indexOf(usageMark, from)) {
      if (text[at - 1] !== '"') {
        from = at + usageMark.length;
        continue;
      }
      const before = text.lastIndexOf(blank, at);
      const begin = before === -1 ? 0 : before + blank.length;
      const found = text.indexOf(blank, at);
      const end = found === -1 ? length : found + blank.length;
      from = end;
      // Many engines write `"usage":null` into every event.
      if (/^\s*:\s*null/.test(text.slice(at + usageMark.length, at + usageMark.length + 8))) continue;
      const onlyUsage = this.#readEvent(bytes.toString("utf8", begin, end));
      if (!onlyUsage || !this.#hides) continue;
      pieces ??= [];
      pieces.push(bytes.subarray(kept, begin));
      kept = end;
    }
    pieces?.push(bytes.subarray(kept, length));
    return pieces;
  }

  #count(text: string, from: number, length: number): void {
    if (text.startsWith("data:", from)) this.events += 1;
    let last = from;
    for (let at = text.indexOf("\ndata:", from); at !== -1 && at + 1 < length; at = text.indexOf("\ndata:", at + 6)) {
      this.events += 1;
      last = at + 1;
    }
    if (text.startsWith("data: [DONE]", last)) this.events -= 1;
  }

  /** Reads one event. Returns whether it holds nothing but usage. */
  #readEvent(event: string): boolean {
    const data = event
      .split(/\r?\n/)
      .filter((line) => line.startsWith("data:"))
      .map((line) => line.slice(5))
      .join("\n");
    const parsed = parse(data);
    if (!isRecord(parsed)) return false;
    // Top level: OpenAI, and the end of Anthropic's; `response`: Responses; `message`: the beginning of Anthropic's.
    const holders = [parsed, parsed["response"], parsed["message"]];
    const holder = holders.filter((one) => isRecord(one)).find((one) => isRecord(one["usage"]));
    const usage = readUsage(holder?.["usage"], this.usage ?? noTokens);
    if (usage === null) return false;
    this.usage = usage;
    const { choices } = parsed;
    return Array.isArray(choices) && choices.length === 0;
  }
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
