import { statfs } from "node:fs/promises";
import { freemem, totalmem } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type {
  AgentState,
  Heartbeat,
  LoadModelRequest,
  LoadModelResult,
  LoadProgress,
  UnloadModelRequest,
  UnloadModelResult,
} from "../contracts/agent.ts";
import { PenstockError } from "../contracts/errors.ts";
import { engines } from "../engines/index.ts";
import type { EngineInUse, Lifecycle } from "./lifecycle.ts";

/** What a node is made of. */
export interface NodeOptions {
  readonly agentId: string;
  readonly lifecycle: Lifecycle;
  readonly cacheDirectory: string;
  /** How long a drain waits for requests that run. */
  readonly drainTimeoutMs: number;
}

/** Between two looks at the running requests of a drain. */
const drainPollMs = 20;

/** The agent as its protocol shows it: one node with its models, disk and state. */
export class Node {
  readonly #options: NodeOptions;
  #draining = false;

  constructor(options: NodeOptions) {
    this.#options = options;
  }

  get draining(): boolean {
    return this.#draining;
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
    if (to === "DRAM_CACHED") {
      const record = this.#options.lifecycle.records.find(({ id }) => id === model_id);
      if (record !== undefined && !engines[record.engineSpec.kind].capabilities.sleep) {
        throw new PenstockError(
          "unsupported",
          `The ${record.engineSpec.kind} engine cannot sleep; unload to NVME_CACHED instead.`,
          { param: "to" },
        );
      }
    }
    const target = to === "REMOTE" ? "REMOTE" : "NVME_CACHED";
    const wasLoaded = await this.#options.lifecycle.unload(model_id, target);
    return { status: wasLoaded ? "unloaded" : "not_loaded", model_id, cache_level: target };
  }

  /** The engine of a model, in use until it is disposed of. */
  acquire(modelId: string): EngineInUse {
    this.#refuseWhileDraining();
    return this.#options.lifecycle.acquire(modelId);
  }

  async heartbeat(): Promise<Heartbeat> {
    const { agentId, lifecycle, cacheDirectory } = this.#options;
    // A disk that is gone must not silence the heartbeat: it says DEGRADED and that no byte is free.
    const disk = await statfs(cacheDirectory).catch(() => undefined);
    const { records } = lifecycle;
    return {
      agent_id: agentId,
      state: this.#state(disk !== undefined),
      gpus: [],
      memory: { total_bytes: totalmem(), free_bytes: freemem() },
      disk: {
        total_bytes: disk === undefined ? 0 : disk.blocks * disk.bsize,
        free_bytes: disk === undefined ? 0 : disk.bavail * disk.bsize,
        cache_bytes: records.reduce((sum, record) => sum + (record.tier === "REMOTE" ? 0 : record.sizeBytes), 0),
      },
      engines: records
        .filter((record) => record.engine !== null)
        .map((record) => ({
          model_id: record.id,
          kind: record.engineSpec.kind,
          pid: record.engine?.pid ?? null,
          restarts: record.crashes,
        })),
      models: lifecycle.reports(),
    };
  }

  /** Takes no new work, waits until what runs has ended (at most the drain time-out), and says what is left. */
  async drain(): Promise<{ status: "drained" | "busy"; running: number }> {
    this.#draining = true;
    const deadline = performance.now() + this.#options.drainTimeoutMs;
    while (this.running > 0 && performance.now() < deadline) await delay(drainPollMs);
    return { status: this.running === 0 ? "drained" : "busy", running: this.running };
  }

  #state(hasDisk: boolean): AgentState {
    if (this.#draining) return "DRAINING";
    if (!hasDisk) return "DEGRADED";
    const { records } = this.#options.lifecycle;
    if (records.some((record) => record.loading !== null)) return "LOADING_MODEL";
    if (this.running > 0) return "INFERRING";
    return records.some((record) => record.state === "FAILED") ? "DEGRADED" : "IDLE";
  }

  #refuseWhileDraining(): void {
    if (this.#draining) {
      throw new PenstockError("draining", "This agent is draining; send the request elsewhere.", {
        retryAfterSeconds: 1,
      });
    }
  }
}
