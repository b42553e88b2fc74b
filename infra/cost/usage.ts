import type { Assumptions } from "./assumptions.ts";
import { BusyTime } from "./busy-time.ts";
import { microUsdOf } from "./money.ts";

/** What of the gateway's usage record costs are made of. */
export interface UsedRequest {
  readonly time: string;
  readonly requestId: string;
  readonly tenant: string;
  readonly model: string;
  readonly adapter: string | null;
  readonly class: string;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly audioSeconds: number;
  readonly durationMs: number;
  /** Who answered; null when no replica did. */
  readonly replica: string | null;
  readonly provider: string | null;
  readonly costUsd: number;
  readonly coldStartSeconds: number;
}

/** Who used what: costs are told for each of these. */
export interface UsageKey {
  readonly tenant: string;
  readonly model: string;
  readonly adapter: string | null;
  readonly class: string;
  /** Who answered when no fleet of the stack did. */
  readonly provider: string | null;
}

/** All requests of one key, together. */
export interface UsageSums extends UsageKey {
  readonly requests: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly durationSeconds: number;
  readonly coldStartSeconds: number;
  /** Tokens by what they cost an engine, in completion tokens. */
  readonly work: number;
  /** What the provider charged, in millionths of a USD. */
  readonly providerMicroUsd: number;
}

/** Seconds that the replicas of a model spent, together. */
export interface ReplicaSeconds {
  readonly busy: number;
  readonly idle: number;
  readonly coldStart: number;
}

/** What a second of audio costs an engine, in completion tokens: an encoder's frames are prompt tokens of 20 ms. */
const workOfAudioSecond = 12.5;

type Weights = Pick<Assumptions, "promptTokenWeight" | "cachedTokenWeight">;
type Sums = { -readonly [Field in keyof UsageSums]: UsageSums[Field] };

/** Sums up usage records as they are read. A request that is there twice counts once: files repeat what a crash left open. */
export class UsageSummary {
  readonly #weights: Weights;
  readonly #sums = new Map<string, Sums>();
  readonly #seen = new Set<string>();
  /** By model, then replica. */
  readonly #busy = new Map<string, Map<string, BusyTime>>();
  #firstMs = Number.POSITIVE_INFINITY;
  #lastMs = Number.NEGATIVE_INFINITY;
  #repeated = 0;

  constructor(weights: Weights) {
    this.#weights = weights;
  }

  add(request: UsedRequest): void {
    if (this.#seen.has(request.requestId)) {
      this.#repeated += 1;
      return;
    }
    this.#seen.add(request.requestId);
    const endMs = Date.parse(request.time);
    this.#firstMs = Math.min(this.#firstMs, endMs - request.durationMs);
    this.#lastMs = Math.max(this.#lastMs, endMs);
    this.#work(request, endMs);
    const sums = this.#sumsOf(request);
    sums.requests += 1;
    sums.promptTokens += request.promptTokens;
    sums.cachedTokens += request.cachedTokens;
    sums.completionTokens += request.completionTokens;
    sums.durationSeconds += request.durationMs / 1000;
    sums.coldStartSeconds += request.coldStartSeconds;
    sums.work += this.#workOf(request);
    if (request.provider !== null) sums.providerMicroUsd += microUsdOf(request.costUsd);
  }

  /** Sorted by tenant, model, adapter and class. */
  rows(): UsageSums[] {
    return [...this.#sums].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, sums]) => sums);
  }

  /** Hours from the first request to the end of the last; 0 without any. */
  get hours(): number {
    return this.#seen.size === 0 ? 0 : (this.#lastMs - this.#firstMs) / 3_600_000;
  }

  /** The time of it, in ISO 8601; null without any request. */
  get period(): { readonly from: string; readonly to: string } | null {
    if (this.#seen.size === 0) return null;
    return { from: new Date(this.#firstMs).toISOString(), to: new Date(this.#lastMs).toISOString() };
  }

  /** Records that were there before. */
  get repeated(): number {
    return this.#repeated;
  }

  /**
   * What the records tell of replicas' time, by model: at work is when at least one request was with the replica. Of idle
   * time they tell nothing.
   */
  times(): ReadonlyMap<string, ReplicaSeconds> {
    const times = new Map<string, ReplicaSeconds>();
    for (const { model, provider, coldStartSeconds } of this.#sums.values()) {
      if (provider !== null) continue;
      const replicas = [...(this.#busy.get(model)?.values() ?? [])];
      const busy = replicas.reduce((sum, replica) => sum + replica.seconds(), 0);
      const before = times.get(model)?.coldStart ?? 0;
      times.set(model, { busy, idle: 0, coldStart: before + coldStartSeconds });
    }
    return times;
  }

  /** A request is with its replica from when that was ready until its end. */
  #work({ model, replica, durationMs, coldStartSeconds }: UsedRequest, endMs: number): void {
    if (replica === null) return;
    const replicas = this.#busy.get(model) ?? new Map<string, BusyTime>();
    this.#busy.set(model, replicas);
    const busy = replicas.get(replica) ?? new BusyTime();
    replicas.set(replica, busy);
    busy.add(endMs - Math.max(0, durationMs - coldStartSeconds * 1000), endMs);
  }

  #workOf({ promptTokens, cachedTokens, completionTokens, audioSeconds }: UsedRequest): number {
    const { promptTokenWeight, cachedTokenWeight } = this.#weights;
    const fresh = Math.max(0, promptTokens - cachedTokens);
    return (
      completionTokens + fresh * promptTokenWeight + cachedTokens * cachedTokenWeight + audioSeconds * workOfAudioSecond
    );
  }

  #sumsOf({ tenant, model, adapter, class: requestClass, provider }: UsedRequest): Sums {
    const key = JSON.stringify([tenant, model, adapter, requestClass, provider]);
    const found = this.#sums.get(key);
    if (found !== undefined) return found;
    const sums: Sums = {
      tenant,
      model,
      adapter,
      class: requestClass,
      provider,
      requests: 0,
      promptTokens: 0,
      cachedTokens: 0,
      completionTokens: 0,
      durationSeconds: 0,
      coldStartSeconds: 0,
      work: 0,
      providerMicroUsd: 0,
    };
    this.#sums.set(key, sums);
    return sums;
  }
}

const sample = /^penstock_gateway_model_replica_seconds\{([^}]*)\} ([0-9.e+]+)(?: \d+)?$/;
const phases = { busy: "busy", idle: "idle", cold_start: "coldStart" } as const;

/**
 * Reads `penstock_gateway_model_replica_seconds` out of one gateway's metrics page. Each gateway watches all replicas, so
 * the page of one is the whole.
 */
export function replicaSeconds(metrics: string): ReadonlyMap<string, ReplicaSeconds> {
  const times = new Map<string, ReplicaSeconds>();
  for (const line of metrics.split("\n")) {
    const [, labels, value] = sample.exec(line) ?? [];
    const model = /(?:^|,)model="((?:[^"\\]|\\.)*)"/.exec(labels ?? "")?.[1];
    const phase = /(?:^|,)phase="(busy|idle|cold_start)"/.exec(labels ?? "")?.[1];
    if (model === undefined || phase === undefined || !Number.isFinite(Number(value))) continue;
    const before = times.get(model) ?? { busy: 0, idle: 0, coldStart: 0 };
    // The expression lets only these three through.
    times.set(model, { ...before, [phases[phase as keyof typeof phases]]: Number(value) });
  }
  return times;
}
