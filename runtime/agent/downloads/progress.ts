/** How far a download or a verification is. */
export interface DownloadProgress {
  readonly phase: "download" | "verify";
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly bytesPerSecond: number;
  /** Null while there is no speed to reckon with. */
  readonly etaSeconds: number | null;
}

const intervalMs = 100;
/** Weight of the newest tenth of a second in the speed: about two seconds of memory. */
const smoothing = 0.05;

/** Counts bytes of one phase and reports at its start, ten times a second, and at its end. */
export class Meter implements Disposable {
  readonly #phase: DownloadProgress["phase"];
  readonly #total: number;
  readonly #onProgress: (progress: DownloadProgress) => void;
  readonly #timer: NodeJS.Timeout;
  #done: number;
  #doneAtTick: number;
  #tickedAt = performance.now();
  #bytesPerSecond: number | undefined;

  /** `alreadyDone` bytes count as done, but not for the speed. */
  constructor(
    about: { readonly phase: DownloadProgress["phase"]; readonly bytesTotal: number; readonly alreadyDone: number },
    onProgress: (progress: DownloadProgress) => void,
  ) {
    this.#phase = about.phase;
    this.#total = about.bytesTotal;
    this.#done = about.alreadyDone;
    this.#doneAtTick = about.alreadyDone;
    this.#onProgress = onProgress;
    this.#timer = setInterval(() => this.#tick(), intervalMs);
    this.#report();
  }

  /** Bytes that landed; negative when a stream begins anew. */
  add(bytes: number): void {
    this.#done += bytes;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#tick();
  }

  #tick(): void {
    const now = performance.now();
    const seconds = Math.max(now - this.#tickedAt, 1) / 1_000;
    const speed = Math.max(0, this.#done - this.#doneAtTick) / seconds;
    const before = this.#bytesPerSecond;
    this.#bytesPerSecond = before === undefined ? speed : before + smoothing * (speed - before);
    this.#doneAtTick = this.#done;
    this.#tickedAt = now;
    this.#report();
  }

  #report(): void {
    const speed = this.#bytesPerSecond ?? 0;
    const left = this.#total - this.#done;
    this.#onProgress({
      phase: this.#phase,
      bytesDone: this.#done,
      bytesTotal: this.#total,
      bytesPerSecond: Math.round(speed),
      etaSeconds: left === 0 ? 0 : speed > 0 ? Math.ceil(left / speed) : null,
    });
  }
}
