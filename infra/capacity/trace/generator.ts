import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { Heap } from "../heap.ts";
import { seeded, type Random } from "../random.ts";
import { binSeconds, LoadBuilder, type Lengths, type Load } from "./load.ts";
import { parameters, type GeneratorOptions } from "./options.ts";
import { mostRequests, type TraceRequest } from "./requests.ts";

/** Chance that a conversation goes on after its n-th turn, and the same for all later turns: fitted to Mooncake's trace. */
const continues = [0.31, 0.42, 0.51, 0.59, 0.59, 0.68, 0.77];
/** Turns of a conversation, on average. */
const meanTurns = 1.63;
/** Longest prompt of the trace. */
const mostInput = 126_000;

/** Lengths of independent requests: means and deviations of log-normal distributions fitted to Azure's traces of 2023. */
const independent = {
  chat: { input: [6.93, 0.8, 14_050], output: [4.86, 0.9, 1_500], burst: 0 },
  /** Bursts: rates in 10 s differ so much that the index of dispersion is that of the trace (71 at 2.57 requests/s). */
  code: { input: [7.29, 0.9, 7_437], output: [2.56, 1.24, 1_500], burst: 2.7 },
} as const;

/** Seconds that a burst lasts. */
const burstSeconds = 10;

/**
 * Makes the load that a text such as `generator:conversation?rate=10&hours=2&diurnal=0.6&seed=7` asks for: the same for
 * the same text. More than `mostRequests` are made as rates by the bin. Throws `invalid_config`.
 */
export function generated(spec: string, { binsOnly }: { readonly binsOnly: boolean }): Load {
  const options = parameters(spec);
  const expected = options.rate * options.seconds;
  return binsOnly || expected > mostRequests ? byRate(spec, options) : byRequest(spec, options);
}

function byRequest(spec: string, options: GeneratorOptions): Load {
  const builder = new LoadBuilder();
  for (const request of requestsOf(options)) builder.add(request);
  if (builder.requests === 0) {
    throw new PenstockError("invalid_config", `${spec} makes no request at all; raise rate, or the time`);
  }
  return builder.load(spec, { gaps: [], seconds: options.seconds });
}

function byRate(spec: string, options: GeneratorOptions): Load {
  const bins = Math.ceil(options.seconds / binSeconds);
  const random = seeded(options.seed);
  const counts = new Float64Array(bins);
  const variance = options.kind === "code" ? (independent.code.burst * burstSeconds) / binSeconds : 0;
  let requests = 0;
  for (let bin = 0; bin < bins; bin += 1) {
    const mean = rateAt(options, (bin + 0.5) * binSeconds) * binSeconds;
    const count = random.poisson(mean * random.gamma(variance));
    counts[bin] = count;
    requests += count;
  }
  return {
    name: spec,
    seconds: options.seconds,
    requests,
    columns: null,
    binned: [{ model: null, counts, tokens: null, lengths: sampled(options) }],
    gaps: [],
  };
}

/** Lengths of the first requests that the generator would make at an even rate. */
function sampled(options: GeneratorOptions): Lengths {
  const lengths = { input: [] as number[], output: [] as number[] };
  const even = { ...options, rate: 10, seconds: 86_400, diurnal: 0, weekend: 1 };
  for (const { inputTokens, outputTokens } of requestsOf(even)) {
    lengths.input.push(inputTokens);
    lengths.output.push(outputTokens);
    if (lengths.input.length === 8_192) break;
  }
  return lengths;
}

/** Requests a second: the day's curve has its peak at 14:00 and its valley at 02:00; second 0 is a Monday's midnight. */
export function rateAt({ rate, diurnal, weekend }: GeneratorOptions, atSeconds: number): number {
  const day = Math.floor(atSeconds / 86_400) % 7;
  const curve = 1 + diurnal * Math.sin((2 * Math.PI * (atSeconds - 8 * 3_600)) / 86_400);
  return rate * curve * (day >= 5 ? weekend : 1);
}

function* requestsOf(options: GeneratorOptions): Generator<TraceRequest> {
  if (options.kind === "conversation") yield* conversations(options);
  else yield* singles(options, independent[options.kind]);
}

interface Turn {
  readonly turn: number;
  readonly inputTokens: number;
}

/** How long before the trace conversations began that go on in it. */
const warmUpSeconds = 1_800;

function* conversations(options: GeneratorOptions): Generator<TraceRequest> {
  const random = seeded(options.seed);
  const turns = new Heap<Turn>();
  const starts = arrivals(options, { random, scale: 1 / meanTurns, from: -warmUpSeconds });
  let start = starts.next();
  while (start.done !== true || turns.size > 0) {
    const startsAt = start.done === true ? Infinity : start.value;
    if (startsAt <= turns.first) {
      const inputTokens = Math.min(mostInput, Math.max(890, Math.round(random.logNormal(8.51, 1.26))));
      turns.push(startsAt, { turn: 0, inputTokens });
      start = starts.next();
      continue;
    }
    const atSeconds = turns.first;
    const current = turns.pop();
    if (current === undefined || atSeconds >= options.seconds) return;
    if (atSeconds >= 0) yield requestOf(atSeconds, current, random);
    const chance = continues[Math.min(current.turn, continues.length - 1)] ?? 0;
    if (random.uniform() < chance) turns.push(atSeconds + random.logNormal(4.88, 0.98), next(current, random));
  }
}

function requestOf(atSeconds: number, { inputTokens }: Turn, random: Random): TraceRequest {
  const output = random.uniform() < 0.17 ? 2 + 58 * random.uniform() : random.logNormal(5.87, 0.42);
  return { atSeconds, inputTokens, outputTokens: Math.max(1, Math.round(output)), model: null };
}

function next({ turn, inputTokens }: Turn, random: Random): Turn {
  const isPaste = random.uniform() < 0.12;
  const growth = isPaste ? 3_500 + 8_500 * random.uniform() : random.logNormal(Math.log(454), 0.8);
  return { turn: turn + 1, inputTokens: Math.min(mostInput, Math.round(inputTokens + growth)) };
}

function* singles(
  options: GeneratorOptions,
  { input, output, burst }: (typeof independent)[keyof typeof independent],
): Generator<TraceRequest> {
  const random = seeded(options.seed);
  const length = ([mean, deviation, most]: readonly [number, number, number]): number =>
    Math.min(most, Math.max(1, Math.round(random.logNormal(mean, deviation))));
  for (const atSeconds of arrivals(options, { random, scale: 1, from: 0, burst })) {
    yield { atSeconds, inputTokens: length(input), outputTokens: length(output), model: null };
  }
}

interface Arrivals {
  readonly random: Random;
  /** Of the rate. */
  readonly scale: number;
  readonly from: number;
  readonly burst?: number;
}

/** A Poisson process with the rate of the day, in bursts where asked for: one rate for each 10 s. */
function* arrivals(options: GeneratorOptions, { random, scale, from, burst = 0 }: Arrivals): Generator<number> {
  for (let epoch = from; epoch < options.seconds; epoch += burstSeconds) {
    const rate = rateAt(options, epoch + burstSeconds / 2) * scale * random.gamma(burst);
    const end = Math.min(options.seconds, epoch + burstSeconds);
    if (rate <= 0) continue;
    for (let at = epoch + random.exponential(1 / rate); at < end; at += random.exponential(1 / rate)) yield at;
  }
}
