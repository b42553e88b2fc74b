import { setTimeout as delay } from "node:timers/promises";
import type {
  LoadAdapterRequest,
  LoadAdapterResult,
  LoadModelRequest,
  LoadModelResult,
  LoadProgress,
  ModelReport,
  UnloadAdapterRequest,
  UnloadAdapterResult,
  UnloadModelResult,
} from "../../contracts/agent.ts";
import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import type { RunningEngine } from "../supervisor/start.ts";
import { watchHealth } from "../supervisor/health.ts";
import { AdapterDesk } from "./adapter-desk.ts";
import { newAdapter } from "./adapters.ts";
import { ascend, crashed, descend, isCancelled, type LowerTier } from "./tiers.ts";
import type { ModelHost } from "./host.ts";
import { newRecord, reportOf, type ModelRecord, type Transition } from "./record.ts";
import { followMetrics } from "./scrape.ts";
import { requireSleep } from "./sleep.ts";

/** An engine that a request holds in use. */
export interface EngineInUse extends Disposable {
  readonly origin: string;
  /** Whether the engine's process ends within `ms`. */
  goneWithin(ms: number): Promise<boolean>;
}

/** Tries to bring an engine back by itself; after that a request must ask. */
const restarts = 5;

/**
 * Models on one agent: load, wake, sleep, unload, and the requests that keep them in use. Transitions of one model run
 * one after the other; those who ask for the same one share it.
 */
export class Lifecycle {
  readonly #records = new Map<string, ModelRecord>();
  readonly #host: ModelHost;
  readonly #desk: AdapterDesk;
  readonly #stopping = new AbortController();

  constructor(host: ModelHost) {
    this.#host = host;
    this.#desk = new AdapterDesk(host);
  }

