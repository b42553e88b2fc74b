import { bucketOf, buckets } from "./histogram.ts";
import { overhead, prefillMs, type EngineModel } from "./engine-model.ts";
import type { Slo } from "./tally.ts";
import type { Lengths } from "./trace/load.ts";

/** What requests meet at a fleet under an even load. */
export interface Steady {
  /** Distribution of the seconds to the first token, over the buckets of a histogram; sums up to 1. */
  readonly ttft: Float64Array;
  readonly tpot: Float64Array;
  /** For requests that are delayed besides: seconds to the first token of each part of them, all parts alike. */
  readonly ttftPoints: readonly number[];
  /** Of requests whose tokens after the first are in time. */
  readonly goodTpot: number;
  readonly good: number;
  /** Mean seconds that a request is at a replica. */
  readonly residenceSeconds: number;
}

interface Group {
  readonly prefillMs: number;
  readonly steps: number;
  readonly outputTokens: number;
}

/** Requests are put into so many groups by their length. */
const groupCount = 24;
/** Waits are taken at so many points of their distribution. */
const waitPoints = 12;
/** Equations that depend on their own answer are solved in so many rounds. */
const rounds = 4;
/** Utilisation is rounded to these. */
const levels = 200;
/** Above this the queue grows as much as it ever empties. */
const most = 0.98;
/** Replicas that a router compares. */
const compared = 8;

/** The mean load of requests that fit, and their number. */
interface Means {
  readonly input: number;
  readonly output: number;
  /** Of contexts, while they decode. */
  readonly context: number;
  /** Of what they hold of the KV cache. */
  readonly held: number;
}

/**
 * How a replica does under an even load, in closed form. A sequence waits for (w0 + its own part) a step, stretched by
 * what others take: `tpot = a / (1 - rate*g)`, where g is what a request takes of the time beside the step's floor.
 * Prompts queue for each other: M/G/k by Sakasegawa, k replicas that the router compares. `test/infra/capacity-bins.test.ts`
 * holds it against the simulation of single requests.
 */
export class SteadyState {
  readonly means: Means;
  /** Part of the requests that the fleet refuses because they are too long. */
  readonly tooLongShare: number;
  /** Requests a second at which a replica is full. */
  readonly capacity: number;
  readonly #engine: EngineModel;
  readonly #slo: Slo;
  readonly #groups: readonly Group[];
  readonly #cells = new Map<number, Steady>();
  readonly #prefill: { readonly mean: number; readonly square: number };
  /** ms of a step with one sequence, and what each token of a sequence adds. */
  readonly #floorMs: number;
  readonly #perTokenMs: number;

