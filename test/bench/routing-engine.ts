import { overhead, prefillMs, stepMs, type CostProfile } from "../fakes/engine/cost.ts";
import { BlockCache } from "./routing-cache.ts";
import { traceBlockTokens } from "./routing-trace.ts";

/** A request as an engine of the simulation sees it. Times are simulated ms. */
export interface EngineWork {
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly blocks: readonly number[];
  /** Admitted: tokens found in the cache. Once. */
  onStart(cachedTokens: number): void;
  onFirstToken(atMs: number): void;
  /** So many tokens are there in all; not after each of them, and not after the last. */
  onTokens?(tokens: number): void;
  onEnd(atMs: number): void;
}

/** Bounds of the batch: vLLM's flags of the same names. */
export interface EngineLimits {
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
}

export const defaultLimits: EngineLimits = { maxNumSeqs: 256, maxNumBatchedTokens: 8_192 };

interface Sequence {
  readonly work: EngineWork;
  /** Blocks of the prompt that are in the cache with a name and held by this sequence. */
  held: number[];
  /** Tokens in blocks without a name. */
  ownTokens: number;
  /** Full blocks of the prompt that are done with, named or not. */
  sealed: number;
  computed: number;
  produced: number;
  started: boolean;
}

interface Step {
  readonly endMs: number;
  readonly parts: readonly { readonly sequence: Sequence; readonly tokens: number }[];
  /** Steps of pure decoding taken as one. */
  readonly repeats: number;
}

/**
 * The batch of `test/fakes/engine/scheduler.ts` with the same formula, for simulations of many requests: prompts are block
 * ids instead of text, and steps in which nothing but decoding happens are taken at once.
 */
