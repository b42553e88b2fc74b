import type { LoadPhase, ModelReport } from "../../contracts/agent.ts";
import type { Tier } from "../../contracts/model.ts";

/** Guesses for what no agent has measured yet. */
export const guesses = {
  /** An object store over a 25 Gb/s network, and a local NVMe disk. */
  downloadBytesPerSecond: 1e9,
  readBytesPerSecond: 2e9,
  /** vLLM from process start to its first token beside reading the weights (vllm#19824 says 145 s without compiled graphs). */
  startSeconds: 60,
  /** vLLM level 1 moves weights at about 21 GB/s (61 GB in 2.87 s was seen). */
  wakeSeconds: 3,
  /** A model whose size nobody knows: 8 billion parameters in 16 bits. */
  sizeBytes: 16e9,
} as const;

/** What is known of a model on one agent. */
export interface ModelOnAgent {
  /** Null when the agent was never asked for it. */
  readonly report: ModelReport | null;
  /** Bytes in the agent's disk cache; null when it is not there. */
  readonly cachedBytes: number | null;
  /** Bytes as any agent knows them; null when none does. */
  readonly sizeBytes: number | null;
  /** Download speed that this agent had with whatever model; null when it has fetched none. */
  readonly downloadBytesPerSecond: number | null;
}

/** Where a model is on an agent: what the report says, or else the disk. */
export function tierOf({ report, cachedBytes }: ModelOnAgent): Tier {
  if (report !== null && report.cache_level !== "REMOTE") return report.cache_level;
  return cachedBytes === null ? "REMOTE" : "NVME_CACHED";
}

/**
 * Seconds until the model could answer on this agent, from what the agent has measured before and from its tier, its size
 * and its progress now. 0 when it is READY.
 */
export function secondsToReady(model: ModelOnAgent): number {
  const { report } = model;
  if (report?.cache_state === "READY") return 0;
  if (report !== null && report.progress !== null) return remaining(model, report);
  const tier = tierOf(model);
  if (tier === "DRAM_CACHED") return seconds(report?.measured_ms.wake) ?? guesses.wakeSeconds;
  return (tier === "REMOTE" ? downloadSeconds(model) : 0) + startSeconds(model);
}

function remaining(model: ModelOnAgent, { progress, measured_ms }: ModelReport): number {
  const eta = progress?.eta_seconds ?? null;
  const byPhase: Record<LoadPhase, () => number> = {
    download: () => (eta ?? downloadSeconds(model)) + startSeconds(model),
    verify: () => (eta ?? 0) + startSeconds(model),
    load: () => eta ?? startSeconds(model),
    wake: () => eta ?? seconds(measured_ms.wake) ?? guesses.wakeSeconds,
    prove: () => eta ?? 1,
    adapters: () => eta ?? 1,
  };
  return byPhase[progress?.phase ?? "load"]();
}

function downloadSeconds({ report, sizeBytes, downloadBytesPerSecond }: ModelOnAgent): number {
  const measured = seconds(report?.measured_ms.download);
  if (measured !== null) return measured;
  return (sizeBytes ?? guesses.sizeBytes) / (downloadBytesPerSecond ?? guesses.downloadBytesPerSecond);
}

function startSeconds({ report, sizeBytes, cachedBytes }: ModelOnAgent): number {
  const measured = seconds(report?.measured_ms.load);
  if (measured !== null) return measured;
  return guesses.startSeconds + (cachedBytes ?? sizeBytes ?? guesses.sizeBytes) / guesses.readBytesPerSecond;
}

function seconds(ms: number | null | undefined): number | null {
  return ms === undefined || ms === null ? null : ms / 1_000;
}
