import { setTimeout as delay } from "node:timers/promises";
import type { LoadModelRequest, LoadModelResult, LoadProgress, ModelReport } from "../contracts/agent.ts";
import { PenstockError, toPenstockError } from "../contracts/errors.ts";
import type { ModelSpec } from "../contracts/model.ts";
import { engineLaunch } from "../engines/index.ts";
import type { Logger } from "../lib/log.ts";
import { newRecord, reportOf, type ModelRecord } from "./model.ts";
import { freePort, startEngine, type RunningEngine } from "./supervisor.ts";

/** Bytes of a load, without the model's name. */
export interface WeightsProgress {
  readonly phase: "download" | "verify";
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly bytesPerSecond: number;
  readonly etaSeconds: number | null;
}

/** What the lifecycle needs of the cache: a model's verified files on local disk. */
export interface Weights {
  ensure(
    spec: ModelSpec,
    options: { onProgress: (progress: WeightsProgress) => void; signal: AbortSignal },
  ): Promise<{ readonly entryPath: string; readonly sizeBytes: number; readonly fromCache: boolean }>;
  remove(spec: ModelSpec): Promise<void>;
}

/** What a lifecycle is made of. */
export interface LifecycleOptions {
  readonly weights: Weights;
  /** Environment of every engine. */
  readonly engineEnv: Readonly<Record<string, string>>;
  readonly engineLogLevel: string;
  readonly readyTimeoutMs: number;
  /** How long an engine may take to stop before it is killed. */
  readonly stopTimeoutMs: number;
  /** Where the gateway reaches the engine of a model through this agent. */
  readonly endpointUrl: (modelId: string) => string;
  readonly log: Logger;
}

/** An engine that a request holds in use. */
export interface EngineInUse extends Disposable {
  readonly origin: string;
  /** Whether the engine's process ends within `ms`. */
  goneWithin(ms: number): Promise<boolean>;
}

/** Models on one agent: load, unload, and the requests that keep them in use. */
export class Lifecycle {
  readonly #records = new Map<string, ModelRecord>();
  readonly #options: LifecycleOptions;
  readonly #stopping = new AbortController();

  constructor(options: LifecycleOptions) {
    this.#options = options;
  }