  /** All models that this agent was ever asked for. */
  get records(): readonly ModelRecord[] {
    return [...this.#records.values()];
  }

  /** The heartbeat's lines. */
  reports(): ModelReport[] {
    return this.records.map((record) => reportOf(record, this.#host.endpointUrl(record.id)));
  }

  /**
   * Brings a model to READY. Idempotent: callers that come while it loads wait for the same load, and a caller that
   * leaves does not end it. After failures in a row the last one is answered at once until a pause is over.
   * Throws the reason why it cannot be loaded.
   */
  async load(request: LoadModelRequest, onProgress: (progress: LoadProgress) => void): Promise<LoadModelResult> {
    const record = this.#recordFor(request);
    if (request.pinned !== undefined) await this.#host.weights.setPinned(record.spec, request.pinned);
    const before = record.state;
    record.listeners.add(onProgress);
    try {
      await this.#untilReady(record);
    } finally {
      record.listeners.delete(onProgress);
    }
    return {
      status: before === "READY" ? "already_loaded" : before === "SLEEPING" ? "woken" : "loaded",
      model_id: record.id,
      inference_endpoint_url: this.#host.endpointUrl(record.id),
      cache_state: record.state,
    };
  }

  /**
   * Takes a model down to a tier. A load under way is cancelled. Throws `model_in_use` while requests run, `unsupported`
   * for a sleep that the engine has not.
   */
  async unload(modelId: string, to: LowerTier): Promise<UnloadModelResult> {
    const record = this.#records.get(modelId);
    if (record === undefined) return { status: "not_loaded", model_id: modelId, cache_level: "REMOTE" };
    if (to === "DRAM_CACHED") requireSleep(record);
    const cancelled = record.transition?.kind === "up";
    record.transition?.cancel(
      new PenstockError("model_not_ready", `The load of ${modelId} was cancelled by an unload.`),
    );
    while (record.transition !== null) await record.transition.done.catch(() => undefined);
    if (record.running > 0) {
      throw new PenstockError("model_in_use", `${modelId} is working on ${record.running} requests; try again later.`, {
        retryAfterSeconds: 5,
      });
    }
    const wasUp = record.engine !== null;
    await this.#transition(record, "down", () => descend(record, { host: this.#host, to }));
    record.failures.reset();
    const status = record.state === "SLEEPING" ? "asleep" : wasUp || cancelled ? "unloaded" : "not_loaded";
    return { status, model_id: modelId, cache_level: record.tier };
  }

  /** Loads an adapter into a model that is READY. Throws `model_not_ready` and what the adapter lacks. */
  async loadAdapter({ model_id, adapter }: LoadAdapterRequest): Promise<LoadAdapterResult> {
    return this.#desk.load(this.#readyRecord(model_id), { spec: adapter, signal: this.#stopping.signal });
  }

  async unloadAdapter({ model_id, adapter }: UnloadAdapterRequest): Promise<UnloadAdapterResult> {
    const record = this.#records.get(model_id);
    const unloaded = record !== undefined && (await this.#desk.unload(record, adapter));
    return { status: unloaded ? "unloaded" : "not_loaded", model_id, adapter };
  }

  /**
   * The engine of a model, in use until it is disposed of. `adapter` is the one that the request uses.
   * Throws `model_not_ready`, which sends the gateway back to `POST /load_model`, or `adapter_not_ready`.
   */
  acquire(modelId: string, adapterName?: string): EngineInUse {
    const record = this.#readyRecord(modelId);
    const { engine } = record;
    const adapter = adapterName === undefined ? undefined : this.#desk.acquire(record, adapterName);
    record.running += 1;
    return {
      origin: engine.origin,
      goneWithin: (ms) => Promise.race([engine.exited.then(() => true), delay(ms, false)]),
      [Symbol.dispose]: () => {
        adapter?.[Symbol.dispose]();
        record.running -= 1;
        record.lastUsedMs = performance.now();
      },
    };
  }

  /** Ends loads under way and stops every engine. */
  async stop(): Promise<void> {
    const reason = new PenstockError("draining", "The agent is stopping.");
    this.#stopping.abort(reason);
    await Promise.all(
      this.records.map(async (record) => {
        record.transition?.cancel(reason);
        while (record.transition !== null) await record.transition.done.catch(() => undefined);
        await this.#transition(record, "down", () => descend(record, { host: this.#host, to: "NVME_CACHED" }));
      }),
    );
  }

  async #untilReady(record: ModelRecord): Promise<void> {
    while (record.state !== "READY" || record.transition !== null) {
      const { transition } = record;
      if (transition?.kind === "up") return transition.done;
      if (transition !== null) {
        await transition.done.catch(() => undefined);
        continue;
      }
      this.#stopping.signal.throwIfAborted();
      const { pending, waitMs, count } = record.failures;
      if (pending !== null) {
        const seconds = Math.ceil(waitMs / 1_000);
        throw new PenstockError(pending.code, `${pending.message} (failed ${count} times; next try in ${seconds} s)`, {
          retryAfterSeconds: seconds,
          cause: pending,
        });
      }
      return this.#transition(record, "up", (signal) => this.#up(record, signal));
    }
  }

  #readyRecord(modelId: string): ModelRecord & { engine: RunningEngine } {
    const record = this.#records.get(modelId);
    if (record === undefined || !isReady(record)) {
      throw new PenstockError("model_not_ready", `${modelId} is not loaded on this agent.`, { retryAfterSeconds: 1 });
    }
    return record;
  }

  #recordFor(request: LoadModelRequest): ModelRecord {
    const known = this.#records.get(request.model_id);
    const record = known !== undefined && isSame(known, request) ? known : this.#replace(known, request);
    if (request.idle !== undefined) record.idle = request.idle;
    for (const adapter of request.model.adapters) {
      if (!record.adapters.has(adapter.name)) record.adapters.set(adapter.name, newAdapter(adapter));
    }
    return record;
  }

  #replace(known: ModelRecord | undefined, request: LoadModelRequest): ModelRecord {
    if (known !== undefined && (known.engine !== null || known.transition !== null)) {
      throw new PenstockError(
        "model_in_use",
        `${known.id} is loaded from another source or with other options; unload it first.`,
      );
    }
    const record = newRecord(request.model, request.engine);
    if (this.#host.weights.has(record.spec)) record.tier = "NVME_CACHED";
    this.#records.set(record.id, record);
    return record;
  }

  #transition(
    record: ModelRecord,
    kind: Transition["kind"],
    work: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const controller = new AbortController();
    const done = work(AbortSignal.any([controller.signal, this.#stopping.signal])).finally(() => {
      record.transition = null;
      record.progress = null;
    });
    // Everybody may have left.
    done.catch(() => undefined);
    record.transition = { kind, done, cancel: (reason) => kind === "up" && controller.abort(reason) };
    return done;
  }

  /** Brings an engine back that ended by itself, with growing pauses. A load that comes meanwhile waits for it. */
  async #onGone(record: ModelRecord, engine: RunningEngine): Promise<void> {
    const words = await engine.exited;
    // A transition under way meets the end of the engine by itself.
    if (record.engine !== engine || record.transition !== null) return;
    const served = record.state === "READY";
    await crashed(record, { host: this.#host, words });
    if (!served) return;
    while (record.failures.count <= restarts && record.engine === null && record.transition === null) {
      const restarting = this.#transition(record, "up", async (signal) => {
        await delay(record.failures.waitMs, undefined, { signal }).catch(() => undefined);
        await this.#up(record, signal);
      });
      const outcome = await restarting.then(
        () => undefined,
        (thrown: unknown) => toPenstockError(thrown),
      );
      if (outcome === undefined || isCancelled(outcome)) return;
    }
  }

  async #up(record: ModelRecord, signal: AbortSignal): Promise<void> {
    const before = record.engine;
    const engine = await ascend({ record, host: this.#host, signal });
    if (engine === before) return;
    void this.#onGone(record, engine);
    void watchHealth(engine, this.#host.health);
    void followMetrics(record, engine, this.#host);
  }
}

function isReady(record: ModelRecord): record is ModelRecord & { engine: RunningEngine } {
  return record.engine !== null && record.state === "READY";
}

/** Whether a request means the model that is known, adapters aside: those come and go while it serves. */
function isSame({ spec, engineSpec }: ModelRecord, { model, engine }: LoadModelRequest): boolean {
  const { adapters: _known, ...before } = spec;
  const { adapters: _asked, ...now } = model;
  return JSON.stringify([before, engineSpec]) === JSON.stringify([now, engine]);
}
