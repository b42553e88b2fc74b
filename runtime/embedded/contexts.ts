import { PenstockError } from "../contracts/errors.ts";
import { checkAdapterFile, freshLink } from "./adapter-file.ts";
import { memoryError, type LoadedModel } from "./load-model.ts";
import type { LoraOption } from "./options.ts";
import { SlotPool, type Slot } from "./slots.ts";
import type { Token } from "./vocabulary.ts";

/** Adapters whose context is kept ready beside the base model's; the least recently used idle one makes room. */
export const maxAdapterContexts = 4;

interface Adapter {
  readonly name: string;
  /** As the operator gave it. */
  readonly path: string;
  /** As llama.cpp got it, see `freshLink`. */
  readonly loadPath: string;
  pool: Promise<SlotPool> | undefined;
  lastUsed: number;
}

/** A slot that a request holds. */
export interface Lease {
  readonly slot: Slot;
  readonly release: () => void;
}

/** What the contexts hold and how busy they are. */
export interface ContextUsage {
  readonly busy: number;
  readonly sequences: number;
  readonly heldTokens: number;
  readonly tokenCapacity: number;
}

/** The contexts of a model: one for the base, and one per adapter in use, since a LoRA belongs to a context. */
export class Contexts {
  readonly #loaded: LoadedModel;
  readonly #parallel: number;
  readonly #base: SlotPool;
  readonly #adapters = new Map<string, Adapter>();
  #clock = 0;

  private constructor(loaded: LoadedModel, parallel: number, base: SlotPool) {
    this.#loaded = loaded;
    this.#parallel = parallel;
    this.#base = base;
  }

  /** Makes the base context with `parallel` sequences. */
  static async create(loaded: LoadedModel, parallel: number): Promise<Contexts> {
    return new Contexts(loaded, parallel, await createPool(loaded, parallel));
  }

  /** Names of the adapters that can be used. */
  get adapterNames(): string[] {
    return [...this.#adapters.keys()];
  }

  hasAdapter(name: string): boolean {
    return this.#adapters.has(name);
  }

  /** A slot for `tokens` on the base model or on an adapter, whose context is made when it is not there. */
  async acquire(adapterName: string | undefined, tokens: readonly Token[], signal: AbortSignal): Promise<Lease> {
    const pool = adapterName === undefined ? this.#base : await this.#adapterPool(adapterName);
    const slot = await pool.acquire(tokens, signal);
    return { slot, release: () => pool.release(slot) };
  }

  /** Loads an adapter, which can be used from then on. Throws `invalid_value` for a name in use or a file that is none. */
  async load({ name, path }: LoraOption): Promise<void> {
    if (this.#adapters.has(name)) {
      throw new PenstockError("invalid_value", `Adapter ${name} is loaded already; unload it first.`, {
        param: "lora_name",
      });
    }
    await checkAdapterFile(path, this.#loaded.path);
    await using link = await freshLink(path);
    const adapter: Adapter = { name, path, loadPath: link.path, pool: undefined, lastUsed: this.#clock++ };
    this.#adapters.set(name, adapter);
    try {
      adapter.pool = this.#open(adapter);
      await adapter.pool;
    } catch (cause) {
      this.#adapters.delete(name);
      throw cause;
    }
  }

  /** Forgets an adapter. Throws `model_not_found`, or `model_in_use` while requests use it. */
  async unload(name: string): Promise<void> {
    const adapter = this.#adapters.get(name);
    const pool = await adapter?.pool;
    if (adapter === undefined || this.#adapters.get(name) !== adapter) {
      throw new PenstockError("model_not_found", `There is no adapter ${name}.`, { param: "lora_name" });
    }
    if (pool !== undefined && pool.demand > 0) {
      throw new PenstockError("model_in_use", `Adapter ${name} is answering requests; try again when they have ended.`);
    }
    this.#adapters.delete(name);
    adapter.pool = undefined;
    await pool?.context.dispose();
  }

  async usage(): Promise<ContextUsage> {
    const pools = [this.#base];
    for (const { pool } of this.#adapters.values()) {
      const open = await pool?.catch(() => undefined);
      if (open !== undefined) pools.push(open);
    }
    const sum = (of: (pool: SlotPool) => number): number => pools.reduce((total, pool) => total + of(pool), 0);
    return {
      busy: sum((pool) => pool.busy),
      sequences: sum((pool) => pool.context.totalSequences),
      heldTokens: sum((pool) => pool.heldTokens),
      tokenCapacity: sum((pool) => pool.context.totalSequences * pool.context.contextSize),
    };
  }

  async #adapterPool(name: string): Promise<SlotPool> {
    for (;;) {
      const adapter = this.#adapters.get(name);
      if (adapter === undefined) {
        throw new PenstockError("model_not_found", `There is no adapter ${name}.`, { param: "model" });
      }
      adapter.lastUsed = this.#clock++;
      const opening = (adapter.pool ??= this.#open(adapter));
      const pool = await opening;
      // While this waited, the context may have made room for another one.
      if (adapter.pool === opening) return pool;
    }
  }

  async #open(adapter: Adapter): Promise<SlotPool> {
    try {
      await this.#makeRoom(adapter);
      return await createPool(this.#loaded, this.#parallel, adapter.loadPath);
    } catch (cause) {
      adapter.pool = undefined;
      if (cause instanceof PenstockError) throw cause;
      throw new PenstockError("invalid_value", `llama.cpp cannot load ${adapter.path} on this model.`, {
        param: "lora_path",
        cause,
      });
    }
  }

  async #makeRoom(newcomer: Adapter): Promise<void> {
    const open = [...this.#adapters.values()].filter((adapter) => adapter !== newcomer && adapter.pool !== undefined);
    if (open.length < maxAdapterContexts) return;
    for (const adapter of open.toSorted((a, b) => a.lastUsed - b.lastUsed)) {
      const pool = await adapter.pool;
      if (pool === undefined || pool.demand > 0) continue;
      adapter.pool = undefined;
      await pool.context.dispose();
      return;
    }
    throw new PenstockError("queue_full", `All ${maxAdapterContexts} adapter contexts are answering requests.`, {
      retryAfterSeconds: 5,
    });
  }
}

async function createPool(loaded: LoadedModel, sequences: number, loraPath?: string): Promise<SlotPool> {
  try {
    const context = await loaded.model.createContext({
      contextSize: loaded.contextTokens,
      sequences,
      threads: loaded.threads,
      ...(loraPath === undefined ? {} : { lora: { adapters: [{ filePath: loraPath }] } }),
    });
    return new SlotPool(context);
  } catch (cause) {
    throw memoryError(cause, `${sequences} sequences of ${loaded.contextTokens} tokens`) ?? cause;
  }
}
