import type { Heartbeat, ModelReport } from "../../contracts/agent.ts";
import type { GpuNeed } from "../../engines/engine.ts";
import { secondsToReady, tierOf, type ModelOnAgent } from "./estimate.ts";

/** An agent as the scheduler sees it. */
export interface AgentSnapshot {
  readonly url: string;
  readonly beat: Heartbeat;
  /** Bytes of models in its disk cache, by model id. */
  readonly cached: ReadonlyMap<string, number>;
}

/** A model that shall become READY somewhere. */
export interface Wanted {
  readonly id: string;
  /** What its engine takes of GPUs; null when it runs without. */
  readonly need: GpuNeed | null;
  /** Whether its engine runs without a GPU where there is none. */
  readonly cpu: boolean;
  /** Agents that shall not be used: they have just refused. */
  readonly except: ReadonlySet<string>;
}

/** How long, and for whom, a model that is loaded is worth keeping. */
export interface Residency {
  /** A model is not evicted in its first seconds of idleness, so that two models do not take turns all the time. */
  readonly minIdleSeconds: number;
  /** Never evicted. */
  readonly pinned: ReadonlySet<string>;
  /** Bytes on each GPU that a model's engine keeps when it sleeps; null when it cannot sleep. */
  readonly asleepBytes: (modelId: string) => number | null;
}

/** A model that has to go first. */
export interface Eviction {
  readonly modelId: string;
  readonly to: "DRAM_CACHED" | "NVME_CACHED";
}

/** Where a model goes, and what that takes. */
export interface Placement {
  readonly agentUrl: string;
  readonly evictions: readonly Eviction[];
  readonly secondsToReady: number;
  /** In words, for logs and `x-penstock-debug`. */
  readonly why: string;
}

/** Taking a model down takes about this long, and its users a wake or a load later: the second is the greater cost. */
const evictionSeconds = 5;

/**
 * Chooses the agent on which a model is ready soonest. An agent that would have to evict others for it pays for what that
 * costs them: the seconds until they are back. Null when no agent can take it now; then `refusal` says why.
 */
export function place(
  wanted: Wanted,
  agents: readonly AgentSnapshot[],
  residency: Residency,
): { readonly placement: Placement | null; readonly refusal: string } {
  const usable = agents.filter(({ url, beat }) => beat.state !== "DRAINING" && !wanted.except.has(url));
  if (usable.length === 0) return { placement: null, refusal: "no agent takes work now" };
  const sizeBytes = knownSize(wanted.id, agents);
  const candidates = usable.flatMap((agent) => candidateOn(agent, { wanted, residency, sizeBytes }));
  const best = candidates.toSorted(
    (a, b) => a.cost - b.cost || (a.placement.agentUrl < b.placement.agentUrl ? -1 : 1),
  )[0];
  if (best !== undefined) return { placement: best.placement, refusal: "" };
  const needed = wanted.need === null ? "" : `${wanted.need.count} GPU(s) with ${memoryWords(wanted.need)} each`;
  return {
    placement: null,
    refusal: `${usable.length} agent(s) have no room for ${needed}, and what they serve is in use, pinned or too fresh`,
  };
}

interface Search {
  readonly wanted: Wanted;
  readonly residency: Residency;
  readonly sizeBytes: number | null;
}

function candidateOn(
  agent: AgentSnapshot,
  { wanted, residency, sizeBytes }: Search,
): { readonly placement: Placement; readonly cost: number }[] {
  const model = modelOn(agent, { id: wanted.id, sizeBytes });
  const evictions = roomFor(agent, { wanted, residency });
  if (evictions === null) return [];
  const own = secondsToReady(model) + evictions.length * evictionSeconds;
  // What the evicted ones lose: the time until they are back, for whoever asks next.
  const others = evictions.reduce((sum, { modelId, to }) => sum + backAfter(agent, { modelId, to }), 0);
  const why =
    `${wanted.id} is ${tierOf(model)} there: ready in about ${own.toFixed(1)} s` +
    (evictions.length === 0
      ? ""
      : `, after ${evictions.map(({ modelId, to }) => `${modelId} goes to ${to}`).join(", ")}`);
  return [{ placement: { agentUrl: agent.url, evictions, secondsToReady: own, why }, cost: own + others }];
}

