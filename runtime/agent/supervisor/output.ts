import type { Readable } from "node:stream";

/** Lines that are kept, and characters of each: what explains a death, and no more than 400 kB per engine. */
const keptLines = 200;
const keptCharacters = 2_000;

/** Lines that say why an engine cannot go on, the most telling first. */
const telling = [
  /out of memory|OutOfMemory|\bENOMEM\b|cannot allocate memory/i,
  /\bCUDA error\b|NCCL error|no kernel image/i,
  /^\S*(Error|Exception)\b|\b(\w+Error|\w+Exception): |\berror:|\bfatal\b/i,
];

/** The last lines that an engine wrote: a ring, so that an engine that floods its log costs nothing. */
export class EngineOutput {
  readonly #lines: string[] = [];
  #next = 0;

  /** Keeps what a stream says, and hands each line on. */
  follow(stream: Readable | null, onLine: (line: string) => void): void {
    let rest = "";
    stream?.setEncoding("utf8").on("data", (text: string) => {
      const parts = (rest + text).split(/\r\n|[\r\n]/);
      // An engine that never ends its line must not fill the memory.
      rest = (parts.pop() ?? "").slice(-keptCharacters);
      for (const line of parts) {
        if (line.trim() === "") continue;
        this.add(line);
        onLine(line);
      }
    });
    stream?.on("end", () => {
      if (rest.trim() !== "") this.add(rest);
    });
  }

  add(line: string): void {
    this.#lines[this.#next % keptLines] = line.slice(0, keptCharacters);
    this.#next += 1;
  }

  /** The last `count` lines, oldest first. */
  tail(count: number): string[] {
    const from = Math.max(0, this.#next - Math.min(count, keptLines));
    return Array.from({ length: this.#next - from }, (_, index) => this.#lines[(from + index) % keptLines] ?? "");
  }

  /** The line that explains best why the engine ended; undefined when it said nothing. */
  reason(): string | undefined {
    const lines = this.tail(keptLines);
    for (const pattern of telling) {
      const found = lines.findLast((line) => pattern.test(line));
      if (found !== undefined) return found.trim().slice(0, 500);
    }
    return lines
      .findLast((line) => !line.startsWith("{"))
      ?.trim()
      .slice(0, 500);
  }
}
