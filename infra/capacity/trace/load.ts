import { seeded, type Random } from "../random.ts";
import { mostRequests, RequestColumns, type TraceRequest } from "./requests.ts";

/** Seconds of a bin: KEDA asks for the demand so often. */
export const binSeconds = 15;

/** Requests whose lengths stand for all of a model's, in bins. */
const sampleSize = 4_096;

/** Lengths of requests: of each, tokens in and out. */
export interface Lengths {
  readonly input: readonly number[];
  readonly output: readonly number[];
}

/** What the requests for one model come to in each bin. */
export interface BinnedModel {
  readonly model: string | null;
  /** Requests in each bin. */
  readonly counts: Float64Array;
  /** Input and output tokens in each bin; null: those of `lengths`, times the count. */
  readonly tokens: { readonly input: Float64Array; readonly output: Float64Array } | null;
  readonly lengths: Lengths;
}

/** A trace, as both kinds of simulation read it. */
export interface Load {
  readonly name: string;
  readonly seconds: number;
  readonly requests: number;
  /** Every request; null when there are more than `mostRequests`. */
  readonly columns: RequestColumns | null;
  readonly binned: readonly BinnedModel[];
  /** What was left out, or taken otherwise than it is written. */
  readonly gaps: readonly string[];
}

interface Growing {
  counts: Float64Array;
  input: Float64Array;
  output: Float64Array;
  readonly sample: { readonly input: number[]; readonly output: number[] };
  seen: number;
}

/** Takes requests in the order of their times and keeps what simulations need: bounded memory for any length. */
export class LoadBuilder {
  readonly #columns = new RequestColumns();
  readonly #models = new Map<string | null, Growing>();
  readonly #random: Random = seeded(1);
  #requests = 0;
  #lastSeconds = 0;

  get requests(): number {
    return this.#requests;
  }

  add(request: TraceRequest): void {
    this.#requests += 1;
    this.#lastSeconds = request.atSeconds;
    if (this.#requests <= mostRequests) this.#columns.add(request);
    const model = this.#growing(request.model);
    const bin = Math.floor(request.atSeconds / binSeconds);
    if (bin >= model.counts.length) grow(model, bin);
    model.counts[bin] = (model.counts[bin] ?? 0) + 1;
    model.input[bin] = (model.input[bin] ?? 0) + request.inputTokens;
    model.output[bin] = (model.output[bin] ?? 0) + request.outputTokens;
    this.#sample(model, request);
  }

  /** The load of everything that was added; `seconds` when the trace is longer than its last request tells. */
  load(name: string, { gaps, seconds }: { readonly gaps: readonly string[]; readonly seconds?: number }): Load {
    const span = seconds ?? Math.max(1, this.#lastSeconds);
    const bins = Math.ceil(span / binSeconds + 1e-9);
    return {
      name,
      seconds: span,
      requests: this.#requests,
      columns: this.#requests <= mostRequests ? this.#columns : null,
      binned: [...this.#models].map(([model, { counts, input, output, sample }]) => ({
        model,
        counts: sized(counts, bins),
        tokens: { input: sized(input, bins), output: sized(output, bins) },
        lengths: sample,
      })),
      gaps,
    };
  }

  #growing(model: string | null): Growing {
    const known = this.#models.get(model);
    if (known !== undefined) return known;
    const made = {
      counts: new Float64Array(256),
      input: new Float64Array(256),
      output: new Float64Array(256),
      sample: { input: [], output: [] },
      seen: 0,
    };
    this.#models.set(model, made);
    return made;
  }

  /** Each request is in the sample with the same chance. */
  #sample(model: Growing, { inputTokens, outputTokens }: TraceRequest): void {
    model.seen += 1;
    const at = model.seen <= sampleSize ? model.seen - 1 : Math.floor(this.#random.uniform() * model.seen);
    if (at >= sampleSize) return;
    model.sample.input[at] = inputTokens;
    model.sample.output[at] = outputTokens;
  }
}

function grow(model: Growing, bin: number): void {
  const size = Math.max(bin + 1, model.counts.length * 2);
  model.counts = sized(model.counts, size);
  model.input = sized(model.input, size);
  model.output = sized(model.output, size);
}

function sized(column: Float64Array, size: number): Float64Array {
  const result = new Float64Array(size);
  result.set(column.subarray(0, Math.min(size, column.length)));
  return result;
}