/** What is known of a model on an agent. */
export function modelOn(
  { beat, cached }: AgentSnapshot,
  { id, sizeBytes }: { id: string; sizeBytes: number | null },
): ModelOnAgent {
  const report = beat.models.find(({ model_id }) => model_id === id) ?? null;
  const fetched = beat.models.find(({ measured_ms, size_bytes }) => (measured_ms.download ?? 0) > 0 && size_bytes > 0);
  return {
    report,
    cachedBytes: cached.get(id) ?? null,
    sizeBytes,
    downloadBytesPerSecond:
      fetched === undefined ? null : fetched.size_bytes / ((fetched.measured_ms.download ?? Number.NaN) / 1_000),
  };
}

/** The models to take down so that the wanted one has its GPU memory; null when even that does not help. */
function roomFor(
  { beat }: AgentSnapshot,
  { wanted, residency }: { wanted: Wanted; residency: Residency },
): Eviction[] | null {
  const { need } = wanted;
  const report = beat.models.find(({ model_id }) => model_id === wanted.id);
  if (report?.cache_state === "READY" || (report?.progress ?? null) !== null || need === null) return [];
  if (beat.gpus.length === 0) return wanted.cpu ? [] : null;
  const free = new Map(beat.gpus.map((gpu) => [gpu.index, freeBytes(gpu)]));
  const needed = (index: number): number =>
    neededBytes(
      need,
      beat.gpus.find((gpu) => gpu.index === index),
    );
  const fits = (): boolean => [...free].filter(([index, bytes]) => bytes >= needed(index)).length >= need.count;
  const evictions: Eviction[] = [];
  for (const victim of victims(beat, { wanted, residency })) {
    if (fits()) break;
    const engine = beat.engines.find(({ model_id }) => model_id === victim.model_id);
    if (engine === undefined || engine.gpus.length === 0) continue;
    const asleepBytes = victim.cache_state === "READY" ? residency.asleepBytes(victim.model_id) : null;
    const released = engine.gpu_memory_bytes - (asleepBytes ?? 0);
    for (const index of engine.gpus) free.set(index, (free.get(index) ?? 0) + released);
    evictions.push({ modelId: victim.model_id, to: asleepBytes === null ? "NVME_CACHED" : "DRAM_CACHED" });
  }
  return fits() ? evictions : null;
}

/** Models that may be taken down, the least recently used first. */
function victims(beat: Heartbeat, { wanted, residency }: { wanted: Wanted; residency: Residency }): ModelReport[] {
  return beat.models
    .filter(
      ({ model_id, running, idle_seconds, cache_state, progress }) =>
        model_id !== wanted.id &&
        (cache_state === "READY" || cache_state === "SLEEPING") &&
        progress === null &&
        running === 0 &&
        idle_seconds >= residency.minIdleSeconds &&
        !residency.pinned.has(model_id),
    )
    .toSorted((a, b) => b.idle_seconds - a.idle_seconds);
}

type Gpu = Heartbeat["gpus"][number];

function freeBytes({ memory_total_bytes, memory_reserved_bytes }: Gpu): number {
  return memory_total_bytes - memory_reserved_bytes;
}

function neededBytes({ memory }: GpuNeed, gpu: Gpu | undefined): number {
  return "bytes" in memory ? memory.bytes : memory.fraction * (gpu?.memory_total_bytes ?? Number.POSITIVE_INFINITY);
}

function backAfter(agent: AgentSnapshot, { modelId, to }: Eviction): number {
  const { report, ...model } = modelOn(agent, { id: modelId, sizeBytes: null });
  if (report === null) return 0;
  const down = { ...report, cache_state: "UNLOADED", cache_level: to, progress: null } as const;
  // A model that nobody has asked for in an hour is hardly missed.
  const missed = 1 / (1 + report.idle_seconds / 600);
  return missed * secondsToReady({ ...model, sizeBytes: report.size_bytes, report: down });
}

function knownSize(id: string, agents: readonly AgentSnapshot[]): number | null {
  for (const { beat, cached } of agents) {
    const size = cached.get(id) ?? beat.models.find(({ model_id }) => model_id === id)?.size_bytes ?? 0;
    if (size > 0) return size;
  }
  return null;
}

function memoryWords({ memory }: GpuNeed): string {
  return "bytes" in memory ? `${(memory.bytes / 2 ** 30).toFixed(1)} GiB` : `${Math.round(memory.fraction * 100)} %`;
}
