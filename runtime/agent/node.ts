import { randomBytes } from "node:crypto";
import { statfs } from "node:fs/promises";
import { totalmem } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type {
  AgentState,
  DrainResult,
  Heartbeat,
  HeartbeatRequest,
  LoadAdapterRequest,
  LoadAdapterResult,
  LoadModelRequest,
  LoadModelResult,
  LoadProgress,
  UnloadAdapterRequest,
  UnloadAdapterResult,
  UnloadModelRequest,
  UnloadModelResult,
} from "../contracts/agent.ts";
import { PenstockError } from "../contracts/errors.ts";
import type { ModelCache } from "./cache/cache.ts";
import type { GpuSlots } from "./gpus/slots.ts";
import type { EngineInUse, Lifecycle } from "./models/lifecycle.ts";

/** What a node is made of. */
export interface NodeOptions {
  readonly agentId: string;
  readonly lifecycle: Lifecycle;
  readonly cache: ModelCache;
  readonly cacheDirectory: string;
  readonly cacheBudgetBytes: number | null;
  readonly gpus: GpuSlots;
  /** Why the GPUs cannot be used or are not known, while their driver is broken. */
  readonly gpuProblem: () => string | null;
  /** How long a drain waits for requests that run. */
  readonly drainTimeoutMs: number;
}

/** Between two looks at the running requests of a drain. */
const drainPollMs = 20;

/** The cache counts its revisions from the start of the process on. */
const bootId = randomBytes(6).toString("hex");

/** The agent as its protocol shows it: one node with its models, GPUs, disk and state. */
export class Node {
  readonly #options: NodeOptions;
  /** Why the node drains; null while it does not. */
  #draining: string | null = null;

  constructor(options: NodeOptions) {
    this.#options = options;
  }

  get draining(): boolean {
    return this.#draining !== null;
  }

  get lifecycle(): Lifecycle {
    return this.#options.lifecycle;
  }

  get cache(): ModelCache {
    return this.#options.cache;
  }

  /** Requests that engines are working on. */
  get running(): number {
    return this.#options.lifecycle.records.reduce((sum, record) => sum + record.running, 0);
  }

  async load(request: LoadModelRequest, onProgress: (progress: LoadProgress) => void): Promise<LoadModelResult> {
    this.#refuseWhileDraining();
    if (request.model.id !== request.model_id) {
      throw new PenstockError("invalid_value", "`model.id` must be the same as `model_id`.", { param: "model.id" });
    }
    return this.#options.lifecycle.load(request, onProgress);
  }

  async unload({ model_id, to }: UnloadModelRequest): Promise<UnloadModelResult> {
    return this.#options.lifecycle.unload(model_id, to);
  }

  async loadAdapter(request: LoadAdapterRequest): Promise<LoadAdapterResult> {
    this.#refuseWhileDraining();
    return this.#options.lifecycle.loadAdapter(request);
  }

  async unloadAdapter(request: UnloadAdapterRequest): Promise<UnloadAdapterResult> {
    return this.#options.lifecycle.unloadAdapter(request);
  }

  /** The engine of a model, in use until it is disposed of. */
  acquire(modelId: string, adapter: string | undefined): EngineInUse {
    this.#refuseWhileDraining();
    return this.#options.lifecycle.acquire(modelId, adapter);
  }

  /** Everything that a gateway needs to know, without asking an engine or the driver anything. */
  async heartbeat({ known_cache_revision }: HeartbeatRequest = {}): Promise<Heartbeat> {
    const { agentId, lifecycle, cache, cacheDirectory, cacheBudgetBytes, gpus } = this.#options;
    // A disk that is gone must not silence the heartbeat: it says DEGRADED and that no byte is free.
    const disk = await statfs(cacheDirectory).catch(() => undefined);
    const { records } = lifecycle;
    const revision = `${bootId}.${cache.revision}`;
    return {
      agent_id: agentId,
      ...this.#state(disk !== undefined),
      gpus: gpus.snapshot().map((gpu) => ({
        index: gpu.index,
        uuid: gpu.uuid,
        name: gpu.name,
        memory_total_bytes: gpu.memoryTotalBytes,
        memory_used_bytes: gpu.memoryUsedBytes,
        memory_reserved_bytes: gpu.reservedBytes,
        utilization: gpu.utilisationPercent === null ? null : gpu.utilisationPercent / 100,
        nvlink_peers: [...gpu.nvlinkPeers],
      })),
      memory: { total_bytes: totalMemoryBytes(), free_bytes: process.availableMemory() },
      disk: {
        total_bytes: disk === undefined ? 0 : disk.blocks * disk.bsize,
        free_bytes: disk === undefined ? 0 : disk.bavail * disk.bsize,
        cache_bytes: cache.sizeBytes,
        cache_budget_bytes: cacheBudgetBytes,
      },
      cache: { revision, entries: known_cache_revision === revision ? null : cacheEntries(cache) },
      engines: records.flatMap(({ id, engineSpec, version, engine, gpus: held, crashes }) =>
        engine === null
          ? []
          : {
              model_id: id,
              kind: engineSpec.kind,
              version: version?.join(".") ?? null,
              pid: engine.pid,
              gpus: [...(held?.indices ?? [])],
              gpu_memory_bytes: held?.memoryBytesPerGpu ?? 0,
              restarts: crashes,
            },
      ),
      models: lifecycle.reports(),
    };
  }

  /**
   * Takes no new work, waits until what runs has ended (at most until the deadline), then stops all engines.
   * `reason` shows in the heartbeat.
   */
  async drain(reason: string, deadlineMs: number = this.#options.drainTimeoutMs): Promise<DrainResult> {
    this.#draining ??= reason;
    const deadline = performance.now() + deadlineMs;
    while (this.running > 0 && performance.now() < deadline) await delay(drainPollMs);
    const { running } = this;
    await this.#options.lifecycle.stop();
    return { status: running === 0 ? "drained" : "busy", running };
  }

  #state(hasDisk: boolean): { state: AgentState; reason: string | null } {
    if (this.#draining !== null) return { state: "DRAINING", reason: this.#draining };
    if (!hasDisk) return { state: "DEGRADED", reason: "The cache's disk cannot be reached." };
    const gpuProblem = this.#options.gpuProblem();
    if (gpuProblem !== null) return { state: "DEGRADED", reason: gpuProblem };
    const { records } = this.#options.lifecycle;
    if (records.some(({ transition }) => transition?.kind === "up")) return { state: "LOADING_MODEL", reason: null };
    if (this.running > 0) return { state: "INFERRING", reason: null };
    const failed = records.find((record) => record.state === "FAILED");
    return failed === undefined
      ? { state: "IDLE", reason: null }
      : { state: "DEGRADED", reason: `${failed.id}: ${failed.reason ?? "failed"}` };
  }

  #refuseWhileDraining(): void {
    if (this.#draining === null) return;
    throw new PenstockError("draining", "This agent is draining; send the request elsewhere.", {
      retryAfterSeconds: 1,
    });
  }
}

/** Of the container, where it has a limit. */
function totalMemoryBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

function cacheEntries(cache: ModelCache): NonNullable<Heartbeat["cache"]["entries"]> {
  return cache.list().map(({ modelIds, sizeBytes, pinned }) => ({
    model_ids: [...modelIds],
    size_bytes: sizeBytes,
    pinned,
  }));
}