  /** All models that this agent was ever asked for. */
  get records(): readonly ModelRecord[] {
    return [...this.#records.values()];
  }

  /** The heartbeat's lines. */
  reports(): ModelReport[] {
    return this.records.map((record) => reportOf(record, this.#options.endpointUrl(record.id)));
  }

  /**
   * Brings a model to READY. Idempotent: callers that come while it loads wait for the same load,
   * and a caller that leaves does not end it. Throws the reason why it cannot be loaded.
   */
  async load(request: LoadModelRequest, onProgress: (progress: LoadProgress) => void): Promise<LoadModelResult> {
    const record = this.#recordFor(request);
    const status = record.state === "READY" ? "already_loaded" : "loaded";
    if (record.state !== "READY") {
      record.listeners.add(onProgress);
      try {
        record.loading ??= this.#bringUp(record).finally(() => (record.loading = null));
        await record.loading;
      } finally {
        record.listeners.delete(onProgress);
      }
    }
    return {
      status,
      model_id: record.id,
      inference_endpoint_url: this.#options.endpointUrl(record.id),
      cache_state: record.state,
    };
  }

  /** Takes a model down to a tier. Answers false when it was not loaded. Throws `model_in_use` while requests run. */
  async unload(modelId: string, to: "NVME_CACHED" | "REMOTE"): Promise<boolean> {
    const record = this.#records.get(modelId);
    if (record === undefined) return false;
    await record.loading?.catch(() => undefined);
    if (record.running > 0) {
      throw new PenstockError("model_in_use", `${modelId} is working on ${record.running} requests; try again later.`, {
        retryAfterSeconds: 5,
      });
    }
    const wasLoaded = record.engine !== null;
    await this.#stopEngine(record);
    if (to === "REMOTE") {
      await this.#options.weights.remove(record.spec);
      record.tier = "REMOTE";
    }
    return wasLoaded;
  }

  /**
   * The engine of a model, in use until it is disposed of.
   * Throws `model_not_ready`, which sends the gateway back to `POST /load_model`.
   */
  acquire(modelId: string): EngineInUse {
    const record = this.#records.get(modelId);
    if (record === undefined || record.engine === null || record.state !== "READY") {
      throw new PenstockError("model_not_ready", `${modelId} is not loaded on this agent.`, { retryAfterSeconds: 1 });
    }
    const { engine } = record;
    record.running += 1;
    return {
      origin: engine.origin,
      goneWithin: (ms) => Promise.race([engine.exited.then(() => true), delay(ms, false)]),
      [Symbol.dispose]: () => {
        record.running -= 1;
      },
    };
  }

  /** Ends loads under way and stops every engine. */
  async stop(): Promise<void> {
    this.#stopping.abort(new PenstockError("draining", "The agent is stopping."));
    await Promise.all(
      this.records.map(async (record) => {
        await record.loading?.catch(() => undefined);
        await this.#stopEngine(record);
      }),
    );
  }

  #recordFor(request: LoadModelRequest): ModelRecord {
    const known = this.#records.get(request.model_id);
    if (known !== undefined) {
      if (sameJson([known.spec, known.engineSpec], [request.model, request.engine])) return known;
      if (known.engine !== null || known.loading !== null) {
        throw new PenstockError(
          "model_in_use",
          `${known.id} is loaded from another source or with other options; unload it first.`,
        );
      }
    }
    const record = newRecord(request.model, request.engine);
    this.#records.set(record.id, record);
    return record;
  }

  async #bringUp(record: ModelRecord): Promise<void> {
    try {
      const entryPath = await this.#fetch(record);
      const adapters = await this.#fetchAdapters(record);
      await this.#launch(record, { entryPath, adapters });
      this.#options.log.info({ model: record.id, measuredMs: record.measuredMs }, "model is ready");
    } catch (thrown) {
      const error = toPenstockError(thrown);
      record.state = "FAILED";
      record.reason = error.message;
      const detail =
        error.code === "internal_error" ? { err: error.cause } : { code: error.code, reason: error.message };
      this.#options.log.warn({ model: record.id, ...detail }, "model failed to load");
      throw error;
    } finally {
      record.progress = null;
    }
  }

  async #fetch(record: ModelRecord): Promise<string> {
    const started = performance.now();
    record.state = "DOWNLOADING";
    record.reason = null;
    const weights = await this.#options.weights.ensure(record.spec, {
      signal: this.#stopping.signal,
      onProgress: (progress) => {
        record.state = progress.phase === "download" ? "DOWNLOADING" : "VERIFYING";
        this.#report(record, progress);
      },
    });
    record.tier = "NVME_CACHED";
    record.sizeBytes = weights.sizeBytes;
    if (!weights.fromCache) record.measuredMs.download = Math.round(performance.now() - started);
    return weights.entryPath;
  }

  async #fetchAdapters(record: ModelRecord): Promise<Record<string, string>> {
    const paths: Record<string, string> = {};
    for (const { name, source, sha256 } of record.spec.adapters) {
      const spec: ModelSpec = { id: `${record.id}.${name}`, source, format: "gguf", adapters: [] };
      const { entryPath } = await this.#options.weights.ensure(sha256 === undefined ? spec : { ...spec, sha256 }, {
        signal: this.#stopping.signal,
        onProgress: (progress) => this.#report(record, progress),
      });
      paths[name] = entryPath;
    }
    return paths;
  }

  async #launch(
    record: ModelRecord,
    { entryPath, adapters }: { entryPath: string; adapters: Record<string, string> },
  ): Promise<void> {
    const started = performance.now();
    record.state = "LOADING_TO_GPU";
    this.#report(record, { phase: "load", bytesDone: 0, bytesTotal: 0, bytesPerSecond: 0, etaSeconds: null });
    const port = await freePort();
    const launch = engineLaunch(record.engineSpec, {
      modelPath: entryPath,
      servedName: record.id,
      port,
      adapters,
      logLevel: this.#options.engineLogLevel,
    });
    const engine = await startEngine({
      launch,
      port,
      env: this.#options.engineEnv,
      readyTimeoutMs: this.#options.readyTimeoutMs,
      signal: this.#stopping.signal,
      log: this.#options.log,
    });
    record.engine = engine;
    record.state = "READY";
    record.tier = "GPU_RESIDENT";
    record.measuredMs.load = Math.round(performance.now() - started);
    void engine.exited.then((words) => this.#onExit(record, engine, words));
  }

  /** An engine that ended by itself: the weights are still on disk, so the next request loads it again. */
  #onExit(record: ModelRecord, engine: RunningEngine, words: string): void {
    if (record.engine !== engine) return;
    record.engine = null;
    record.state = "UNLOADED";
    record.tier = "NVME_CACHED";
    record.crashes += 1;
    record.reason = `The engine stopped: ${words}`;
    this.#options.log.error({ model: record.id, pid: engine.pid, words }, "engine stopped by itself");
  }

  async #stopEngine(record: ModelRecord): Promise<void> {
    const { engine } = record;
    if (engine === null) return;
    record.engine = null;
    record.state = "UNLOADED";
    record.tier = "NVME_CACHED";
    await engine.stop(this.#options.stopTimeoutMs);
  }

  #report(record: ModelRecord, progress: Omit<WeightsProgress, "phase"> & { phase: LoadProgress["phase"] }): void {
    record.progress = {
      model_id: record.id,
      phase: progress.phase,
      bytes_done: progress.bytesDone,
      bytes_total: progress.bytesTotal,
      bytes_per_second: progress.bytesPerSecond,
      eta_seconds: progress.etaSeconds,
    };
    for (const listener of record.listeners) listener(record.progress);
  }
}

function sameJson(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
