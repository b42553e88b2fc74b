import type { LoadProgress } from "../contracts/agent.ts";
import { formatBytes } from "../lib/bytes.ts";

/** How far a load is, in one line: `Downloading  [#####.....]  42 %  118 MB/s  12 s left`. */
export function progressLine(progress: LoadProgress): string {
  const { phase, bytes_done: done, bytes_total: total } = progress;
  const parts = [phaseNames[phase].padEnd(11)];
  if (total > 0) {
    const fraction = Math.min(1, done / total);
    const filled = Math.round(fraction * barWidth);
    parts.push(`[${"#".repeat(filled)}${".".repeat(barWidth - filled)}]`);
    parts.push(`${String(Math.floor(fraction * 100)).padStart(3)} %`, `of ${formatBytes(total)}`);
  }
  if (progress.bytes_per_second > 0) parts.push(`${formatBytes(progress.bytes_per_second)}/s`);
  if (progress.eta_seconds !== null && progress.eta_seconds >= 1) {
    parts.push(`${Math.ceil(progress.eta_seconds)} s left`);
  }
  return parts.join("  ");
}

const phaseNames = {
  download: "Downloading",
  verify: "Verifying",
  load: "Loading",
  wake: "Waking",
  prove: "Proving",
  adapters: "Adapters",
} as const satisfies Record<LoadProgress["phase"], string>;

const barWidth = 24;

/** Draws progress on a terminal in place; elsewhere a line for each phase, so that logs stay readable. */
export class ProgressDisplay {
  readonly #stream: NodeJS.WriteStream;
  #lastPhase: string | undefined;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  show(name: string, progress: LoadProgress): void {
    const line = `${name}: ${progressLine(progress)}`;
    if (this.#stream.isTTY) {
      this.#stream.write(`\r\u001B[2K${line.slice(0, this.#stream.columns - 1)}`);
    } else if (this.#lastPhase !== progress.phase) {
      this.#stream.write(`${name}: ${phaseNames[progress.phase]}\n`);
    }
    this.#lastPhase = progress.phase;
  }

  /** Leaves `line` behind where the progress was. */
  finish(line: string): void {
    this.#stream.write(`${this.#stream.isTTY ? "\r\u001B[2K" : ""}${line}\n`);
    this.#lastPhase = undefined;
  }
}
