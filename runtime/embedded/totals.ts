/** Speed is told over the last seconds, so that an idle hour does not hide it. */
const windowMs = 10_000;

/** Running totals for `/stats`. */
export class Totals {
  promptTokens = 0;
  cachedTokens = 0;
  generatedTokens = 0;
  /** Times of the newest generated tokens, oldest first. */
  readonly #recent: number[] = [];

  addPrompt(tokens: number, cached: number): void {
    this.promptTokens += tokens;
    this.cachedTokens += cached;
  }

  addGenerated(nowMs: number): void {
    this.generatedTokens += 1;
    this.#recent.push(nowMs);
    if (this.#recent.length > 4096) this.#recent.splice(0, 2048);
  }

  /** Generated tokens per second while tokens were generated within the last ten seconds; 0 when there were none. */
  tokensPerSecond(nowMs: number): number {
    const recent = this.#recent.filter((time) => time > nowMs - windowMs);
    const [first, last] = [recent[0], recent.at(-1)];
    if (first === undefined || last === undefined || last === first) return 0;
    return ((recent.length - 1) * 1000) / (last - first);
  }
}
