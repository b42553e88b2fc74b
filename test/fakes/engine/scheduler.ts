import { BlockHasher, type BlockPool } from "./blocks.ts";
import { prefillMs, stepMs, type CostProfile } from "./cost.ts";
import { countTokens } from "./text.ts";

/** Why a sequence ended. */
export type EndReason = "stop" | "length" | "abort";

/** One answer to compute. */
export interface SequenceWork {
  readonly prompt: string;
  /** Keeps what different adapters computed apart in the prefix cache. */
  readonly salt: string;
  /** Tokens of the answer; 0 computes the prompt alone. */
  readonly outputTokens: number;
  /** Reason that is told when all of them are there. */
  readonly lastReason: EndReason;
  /** Text of the token at a position of the answer. */
  tokenText(position: number): string;
  /** The sequence was admitted: `cachedTokens` of its prompt were in the cache. Once, even if it is preempted later. */
  onStart?(cachedTokens: number): void;
  /** Tokens before `produced` are there. */
  onToken?(produced: number): void;
  onEnd(reason: EndReason): void;
}

/** A sequence on its way through the batch. */
export interface Sequence {
  readonly work: SequenceWork;
  readonly promptTokens: number;
  readonly hasher: BlockHasher;
  blocks: number[];
  /** Full blocks that have been named in the pool. */
  sealed: number;
  /** Tokens whose KV is there. */
  computed: number;
  produced: number;
  started: boolean;
}

/** Bounds of a batch: vLLM's flags of the same names. */
export interface BatchLimits {
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly blockTokens: number;
}

/** Cumulative counts, in tokens except `preemptions`. */
export interface BatchCounters {
  promptTokens: number;
  generationTokens: number;
  prefixQueries: number;
  prefixHits: number;
  preemptions: number;
}

/** One step of the batch as planned: what is computed for whom, and how long it takes. */
export interface Step {
  readonly ms: number;
  readonly parts: readonly { readonly sequence: Sequence; readonly tokens: number }[];
}

/**
 * Continuous batching as vLLM V1 does it: running sequences first, then waiting ones in order of arrival, prompts in
 * chunks that fill the step's token budget. When blocks run out the last running sequence goes back to the front of the
 * queue and is computed anew. `plan` and `complete` alternate; there is no clock in here.
 */
export class Batch {
  readonly running: Sequence[] = [];
  readonly waiting: Sequence[] = [];
  readonly counters: BatchCounters = {
    promptTokens: 0,
    generationTokens: 0,
    prefixQueries: 0,
    prefixHits: 0,
    preemptions: 0,
  };
  readonly #profile: CostProfile;
  readonly #limits: BatchLimits;
  readonly #pool: BlockPool;

  constructor(profile: CostProfile, limits: BatchLimits, pool: BlockPool) {
    this.#profile = profile;
    this.#limits = limits;
    this.#pool = pool;
  }

