/** One request of a trace. */
export interface TraceRequest {
  /** Since the start of the trace. */
  readonly atSeconds: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** Null: the trace names none. */
  readonly model: string | null;
}

/** More requests than this are taken as rates by the bin. */
export const mostRequests = 5_000_000;

/** Longest trace: ten years; a longer one has time stamps of another unit. */
export const mostSeconds = 10 * 366 * 86_400;

/** Requests in columns: 18 bytes each, in the order of their times. */
export class RequestColumns {
  #at = new Float64Array(1_024);
  #input = new Int32Array(1_024);
  #output = new Int32Array(1_024);
  #model = new Uint16Array(1_024);
  readonly #names = new Map<string | null, number>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Every model that a request names, by its number; null for requests without one. */
  get models(): readonly (string | null)[] {
    return [...this.#names.keys()];
  }

  add({ atSeconds, inputTokens, outputTokens, model }: TraceRequest): void {
    if (this.#size === this.#at.length) this.#grow();
    this.#at[this.#size] = atSeconds;
    this.#input[this.#size] = inputTokens;
    this.#output[this.#size] = outputTokens;
    this.#model[this.#size] = this.#numberOf(model);
    this.#size += 1;
  }

  at(index: number): number {
    return this.#at[index] ?? Infinity;
  }

  input(index: number): number {
    return this.#input[index] ?? 0;
  }

  output(index: number): number {
    return this.#output[index] ?? 0;
  }

  /** Its place in `models`. */
  model(index: number): number {
    return this.#model[index] ?? 0;
  }

  #numberOf(model: string | null): number {
    const known = this.#names.get(model);
    if (known !== undefined) return known;
    this.#names.set(model, this.#names.size);
    return this.#names.size - 1;
  }

  #grow(): void {
    const size = this.#at.length * 2;
    this.#at = grown(this.#at, new Float64Array(size));
    this.#input = grown(this.#input, new Int32Array(size));
    this.#output = grown(this.#output, new Int32Array(size));
    this.#model = grown(this.#model, new Uint16Array(size));
  }
}

function grown<Column extends Float64Array | Int32Array | Uint16Array>(from: Column, to: Column): Column {
  to.set(from);
  return to;
}
