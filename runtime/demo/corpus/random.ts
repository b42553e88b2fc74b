/**
 * A seeded source of random choices (mulberry32). It has two streams: what is said (`pick`, `int`, `chance`) and how it
 * is worded (`say`, `wording`). Two sources that differ in the wording seed only write paraphrases of each other.
 */
export class Random {
  #state: number;
  readonly #wording: Random | undefined;

  constructor(seed: number, wordingSeed?: number) {
    this.#state = seed >>> 0;
    this.#wording = wordingSeed === undefined ? undefined : new Random(wordingSeed);
    this.next();
  }

  /** The stream that chooses words and leaves what they mean alone. */
  get wording(): Random {
    return this.#wording ?? this;
  }

  /** A number in [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  }

  /** An integer from `low` to `high`, both included. */
  int(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<Item>(items: readonly Item[]): Item {
    const item = items[Math.floor(this.next() * items.length)];
    if (item === undefined) throw new RangeError("cannot pick from an empty list");
    return item;
  }

  /** `count` different items, in random order. */
  sample<Item>(items: readonly Item[], count: number): Item[] {
    const rest = [...items];
    const taken: Item[] = [];
    while (taken.length < count && rest.length > 0) taken.push(...rest.splice(this.int(0, rest.length - 1), 1));
    return taken;
  }

  /** Expands `{a|b|}` to one of its alternatives, innermost first. A line break beside `|` is layout. */
  say(pattern: string): string {
    let text = pattern.replaceAll(/\s*\n\s*/g, "");
    for (let before = ""; before !== text;) {
      before = text;
      text = text.replaceAll(/\{([^{}]*)\}/g, (_, options: string) => this.wording.pick(options.split("|")));
    }
    return text;
  }
}