  constructor(
    engine: EngineModel,
    lengths: Lengths,
    options: { readonly slo: Slo; readonly contextTokens: number; readonly cachedShare: number },
  ) {
    this.#engine = engine;
    this.#slo = options.slo;
    const limit = Math.min(options.contextTokens, engine.kvTokens);
    const fitting = lengths.input
      .map((input, at) => ({ input: Math.max(1, input), output: lengths.output[at] ?? 1 }))
      .filter(({ input, output }) => input + output <= limit);
    this.tooLongShare = lengths.input.length === 0 ? 0 : 1 - fitting.length / lengths.input.length;
    this.means = meansOf(fitting);
    this.#groups = groupsOf(fitting, engine, options.cachedShare);
    const { factor, stepMs } = overhead;
    this.#prefill = moments(this.#groups.map(({ prefillMs: ms }) => factor * ms));
    const { output, context, held } = this.means;
    this.#perTokenMs = factor * (engine.b + engine.k * context);
    this.#floorMs = stepMs + factor * engine.w0 + this.#perTokenMs;
    const sequences = Math.max(1, Math.min(engine.maxSequences, engine.kvTokens / Math.max(1, held)));
    let capacity = Infinity;
    for (let round = 0; round < rounds; round += 1) {
      // A full batch gives each sequence one token a step.
      const stepsMs = capacity === Infinity ? Infinity : (1_000 * sequences) / (capacity * output);
      const busyMs = this.#busyMs(stepsMs === Infinity ? Infinity : (capacity * stepsMs) / 1_000).mean;
      capacity = (1_000 * sequences) / (output * this.#floorMs + sequences * busyMs);
    }
    this.capacity = Math.min(capacity, 1_000 / Math.max(1e-9, this.#prefill.mean));
  }

  /** ms that a request takes of the loop beside the floor of steps, when so many prompts share a step. */
  #busyMs(promptsPerStep: number): { readonly mean: number; readonly square: number } {
    const floor = this.#engine.w0 / Math.max(1, promptsPerStep);
    const extra = moments(
      this.#groups.map((group) => overhead.factor * Math.max(0, group.prefillMs - group.steps * floor)),
    );
    return { mean: this.means.output * this.#perTokenMs + extra.mean, square: extra.square };
  }

  /** ms between tokens at that rate, and what interrupts them. */
  #decoding(rate: number): { readonly tpotMs: number; readonly square: number } {
    let tpotMs = this.#floorMs;
    let square = 0;
    for (let round = 0; round < rounds; round += 1) {
      const busy = this.#busyMs((rate * tpotMs) / 1_000);
      tpotMs = this.#floorMs / Math.max(0.02, 1 - (rate * busy.mean) / 1_000);
      square = busy.square;
    }
    return { tpotMs, square };
  }

  /** ms of a replica's time that one input token and one output token take when it is full. */
  get tokenMs(): { readonly input: number; readonly output: number } {
    const input = this.#prefill.mean / Math.max(1, this.means.input);
    return { input, output: Math.max(0, 1_000 / this.capacity - this.#prefill.mean) / this.means.output };
  }

  /** With that part of their capacity in use, on so many replicas. */
  at(utilisation: number, replicas: number): Steady {
    const level = Math.round(Math.min(most, Math.max(0, utilisation)) * levels);
    const servers = Math.max(1, Math.min(compared, Math.floor(replicas)));
    const key = level * (compared + 1) + servers;
    const known = this.#cells.get(key);
    if (known !== undefined) return known;
    const made = this.#computed((level / levels) * this.capacity, servers);
    this.#cells.set(key, made);
    return made;
  }

  #computed(rate: number, servers: number): Steady {
    const { tpotMs, square } = this.#decoding(rate);
    const waits = this.#waits(rate, servers, tpotMs);
    const ttft = new Float64Array(buckets);
    const points: number[] = [];
    let goodTtft = 0;
    for (const group of this.#groups) {
      // What shares the steps of its own prefill.
      const own = overhead.factor * group.prefillMs + group.steps * (tpotMs - overhead.factor * this.#engine.w0);
      const ownMs = Math.max(group.steps * this.#floorMs, own) + overhead.requestMs + overhead.outputTokenMs;
      let sum = 0;
      for (const { ms, share } of waits) {
        const seconds = (ownMs + ms) / 1_000;
        const weight = share / this.#groups.length;
        const bucket = bucketOf(seconds);
        ttft[bucket] = (ttft[bucket] ?? 0) + weight;
        if (seconds <= this.#slo.ttftSeconds) goodTtft += weight;
        sum += seconds * share;
      }
      points.push(sum);
    }
    const { tpot, good: goodTpot } = this.#tpots(rate, { tpotMs, square });
    const mean = points.reduce((total, seconds) => total + seconds, 0) / Math.max(1, points.length);
    const residenceSeconds = mean + (this.means.output * tpotMs) / 1_000;
    return { ttft, tpot, ttftPoints: points, goodTpot, good: goodTtft * goodTpot, residenceSeconds };
  }

  /** Waits before the own prefill: the rest of the step that is going on, or prompts that came before. */
  #waits(rate: number, servers: number, tpotMs: number): readonly { readonly ms: number; readonly share: number }[] {
    const { mean, square } = this.#prefill;
    const busy = Math.min(most, (rate * mean) / 1_000);
    const waiting = busy ** (Math.sqrt(2 * (servers + 1)) - 1);
    const queueMs = mean === 0 ? 0 : square / (2 * mean) / (servers * (1 - busy)) + mean / (2 * servers);
    // Without anything running a prompt is taken at once.
    const running = Math.min(1, (rate * this.means.output * tpotMs) / 1_000);
    const rest = (1 - waiting) * running;
    const points = Array.from({ length: waitPoints }, (_, at) => ({
      ms: tpotMs / 2 - queueMs * Math.log(1 - (at + 0.5) / waitPoints),
      share: waiting / waitPoints,
    }));
    return [
      { ms: 0, share: (1 - waiting) * (1 - running) },
      { ms: tpotMs * 0.25, share: rest / 2 },
      { ms: tpotMs * 0.75, share: rest / 2 },
      ...points,
    ];
  }

  /** Seconds for each token after the first: prompts that come meanwhile interrupt, and short answers feel it more. */
  #tpots(
    rate: number,
    { tpotMs, square }: { readonly tpotMs: number; readonly square: number },
  ): { readonly tpot: Float64Array; readonly good: number } {
    const tpot = new Float64Array(buckets);
    let good = 0;
    for (const { outputTokens } of this.#groups) {
      const tokens = Math.max(1, outputTokens - 1);
      const excess = Math.max(1e-6, tpotMs - this.#floorMs);
      const variance = ((rate / 1_000) * tpotMs * square) / tokens;
      const spread = Math.sqrt(Math.log(1 + variance / excess ** 2));
      for (let at = 0; at < waitPoints; at += 1) {
        const factor = Math.exp(spread * normalQuantile((at + 0.5) / waitPoints) - spread ** 2 / 2);
        const seconds = (this.#floorMs + excess * factor) / 1_000;
        const weight = 1 / (this.#groups.length * waitPoints);
        const bucket = bucketOf(seconds);
        tpot[bucket] = (tpot[bucket] ?? 0) + weight;
        if (seconds <= this.#slo.tpotSeconds) good += weight;
      }
    }
    return { tpot, good };
  }
}

interface Length {
  readonly input: number;
  readonly output: number;
}

function meansOf(lengths: readonly Length[]): Means {
  const count = Math.max(1, lengths.length);
  const mean = (of: (length: Length) => number): number => lengths.reduce((sum, each) => sum + of(each), 0) / count;
  const output = Math.max(
    1,
    mean((each) => each.output),
  );
  return {
    input: mean(({ input }) => input),
    output,
    // Long answers are there for longer.
    context: mean((each) => (each.input + each.output / 2) * each.output) / output,
    held: mean((each) => (each.input + each.output) * each.output) / output,
  };
}

/** Groups of the same number of requests, by their input; each has the output of one of its own. */
function groupsOf(lengths: readonly Length[], engine: EngineModel, cachedShare: number): Group[] {
  const sorted = lengths.toSorted((a, b) => a.input - b.input);
  const count = Math.min(groupCount, sorted.length);
  return Array.from({ length: count }, (_, at) => {
    const members = sorted.slice(
      Math.floor((at * sorted.length) / count),
      Math.floor(((at + 1) * sorted.length) / count),
    );
    const input = members.reduce((sum, each) => sum + each.input, 0) / members.length;
    const cached = Math.floor(input * cachedShare);
    const fresh = Math.max(1, input - cached);
    const middle = members[(at * 7) % members.length];
    return {
      prefillMs: prefillMs(engine, fresh, cached),
      steps: Math.ceil(fresh / engine.chunkTokens),
      outputTokens: middle?.output ?? 1,
    };
  });
}

function moments(values: readonly number[]): { readonly mean: number; readonly square: number } {
  const count = Math.max(1, values.length);
  return {
    mean: values.reduce((sum, value) => sum + value, 0) / count,
    square: values.reduce((sum, value) => sum + value * value, 0) / count,
  };
}

/** Of the standard normal distribution, to 0.005: Shore's approximation. */
function normalQuantile(share: number): number {
  const upper = Math.max(share, 1 - share);
  const value = 5.5556 * (1 - ((1 - upper) / upper) ** 0.1186);
  return share >= 0.5 ? value : -value;
}
