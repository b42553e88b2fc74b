/** How fast a replica is. */
export interface Rates {
  readonly prefillTokensPerMs: number;
  /** ms to the first token of a request without work. */
  readonly baseMs: number;
  /** ms between two tokens of a stream. */
  readonly tokenMs: number;
}

/** Until something has been measured: an 8B model on an A100 (16k tokens/s of prefill, steps of 15 ms). */
export const defaultRates: Rates = { prefillTokensPerMs: 16, baseMs: 30, tokenMs: 15 };

/** Weight of the newest sample of `baseMs` and `tokenMs`. */
const gain = 0.1;
/** Prefilled tokens after which older ones weigh half. */
const halfLifeTokens = 200_000;
/** One sample moves a rate by no more than that factor of itself: a hung or preempted request is no slow GPU. */
const outlier = 4;
/** Below that many tokens a prefill says more about `baseMs` than about the rate. */
const fewTokens = 512;

/** Learns a replica's rates from what passes through. Times are of any one clock. */
export class RateMeter implements Rates {
  #tokens: number;
  #tokensMs: number;
  #baseMs: number;
  #tokenMs: number;

  constructor({ prefillTokensPerMs, baseMs, tokenMs }: Rates = defaultRates) {
    // Counts for little: the first long prompt outweighs it.
    this.#tokens = 4 * fewTokens;
    this.#tokensMs = this.#tokens / prefillTokensPerMs;
    this.#baseMs = baseMs;
    this.#tokenMs = tokenMs;
  }

  get prefillTokensPerMs(): number {
    return this.#tokens / this.#tokensMs;
  }

  get baseMs(): number {
    return this.#baseMs;
  }

  get tokenMs(): number {
    return this.#tokenMs;
  }

  /** `tokens` were prefilled in `elapsedMs`; `alone`: nothing was before them, so that the time includes `baseMs`. */
  prefilled(tokens: number, elapsedMs: number, alone: boolean): void {
    if (alone && tokens < fewTokens) {
      this.#baseMs = blend(this.#baseMs, Math.max(0.1, elapsedMs - tokens / this.prefillTokensPerMs));
      return;
    }
    const expectedMs = tokens / this.prefillTokensPerMs;
    const spentMs = alone ? elapsedMs - this.#baseMs : elapsedMs;
    // What finishes in the same step as its predecessor took no time of its own; over many the sums are right.
    const bounded = Math.min(spentMs, expectedMs * outlier);
    const keep = 0.5 ** (tokens / halfLifeTokens);
    this.#tokens = this.#tokens * keep + tokens;
    this.#tokensMs = Math.max(this.#tokensMs * keep + Math.max(0, bounded), this.#tokens / maxTokensPerMs);
  }

  /** `tokens` of one stream came in `elapsedMs`. */
  generated(tokens: number, elapsedMs: number): void {
    if (tokens > 0) this.#tokenMs = blend(this.#tokenMs, elapsedMs / tokens);
  }
}

/** No engine prefills faster (about four times 8B on an H100 in FP8); keeps a burst of cache hits from ending in infinity. */
const maxTokensPerMs = 400;

function blend(old: number, sample: number): number {
  return old + gain * (Math.min(Math.max(sample, old / outlier), old * outlier) - old);
}
