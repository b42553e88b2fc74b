import { setTimeout as delay } from "node:timers/promises";
import type { LoadAdapterResult } from "../../contracts/agent.ts";
import { PenstockError } from "../../contracts/errors.ts";
import type { AdapterSpec } from "../../contracts/model.ts";
import { engineOf } from "../../engines/index.ts";
import type { RunningEngine } from "../supervisor/start.ts";
import { bringAdapterUp, newAdapter, requireRuntimeAdapters, takeAdapterDown } from "./adapters.ts";
import type { ModelHost } from "./host.ts";
import type { AdapterRecord, ModelRecord } from "./record.ts";

type Serving = ModelRecord & { engine: RunningEngine };

/** An adapter is left alone for so long after its last use: the requests that it was loaded for are on their way. */
const settleMs = 250;

/** So long others may go on using an adapter whose place is wanted; then it takes no new requests, and ends. */
const patienceMs = 2_000;

/** How long a load waits for a place before it says that all are in use. */
const placeTimeoutMs = 30_000;

/** Between two looks for a place. */
const lookMs = 20;

/** Adapters at run time: load, unload, and which one leaves when the engine holds no more. One change per model at a time. */
export class AdapterDesk {
  readonly #host: ModelHost;
  readonly #queues = new WeakMap<ModelRecord, Promise<unknown>>();

  constructor(host: ModelHost) {
    this.#host = host;
  }

  /**
   * Brings an adapter to READY. Idempotent. Where the engine holds no more, waits until the one that was not used for the
   * longest can leave. Throws `unsupported`, `model_in_use`, `adapter_invalid`, and what a fetch throws.
   */
  async load(
    record: Serving,
    { spec, signal }: { spec: AdapterSpec; signal: AbortSignal },
  ): Promise<LoadAdapterResult> {
    requireRuntimeAdapters(record);
    return this.#inTurn(record, async () => {
      const result = { status: "loaded" as const, model_id: record.id, adapter: spec.name };
      const known = record.adapters.get(spec.name);
      const same = known !== undefined && JSON.stringify(known.spec) === JSON.stringify(spec);
      if (same && known.state === "READY") return { ...result, status: "already_loaded" as const, evicted: [] };
      const { engine } = record;
      if (known?.state === "READY") await this.#takeDown(record, known);
      const adapter = same ? known : newAdapter(spec);
      const evicted = await this.#makeRoom(record, signal);
      record.adapters.set(spec.name, adapter);
      await bringAdapterUp({ record, host: this.#host, signal }, { engine, adapter });
      return { ...result, evicted };
    });
  }

  /** Forgets an adapter. Answers false when it was not loaded. Throws `model_in_use` while requests use it. */
  async unload(record: ModelRecord, name: string): Promise<boolean> {
    return this.#inTurn(record, async () => {
      const adapter = record.adapters.get(name);
      if (adapter === undefined) return false;
      const wasLoaded = adapter.state === "READY" && record.state === "READY";
      if (wasLoaded) {
        requireRuntimeAdapters(record);
        await this.#takeDown(record, adapter);
      }
      record.adapters.delete(name);
      return wasLoaded;
    });
  }

  /** Keeps an adapter in use. Throws `adapter_not_ready`, which sends the gateway to `POST /load_adapter`. */
  acquire(record: ModelRecord, name: string): Disposable {
    const adapter = record.adapters.get(name);
    if (adapter?.state !== "READY" || adapter.leaving) {
      const why = adapter?.reason ?? "it is not loaded";
      throw new PenstockError("adapter_not_ready", `${record.id}:${name} cannot be used: ${why}. Load it first.`, {
        retryAfterSeconds: 1,
      });
    }
    adapter.running += 1;
    adapter.lastUsedMs = performance.now();
    return {
      [Symbol.dispose]: () => {
        adapter.running -= 1;
        adapter.lastUsedMs = performance.now();
      },
    };
  }

  /** Unloads the least recently used adapters until one more fits. Answers their names. */
  async #makeRoom(record: Serving, signal: AbortSignal): Promise<string[]> {
    const { count } = engineOf(record.engineSpec).adapterLimits(record.engineSpec);
    const { engine } = record;
    const sinceMs = performance.now();
    const evicted: string[] = [];
    let leaving: AdapterRecord | undefined;
    try {
      for (;;) {
        const loaded = [...record.adapters.values()].filter(({ state }) => state === "READY");
        if (loaded.length < count) return evicted;
        const now = performance.now();
        const oldest = loaded.toSorted((a, b) => a.lastUsedMs - b.lastUsedMs);
        const free = oldest.find((each) => each.running === 0 && (each.leaving || now - each.lastUsedMs >= settleMs));
        if (free !== undefined) {
          await this.#takeDown(record, free);
          evicted.push(free.spec.name);
          continue;
        }
        if (now - sinceMs > placeTimeoutMs) throw allInUse(record.id, count);
        if (now - sinceMs > patienceMs) leaving ??= oldest[0];
        if (leaving !== undefined) leaving.leaving = true;
        await delay(lookMs, undefined, { signal });
        if (record.engine !== engine)
          throw new PenstockError("model_not_ready", `${record.id} is not loaded any more.`);
      }
    } finally {
      if (leaving !== undefined) leaving.leaving = false;
    }
  }

  async #takeDown(record: ModelRecord, adapter: AdapterRecord): Promise<void> {
    if (adapter.running > 0) {
      throw new PenstockError("model_in_use", `${record.id}:${adapter.spec.name} is in use; try again later.`, {
        retryAfterSeconds: 5,
      });
    }
    if (record.engine !== null) await takeAdapterDown(record, { engine: record.engine, adapter });
  }

  async #inTurn<T>(record: ModelRecord, work: () => Promise<T>): Promise<T> {
    const before = this.#queues.get(record) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.#queues.set(
      record,
      mine.catch(() => undefined),
    );
    return mine;
  }
}

function allInUse(modelId: string, count: number): PenstockError {
  return new PenstockError("model_in_use", `All ${count} adapters of ${modelId} are in use; try again later.`, {
    retryAfterSeconds: 5,
  });
}
