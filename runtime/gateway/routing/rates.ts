import { prefillWork } from "./prefill-work.ts";

/** How fast a replica is. */
export interface Rates {
  /** In tokens of `prefillWork`. */
  readonly prefillTokensPerMs: number;
  /** ms to the first token of a request without work. */
  readonly baseMs: number;
  /** ms from the first byte of an answer to its end. */
  readonly answerMs: number;
}

/** Until something has been measured: an 8B model on an A100 (16k tokens/s of prefill, 300 tokens in steps of 15 ms). */
const defaultRates: Rates = { prefillTokensPerMs: 16, baseMs: 30, answerMs: 4_500 };

/** Weight of the newest sample of `baseMs` and `answerMs`. */
const gain = 0.1;
/** Prefilled tokens after which older ones weigh half. */
const halfLifeTokens = 1_000_000;
/** A replica's own samples count against what is known of all as if that many tokens had been seen of it. */
const priorTokens = { replica: 1_000_000, fleet: 2_000 };
/** One sample moves a rate by no more than that factor of itself: a hung or preempted request is no slow GPU. */
const outlier = 4;
/** Below that many tokens a prefill says more about `baseMs` than about the rate. */
const fewTokens = 512;
/** No engine prefills faster (four times 8B on an H100 in FP8); many cache hits in a row must not end in infinity. */
const maxTokensPerMs = 400;

/** One prefill that was seen. */
export interface PrefillSample {
  /** Prompt tokens that were thought not to be in the cache, and those that were. */
  readonly uncachedTokens: number;
  readonly promptTokens: number;
  readonly elapsedMs: number;
  /** Nothing was before it, so that the time includes `baseMs`. */
  readonly alone: boolean;
}

/**
 * Learns rates from what passes through. A replica leans on what is known of the whole fleet until it has shown otherwise:
 * GPUs of one fleet mostly are equal, and a replica that a few odd requests made look slow would get no more of them.
 */
export class RateMeter implements Rates {
  readonly #fleet: RateMeter | null;
  readonly #priorTokens: number;
  #tokens = 0;
  #elapsedMs = 0;
  #baseMs: number;
  #answerMs: number;

  /** Of one replica of a fleet, or of a fleet. */
  constructor(fleet: RateMeter | null = null) {
    this.#fleet = fleet;
    this.#priorTokens = fleet === null ? priorTokens.fleet : priorTokens.replica;
    this.#baseMs = this.#prior.baseMs;
    this.#answerMs = this.#prior.answerMs;
  }

  get prefillTokensPerMs(): number {
    const priorMs = this.#priorTokens / this.#prior.prefillTokensPerMs;
    return Math.min(maxTokensPerMs, (this.#tokens + this.#priorTokens) / (this.#elapsedMs + priorMs));
  }

  get baseMs(): number {
    return this.#baseMs;
  }

  /** Of the whole fleet: what an answer takes depends on what is asked more than on who is asked. */
  get answerMs(): number {
    return this.#fleet?.answerMs ?? this.#answerMs;
  }

  prefilled(sample: PrefillSample): void {
    this.#fleet?.prefilled(sample);
    const { uncachedTokens, promptTokens, elapsedMs, alone } = sample;
    const work = prefillWork(uncachedTokens, promptTokens - uncachedTokens);
    const expectedMs = work / this.prefillTokensPerMs;
    if (uncachedTokens < fewTokens) {
      if (alone) this.#baseMs = blend(this.#baseMs, Math.max(0.1, elapsedMs - expectedMs));
      return;
    }
    // What ends in the same step as its predecessor took no time of its own; over many the sums are right.
    const spentMs = Math.max(0, alone ? elapsedMs - this.#baseMs : elapsedMs);
    // Where much was thought to be cached, the time may be that of a prefix which had left the cache.
    const weight = uncachedTokens / promptTokens;
    const keep = 0.5 ** ((work * weight) / halfLifeTokens);
    this.#tokens = this.#tokens * keep + work * weight;
    this.#elapsedMs = this.#elapsedMs * keep + Math.min(spentMs, expectedMs * outlier) * weight;
  }

  /** An answer ended `elapsedMs` after its first byte. */
  answered(elapsedMs: number): void {
    this.#fleet?.answered(elapsedMs);
    this.#answerMs = blend(this.#answerMs, elapsedMs);
  }

  get #prior(): Rates {
    return this.#fleet ?? defaultRates;
  }
}

function blend(old: number, sample: number): number {
  return old + gain * (Math.min(Math.max(sample, old / outlier), old * outlier) - old);
}