export class FastEngine {
  readonly cache: BlockCache;
  readonly #profile: CostProfile;
  readonly #limits: EngineLimits;
  readonly #inbox: { readonly atMs: number; readonly sequence: Sequence }[] = [];
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];
  #nowMs = 0;
  #step: Step | null = null;

  constructor(profile: CostProfile, limits: EngineLimits = defaultLimits) {
    this.#profile = profile;
    this.#limits = limits;
    this.cache = new BlockCache(profile.kvTokens, traceBlockTokens);
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get running(): number {
    return this.#running.length;
  }

  /** A request comes; its time is not before that of an earlier one. */
  submit(work: EngineWork, atMs: number): void {
    const fresh = { held: [], ownTokens: 0, sealed: 0, computed: 0, produced: 0, started: false };
    this.#inbox.push({ atMs: atMs + overhead.requestMs, sequence: { work, ...fresh } });
  }

  /** Does everything that ends by `untilMs`. */
  advance(untilMs: number): void {
    for (;;) {
      this.#receive();
      this.#step ??= this.#plan(untilMs);
      if (this.#step === null) {
        const next = this.#inbox[0];
        if (next === undefined || next.atMs > untilMs) return;
        this.#nowMs = next.atMs;
      } else {
        if (this.#step.endMs > untilMs) return;
        const step = this.#step;
        this.#step = null;
        this.#complete(step);
      }
    }
  }

  #receive(): void {
    while (this.#inbox[0] !== undefined && this.#inbox[0].atMs <= this.#nowMs) {
      const entry = this.#inbox.shift();
      if (entry !== undefined) this.#waiting.push(entry.sequence);
    }
  }

  #plan(untilMs: number): Step | null {
    const parts: { sequence: Sequence; tokens: number }[] = [];
    let budget = this.#limits.maxNumBatchedTokens;
    let preempted = false;
    for (let index = 0; index < this.#running.length && budget > 0; index += 1) {
      const sequence = this.#running[index];
      if (sequence === undefined) break;
      const tokens = Math.min(total(sequence) - sequence.computed, budget);
      while (!this.#grow(sequence, tokens)) {
        preempted = true;
        if (this.#preempt() === sequence) break;
      }
      if (this.#running[index] !== sequence) break;
      parts.push({ sequence, tokens });
      budget -= tokens;
    }
    if (!preempted) this.#admit(parts, budget);
    if (parts.length === 0) return null;
    return this.#priced(parts, untilMs);
  }

  #admit(parts: { sequence: Sequence; tokens: number }[], room: number): void {
    let budget = room;
    while (budget > 0 && this.#running.length < this.#limits.maxNumSeqs) {
      const sequence = this.#waiting[0];
      if (sequence === undefined) return;
      const limit = Math.floor((total(sequence) - 1) / traceBlockTokens);
      sequence.held = this.cache.take(sequence.work.blocks, limit);
      sequence.sealed = sequence.held.length;
      sequence.computed = sequence.held.length * traceBlockTokens;
      const tokens = Math.min(total(sequence) - sequence.computed, budget);
      if (!this.#grow(sequence, tokens)) {
        this.#free(sequence);
        return;
      }
      this.#waiting.shift();
      this.#running.push(sequence);
      if (!sequence.started) sequence.work.onStart(sequence.computed);
      sequence.started = true;
      parts.push({ sequence, tokens });
      budget -= tokens;
    }
  }

  #priced(parts: Step["parts"], untilMs: number): Step {
    let prefill = 0;
    let decodes = 0;
    let contextTokens = 0;
    let shortest = Infinity;
    for (const { sequence, tokens } of parts) {
      if (tokens > 1 || sequence.produced === 0) {
        prefill += prefillMs(this.#profile, tokens, sequence.computed);
      } else {
        decodes += 1;
        contextTokens += sequence.computed + 1;
        shortest = Math.min(shortest, sequence.work.outputTokens - sequence.produced);
      }
    }
    const first = stepMs(this.#profile, { prefillMs: prefill, decodes, contextTokens });
    // With someone in the queue each step has to look whether there is room now.
    if (prefill > 0 || this.#waiting.length > 0) return { endMs: this.#nowMs + first, parts, repeats: 1 };
    const horizonMs = Math.min(untilMs, this.#inbox[0]?.atMs ?? Infinity);
    const slope = overhead.factor * this.#profile.k * decodes;
    const possible = Math.min(shortest, 1 + Math.floor(this.cache.available / decodes));
    let repeats = 1;
    let endMs = this.#nowMs + first;
    while (repeats < possible && endMs < horizonMs) {
      endMs += first + slope * repeats;
      repeats += 1;
    }
    for (const { sequence } of parts) {
      this.cache.allocate(repeats - 1);
      sequence.ownTokens += repeats - 1;
    }
    return { endMs, parts, repeats };
  }

  #complete({ endMs, parts, repeats }: Step): void {
    this.#nowMs = endMs;
    for (const { sequence, tokens } of parts) {
      if (!this.#running.includes(sequence)) continue;
      sequence.computed += repeats === 1 ? tokens : repeats;
      this.#seal(sequence);
      if (sequence.computed < total(sequence)) continue;
      if (sequence.produced === 0) sequence.work.onFirstToken(endMs + overhead.outputTokenMs);
      sequence.produced += repeats;
      if (sequence.produced < sequence.work.outputTokens) {
        sequence.work.onTokens?.(sequence.produced);
        continue;
      }
      this.#running.splice(this.#running.indexOf(sequence), 1);
      this.#free(sequence);
      sequence.work.onEnd(endMs + overhead.outputTokenMs);
    }
  }

  #seal(sequence: Sequence): void {
    const { blocks } = sequence.work;
    const full = Math.min(blocks.length, Math.floor(sequence.computed / traceBlockTokens));
    for (; sequence.sealed < full; sequence.sealed += 1) {
      const block = blocks[sequence.sealed];
      if (block === undefined || !this.cache.name(block)) continue;
      sequence.ownTokens -= traceBlockTokens;
      sequence.held.push(block);
    }
  }

  #grow(sequence: Sequence, tokens: number): boolean {
    const missing = sequence.computed + tokens - sequence.ownTokens - sequence.held.length * traceBlockTokens;
    if (missing <= 0) return true;
    if (!this.cache.allocate(missing)) return false;
    sequence.ownTokens += missing;
    return true;
  }

  #preempt(): Sequence | undefined {
    const victim = this.#running.pop();
    if (victim === undefined) return undefined;
    this.#free(victim);
    this.#waiting.unshift(victim);
    return victim;
  }

  #free(sequence: Sequence): void {
    this.cache.release(sequence.held, sequence.ownTokens);
    sequence.held = [];
    sequence.ownTokens = 0;
    sequence.sealed = 0;
    sequence.computed = 0;
  }
}

function total({ work, produced }: Sequence): number {
  return work.promptTokens + produced;
}
