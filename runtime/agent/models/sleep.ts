import { PenstockError } from "../../contracts/errors.ts";
import { engineOf } from "../../engines/index.ts";
import type { RunningEngine } from "../supervisor/start.ts";
import { proveAdapters } from "./adapters.ts";
import { bytesPerGpu, prove, type Ascent } from "./bring-up.ts";
import type { ModelHost } from "./host.ts";
import { reportPhase, type ModelRecord } from "./record.ts";

/** Weights of 140 GB move to RAM in under 10 s over PCIe; whatever takes minutes is stuck. */
const sleepTimeoutMs = 300_000;

/** A sleeping engine keeps weights in RAM beside what the node needs for itself. */
const ramMargin = 1.05;

/** Throws `unsupported` when the engine, or this spec of it, cannot sleep. */
export function requireSleep({ id, engineSpec: spec }: ModelRecord): void {
  if (engineOf(spec).sleep(spec, id) !== null) return;
  throw new PenstockError(
    "unsupported",
    `The ${spec.kind} engine cannot sleep${spec.kind === "vllm" ? " with sleepLevel 0" : ""}; unload to NVME_CACHED instead.`,
    { param: "to" },
  );
}

/**
 * GPU_RESIDENT -> DRAM_CACHED. No request may be running. Throws `insufficient_memory` before anything is done, or
 * `engine_died`: the engine is in an unknown state then, and the caller ends it.
 */
export async function putToSleep(record: ModelRecord, engine: RunningEngine): Promise<void> {
  const { engineSpec } = record;
  const described = engineOf(engineSpec);
  requireSleep(record);
  requireRam(record);
  const started = performance.now();
  await engine.callAll(described.sleep(engineSpec, record.id) ?? [], sleepTimeoutMs);
  record.gpus?.resize(Math.max(1, described.gpus(engineSpec, record.sizeBytes)?.asleepBytes ?? 1));
  record.state = "SLEEPING";
  record.tier = "DRAM_CACHED";
  record.measuredMs.sleep = Math.round(performance.now() - started);
}

/**
 * DRAM_CACHED -> an engine that serves and is proven. The caller sets READY, or ends the engine when this throws.
 * Throws `insufficient_gpu_memory` with the engine still asleep when others took its memory meanwhile.
 */
export async function wake(ascent: Ascent, engine: RunningEngine): Promise<void> {
  const { record, host } = ascent;
  const { engineSpec } = record;
  const described = engineOf(engineSpec);
  regrow(record, host);
  const started = performance.now();
  reportPhase(record, "wake", record.measuredMs.wake);
  await engine.callAll(described.wake(engineSpec, record.id), sleepTimeoutMs);
  await prove(ascent, engine);
  await proveAdapters(ascent, engine);
  record.measuredMs.wake = Math.round(performance.now() - started);
}

function regrow(record: ModelRecord, host: ModelHost): void {
  const need = engineOf(record.engineSpec).gpus(record.engineSpec, record.sizeBytes);
  if (need !== null) record.gpus?.resize(bytesPerGpu(need, host));
}

function requireRam({ id, sizeBytes, engineSpec }: ModelRecord): void {
  if (engineSpec.kind !== "vllm" || engineSpec.sleepLevel !== 1) return;
  // Counts the limit of the container, not only what the machine has.
  const free = process.availableMemory();
  const needed = sizeBytes * ramMargin;
  if (needed <= free) return;
  throw new PenstockError(
    "insufficient_memory",
    `${id} needs ${gib(needed)} GiB of RAM to sleep, and ${gib(free)} GiB are free; unload other models, ` +
      "use sleepLevel 2, or unload to NVME_CACHED.",
  );
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1);
}
