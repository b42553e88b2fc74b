import { join } from "node:path";
import { PenstockError } from "../../contracts/errors.ts";
import type { Engine, GpuNeed } from "../../engines/engine.ts";
import type { EngineSpec } from "../../contracts/engine.ts";
import { engineOf } from "../../engines/index.ts";
import type { GpuReservation } from "../gpus/slots.ts";
import { freePorts } from "../supervisor/ports.ts";
import { startEngine, type RunningEngine } from "../supervisor/start.ts";
import { replayAdapters, startAdapters } from "./adapters.ts";
import { askGolden, compareGolden } from "./golden.ts";
import type { ModelHost } from "./host.ts";
import { report, reportPhase, type ModelRecord } from "./record.ts";
import type { HeldFiles } from "./weights.ts";

/** One model on its way up. */
export interface Ascent {
  readonly record: ModelRecord;
  readonly host: ModelHost;
  readonly signal: AbortSignal;
}

/**
 * REMOTE or NVME_CACHED -> an engine that serves and is proven: files, GPU memory, process, golden prompt, adapters.
 * The caller sets READY. What was taken is given back when it throws.
 */
export async function bringUp(ascent: Ascent): Promise<void> {
  const { record, host } = ascent;
  const engine = engineOf(record.engineSpec);
  checkSpec(record, engine);
  const version = await host.versions.of(
    record.engineSpec.kind,
    host.engineCommands[record.engineSpec.kind] ?? engine.command,
  );
  record.version = version;
  const modelPath = await modelPathOf(ascent, engine);
  const started = performance.now();
  record.state = "LOADING_TO_GPU";
  reportPhase(record, "load", record.measuredMs.load);
  try {
    record.gpus = reserveGpus(ascent, engine);
    const running = await launch(ascent, { engine, modelPath });
    record.engine = running;
    await prove(ascent, running);
    if (running.launch.ready !== null) await replayAdapters(ascent, running);
  } catch (error) {
    await letGo(record, host);
    throw error;
  }
  record.measuredMs.load = Math.round(performance.now() - started);
}

/** Ends the engine if there is one, and gives back its GPU memory and files. */
export async function letGo(record: ModelRecord, host: ModelHost): Promise<void> {
  const { engine } = record;
  record.engine = null;
  record.load = null;
  await engine?.stop(host.stopTimeoutMs);
  record.gpus?.[Symbol.dispose]();
  record.gpus = null;
  record.files?.[Symbol.dispose]();
  record.files = null;
  for (const adapter of record.adapters.values()) {
    adapter.files?.[Symbol.dispose]();
    adapter.files = null;
  }
}

/**
 * Asks the golden prompt: what the engine answered when it first served these files is kept, and every later engine must
 * answer the same. Throws `verification_failed`.
 */
export async function prove({ record, host }: Ascent, engine: RunningEngine): Promise<void> {
  if (engine.launch.ready === null) return;
  reportPhase(record, "prove", null);
  const now = await askGolden(engine, engineOf(record.engineSpec).golden(record.engineSpec, record.id));
  if (now === null) {
    host.log.warn({ model: record.id }, "the engine refuses every golden prompt; its answers are not proven");
    return;
  }
  if (record.golden === null) record.golden = now;
  else compareGolden(record.golden, now);
}

/** Bytes on each GPU that a need comes to on these GPUs. */
export function bytesPerGpu(need: GpuNeed, host: ModelHost): number {
  if ("bytes" in need.memory) return Math.ceil(need.memory.bytes);
  // Chips that share the memory of their CPU tell no size; there is nothing to take a part of, and a byte is refused or not.
  const sizes = host.gpus
    .snapshot()
    .flatMap(({ memoryTotalBytes }) => (memoryTotalBytes > 0 ? [memoryTotalBytes] : []));
  return sizes.length === 0 ? 1 : Math.ceil(need.memory.fraction * Math.min(...sizes));
}

function checkSpec({ id, spec, engineSpec }: ModelRecord, engine: Engine<EngineSpec>): void {
  const refusals = [...engine.refusals(engineSpec)];
  const formats = engine.formats(engineSpec);
  if (!formats.includes(spec.format)) {
    refusals.push(
      `The ${engineSpec.kind} engine reads ${formats.join(" or ")} with this spec, and ${id} is ${spec.format}.`,
    );
  }
  if (refusals.length > 0) throw new PenstockError("unsupported", refusals.join(" "), { param: "engine" });
}

async function modelPathOf(ascent: Ascent, engine: Engine<EngineSpec>): Promise<string> {
  const { record, host } = ascent;
  const { spec, engineSpec } = record;
  if (engine.streams(engineSpec, spec.source) && !host.weights.has(spec)) {
    record.golden = null;
    return spec.source;
  }
  const files = await fetchFiles(ascent);
  record.files = files;
  record.sizeBytes = files.sizeBytes;
  record.tier = "NVME_CACHED";
  return files.entryPath;
}

async function fetchFiles({ record, host, signal }: Ascent): Promise<HeldFiles> {
  const started = performance.now();
  record.state = "DOWNLOADING";
  const files = await host.weights.ensure(record.spec, {
    signal,
    onProgress: ({ phase, bytesDone, bytesTotal, bytesPerSecond, etaSeconds }) => {
      record.state = phase === "download" ? "DOWNLOADING" : "VERIFYING";
      report(record, {
        phase,
        bytes_done: bytesDone,
        bytes_total: bytesTotal,
        bytes_per_second: bytesPerSecond,
        eta_seconds: etaSeconds,
      });
    },
  });
  if (!files.fromCache) {
    record.measuredMs.download = Math.round(performance.now() - started);
    // Other bytes may answer otherwise.
    record.golden = null;
    for (const adapter of record.adapters.values()) adapter.golden = null;
  }
  return files;
}

function reserveGpus({ record, host }: Ascent, engine: Engine<EngineSpec>): GpuReservation | null {
  const need = engine.gpus(record.engineSpec, record.sizeBytes);
  if (need === null) return null;
  if (host.gpus.snapshot().length === 0) {
    if (engine.capabilities.cpu) return null;
    throw new PenstockError(
      "insufficient_gpu_memory",
      `${record.id} needs ${need.count} GPU(s) for ${record.engineSpec.kind}, and this node has none; ` +
        "nvidia-smi finds no device.",
    );
  }
  return host.gpus.reserve({
    modelId: record.id,
    gpuCount: need.count,
    memoryBytesPerGpu: bytesPerGpu(need, host),
    needsNvLink: need.nvlink,
  });
}

async function launch(
  ascent: Ascent,
  { engine, modelPath }: { engine: Engine<EngineSpec>; modelPath: string },
): Promise<RunningEngine> {
  const { record, host, signal } = ascent;
  const ports = await freePorts();
  const workDirectory = join(host.stateDirectory, "engines", String(ports.api));
  const adapters = engine.capabilities.adapters === "start" ? await startAdapters(ascent) : {};
  return startEngine({
    launch: engine.launch(record.engineSpec, {
      command: host.engineCommands[record.engineSpec.kind] ?? engine.command,
      version: record.version,
      modelPath,
      servedName: record.id,
      ports,
      adapters,
      gpus: record.gpus?.indices ?? [],
      workDirectory,
      compileCacheDirectory: join(host.stateDirectory, "compiled"),
      group: host.group,
      logLevel: host.engineLogLevel,
    }),
    ports,
    env: modelPath === record.spec.source ? { ...host.engineEnv, ...host.streamEnv } : host.engineEnv,
    workDirectory,
    readyTimeoutMs: host.readyTimeoutMs,
    signal,
    log: host.log.child({ model: record.id }),
  });
}
