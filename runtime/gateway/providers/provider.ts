import { Breaker } from "../fleet/breaker.ts";
import type { ProviderOptions } from "./options.ts";

/** Weight of the newest measurement in the time to first byte. */
const newest = 0.2;

/** A provider that asks for longer is asked again after this nevertheless. */
const longestPauseMs = 3_600_000;

/** A provider, and how it has been doing. */
export class Provider {
  readonly options: ProviderOptions;
  /** What it was asked when it was last asked how it is; true until it was. */
  isReachable = true;
  /** Its names of models that answer at once; null when it does not say. */
  warm: ReadonlySet<string> | null = null;
  readonly #breaker = new Breaker();
  readonly #firstByteMs = new Map<string, number>();
  #pausedUntilMs = 0;
  #running = 0;

  constructor(options: ProviderOptions) {
    this.options = options;
  }

  get name(): string {
    return this.options.name;
  }

  get running(): number {
    return this.#running;
  }

  /** Whether it has lately answered, and has not asked to be left alone. */
  get isHealthy(): boolean {
    return this.isReachable && this.#breaker.isClosed && performance.now() >= this.#pausedUntilMs;
  }

  get hasRoom(): boolean {
    return this.#running < this.options.maxConcurrent;
  }

  /** What it calls a model, or `model:adapter`; undefined when it does not serve that. */
  nameOf(ours: string): string | undefined {
    return Object.hasOwn(this.options.models, ours) ? this.options.models[ours] : undefined;
  }

  /** Whether it would have to load a model first. */
  isCold(ours: string): boolean {
    const theirs = this.nameOf(ours);
    return this.warm !== null && theirs !== undefined && !this.warm.has(theirs);
  }

  /** Time to first byte as measured, in ms; 0 before the first, so that it is measured. */
  firstByteMs(ours: string): number {
    return this.#firstByteMs.get(ours) ?? 0;
  }

  /** A request is on its way until the disposal. */
  begin(): Disposable {
    this.#running += 1;
    return {
      [Symbol.dispose]: () => {
        this.#running -= 1;
      },
    };
  }

  /** The first byte of an answer came after so long. */
  answered(ours: string, firstByteMs: number): void {
    const known = this.#firstByteMs.get(ours);
    this.#firstByteMs.set(ours, known === undefined ? firstByteMs : known + newest * (firstByteMs - known));
  }

  /** An answer came as a whole. */
  succeeded(): void {
    this.#breaker.succeeded();
  }

  /** A request failed by its fault. */
  failed(): void {
    this.#breaker.failed();
  }

  /** It is not used for so long. */
  pause(seconds: number): void {
    const untilMs = performance.now() + Math.min(longestPauseMs, seconds * 1_000);
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, untilMs);
  }
}
