/** One event of a stream, or a comment. */
export interface SseItem {
  /** Lines other than `data:`, each with its line feed. */
  readonly head: string;
  /** The JSON of its data; undefined for what no hook sees: comments, errors, `[DONE]` and what is no JSON. */
  readonly data: unknown;
  /** As it came, with the blank line; null for one that a hook has written. */
  readonly text: string | null;
}

/** Whether hooks see it. */
export function isJson(item: SseItem): boolean {
  return item.data !== undefined;
}

/** An event longer than this breaks its stream. */
const maxEventBytes = 8 * 2 ** 20;

/** Cuts the bytes of a stream into its events. */
export class SseCutter {
  #rest: Buffer = Buffer.alloc(0);

  /** The events that are complete with `chunk`. Throws for one that does not end. */
  write(chunk: Buffer): SseItem[] {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const complete = completeLength(bytes);
    this.#rest = bytes.subarray(complete);
    if (this.#rest.length > maxEventBytes) throw new Error("an event is too long");
    return itemsOf(bytes.toString("utf8", 0, complete));
  }

  /** What is left when the stream ends. */
  end(): SseItem[] {
    return itemsOf(this.#rest.toString("utf8"));
  }
}

function completeLength(bytes: Buffer): number {
  const plain = bytes.lastIndexOf("\n\n");
  const long = bytes.lastIndexOf("\r\n\r\n");
  return Math.max(plain === -1 ? 0 : plain + 2, long === -1 ? 0 : long + 4);
}

function itemsOf(text: string): SseItem[] {
  // With each its blank line, so that what is not changed leaves as it came.
  return (text.match(/[\s\S]+?(?:\r?\n\r?\n|$)/g) ?? []).map(itemOf);
}

function isData(line: string): boolean {
  return line.startsWith("data:");
}

function itemOf(text: string): SseItem {
  const lines = text.split(/\r?\n/).filter((line) => line !== "");
  const head = lines.filter((line) => !isData(line)).map((line) => `${line}\n`);
  const data = lines.filter(isData).map((line) => line.slice(5));
  const hidden = data.length === 0 || head.includes("event: error\n");
  return { head: head.join(""), data: hidden ? undefined : parse(data.join("\n")), text };
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

/** The events as bytes of a stream. */
export function textOf(items: readonly SseItem[]): string {
  return items.map(({ head, data, text }) => text ?? `${head}data: ${JSON.stringify(data)}\n\n`).join("");
}