  add(work: SequenceWork): Sequence {
    const hasher = new BlockHasher(this.#limits.blockTokens, work.salt);
    hasher.add(work.prompt);
    const promptTokens = Math.max(1, countTokens(work.prompt));
    const fresh = { blocks: [], sealed: 0, computed: 0, produced: 0, started: false };
    const sequence: Sequence = { work, promptTokens, hasher, ...fresh };
    this.waiting.push(sequence);
    return sequence;
  }

  /** Takes a sequence out, whatever it is doing; `onEnd` hears `abort`. */
  abort(sequence: Sequence): void {
    for (const list of [this.running, this.waiting]) {
      const index = list.indexOf(sequence);
      if (index === -1) continue;
      list.splice(index, 1);
      this.#free(sequence);
      sequence.work.onEnd("abort");
    }
  }

  /** The next step, or null when there is nothing to do. */
  plan(): Step | null {
    const parts: { sequence: Sequence; tokens: number }[] = [];
    let budget = this.#limits.maxNumBatchedTokens;
    let preempted = false;
    for (let index = 0; index < this.running.length && budget > 0; index += 1) {
      const sequence = this.running[index];
      if (sequence === undefined) break;
      const tokens = Math.min(totalTokens(sequence) - sequence.computed, budget);
      while (!this.#grow(sequence, tokens)) {
        preempted = true;
        if (this.#preempt() === sequence) break;
      }
      if (this.running[index] !== sequence) break;
      parts.push({ sequence, tokens });
      budget -= tokens;
    }
    if (!preempted) this.#admit(parts, budget);
    return parts.length === 0 ? null : { ms: this.#cost(parts), parts };
  }

  /** Advances what `plan` returned: new tokens are heard, complete answers leave. */
  complete(step: Step): void {
    for (const { sequence, tokens } of step.parts) {
      // It may have been aborted while the step ran.
      if (!this.running.includes(sequence)) continue;
      sequence.computed += tokens;
      this.#seal(sequence);
      if (sequence.computed < totalTokens(sequence)) continue;
      this.#produce(sequence);
    }
  }

  #produce(sequence: Sequence): void {
    const { work } = sequence;
    if (sequence.produced < work.outputTokens) {
      sequence.hasher.add(work.tokenText(sequence.produced));
      sequence.produced += 1;
      this.counters.generationTokens += 1;
      work.onToken?.(sequence.produced);
    }
    // `onToken` may have aborted it.
    const index = this.running.indexOf(sequence);
    if (sequence.produced < work.outputTokens || index === -1) return;
    this.running.splice(index, 1);
    this.#free(sequence);
    work.onEnd(work.lastReason);
  }

  #admit(parts: { sequence: Sequence; tokens: number }[], room: number): void {
    let budget = room;
    while (budget > 0 && this.running.length < this.#limits.maxNumSeqs) {
      const sequence = this.waiting[0];
      if (sequence === undefined) return;
      const total = totalTokens(sequence);
      // The last token is always computed, since its output is what is wanted.
      const limit = Math.floor((total - 1) / this.#limits.blockTokens);
      const cached = this.#pool.takeCached(sequence.hasher.hashes, limit);
      sequence.blocks = cached;
      sequence.sealed = cached.length;
      sequence.computed = cached.length * this.#limits.blockTokens;
      const tokens = Math.min(total - sequence.computed, budget);
      if (!this.#grow(sequence, tokens)) {
        this.#free(sequence);
        return;
      }
      this.waiting.shift();
      this.running.push(sequence);
      this.counters.prefixQueries += total;
      this.counters.prefixHits += sequence.computed;
      if (!sequence.started) this.#start(sequence);
      parts.push({ sequence, tokens });
      budget -= tokens;
    }
  }

  #start(sequence: Sequence): void {
    sequence.started = true;
    this.counters.promptTokens += sequence.promptTokens;
    sequence.work.onStart?.(sequence.computed);
  }

  /** Makes room for `tokens` more; false when there are too few blocks. */
  #grow(sequence: Sequence, tokens: number): boolean {
    const needed = Math.ceil((sequence.computed + tokens) / this.#limits.blockTokens) - sequence.blocks.length;
    if (needed <= 0) return true;
    const blocks = this.#pool.allocate(needed);
    if (blocks === null) return false;
    sequence.blocks.push(...blocks);
    return true;
  }

  #preempt(): Sequence | undefined {
    const victim = this.running.pop();
    if (victim === undefined) return undefined;
    this.#free(victim);
    this.waiting.unshift(victim);
    this.counters.preemptions += 1;
    return victim;
  }

  #free(sequence: Sequence): void {
    this.#pool.release(sequence.blocks);
    sequence.blocks = [];
    sequence.sealed = 0;
    sequence.computed = 0;
  }

  #seal(sequence: Sequence): void {
    const full = Math.floor(sequence.computed / this.#limits.blockTokens);
    for (; sequence.sealed < full; sequence.sealed += 1) {
      const block = sequence.blocks[sequence.sealed];
      const hash = sequence.hasher.hashes[sequence.sealed];
      // A prompt whose length is no multiple of four counts as up to three characters more than it has.
      if (block === undefined || hash === undefined) return;
      this.#pool.seal(block, hash);
    }
  }

  #cost(parts: Step["parts"]): number {
    let prefill = 0;
    let decodes = 0;
    let contextTokens = 0;
    for (const { sequence, tokens } of parts) {
      if (tokens > 1 || sequence.produced === 0) {
        prefill += prefillMs(this.#profile, tokens, sequence.computed);
      } else {
        decodes += 1;
        contextTokens += sequence.computed + 1;
      }
    }
    return stepMs(this.#profile, { prefillMs: prefill, decodes, contextTokens });
  }
}

function totalTokens(sequence: Sequence): number {
  return sequence.promptTokens + sequence.produced;
}
