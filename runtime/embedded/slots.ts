import type { LlamaContext, LlamaContextSequence } from "node-llama-cpp";
import { PenstockError } from "../contracts/errors.ts";
import type { Token } from "./vocabulary.ts";

/** A prompt is evaluated in steps of about this long, so that a client that left is noticed soon. */
const stepMs = 80;
const firstStepTokens = 32;
const longestStepTokens = 512;

/** One sequence of a context. It keeps the tokens of its last request, so that a next turn evaluates only what is new. */
export class Slot {
  readonly sequence: LlamaContextSequence;
  /** Order of use; slots that were never used come first. */
  lastUsed = -1;

  constructor(sequence: LlamaContextSequence) {
    this.sequence = sequence;
  }

  /** How many leading tokens of `tokens` are evaluated already. The last one is always evaluated anew, for its logits. */
  cachedPrefix(tokens: readonly Token[]): number {
    const { firstDifferentIndex } = this.sequence.compareContextTokens([...tokens]);
    const common = Math.min(firstDifferentIndex, tokens.length - 1);
    // Recurrent and sliding-window models cannot go back to an earlier place, only on from where they are.
    if (this.sequence.needsCheckpoints && common < this.sequence.nextTokenIndex) return 0;
    return common;
  }

  /**
   * Evaluates all but the last of `tokens`, reusing the common prefix. Answers how many tokens it reused.
   * Throws `client_closed` between two steps when `signal` aborts.
   */
  async prefill(tokens: readonly Token[], signal: AbortSignal): Promise<number> {
    const { sequence } = this;
    const cached = this.cachedPrefix(tokens);
    if (sequence.nextTokenIndex > cached) {
      await sequence.eraseContextTokenRanges([{ start: cached, end: sequence.nextTokenIndex }]);
    }
    let size = firstStepTokens;
    for (let start = cached; start < tokens.length - 1;) {
      throwIfClosed(signal);
      const step = tokens.slice(start, Math.min(start + size, tokens.length - 1));
      const began = performance.now();
      await sequence.evaluateWithoutGeneratingNewTokens(step);
      start += step.length;
      size = nextStep(size, performance.now() - began);
    }
    throwIfClosed(signal);
    return cached;
  }
}

/** Tokens of the next step, given that `size` tokens took `elapsedMs`. */
export function nextStep(size: number, elapsedMs: number): number {
  const ideal = Math.floor((size * stepMs) / Math.max(elapsedMs, 1));
  return Math.max(1, Math.min(ideal, size * 4, longestStepTokens));
}

/** Throws `client_closed` once `signal` has aborted. */
export function throwIfClosed(signal: AbortSignal): void {
  if (signal.aborted) throw new PenstockError("client_closed", "The client left.", { cause: signal.reason });
}

/**
 * What a slot's cache is worth to a prompt: the prefix that they share, when it is at least half of what the slot
 * holds. Otherwise nothing, so that a common system prompt does not push another conversation out of its slot.
 */
export function worthOf(prefix: number, held: number): number {
  return prefix * 2 >= held ? prefix : 0;
}

interface Waiter {
  readonly tokens: readonly Token[];
  take(slot: Slot): void;
}

/** The sequences of one context, lent one request each. */
export class SlotPool {
  readonly context: LlamaContext;
  readonly #slots: Slot[];
  readonly #idle: Set<Slot>;
  readonly #waiting: Waiter[] = [];
  #clock = 0;

  constructor(context: LlamaContext) {
    this.context = context;
    this.#slots = Array.from({ length: context.totalSequences }, () => new Slot(context.getSequence()));
    this.#idle = new Set(this.#slots);
  }

  /** Sequences in use. */
  get busy(): number {
    return this.#slots.length - this.#idle.size;
  }

  /** Requests that wait for a sequence or hold one. */
  get demand(): number {
    return this.busy + this.#waiting.length;
  }

  /** Tokens whose keys and values are held. */
  get heldTokens(): number {
    return this.#slots.reduce((sum, slot) => sum + slot.sequence.nextTokenIndex, 0);
  }

  /** The idle slot that knows most of `tokens`, or the next one that gets free. Give it back with `release`. */
  async acquire(tokens: readonly Token[], signal: AbortSignal): Promise<Slot> {
    throwIfClosed(signal);
    if (this.#idle.size > 0) return this.#lend(tokens);
    const { promise, resolve, reject } = Promise.withResolvers<Slot>();
    const waiter: Waiter = { tokens, take: resolve };
    const leave = (): void => {
      const index = this.#waiting.indexOf(waiter);
      if (index >= 0) this.#waiting.splice(index, 1);
      reject(new PenstockError("client_closed", "The client left."));
    };
    this.#waiting.push(waiter);
    signal.addEventListener("abort", leave, { once: true });
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  release(slot: Slot): void {
    this.#idle.add(slot);
    const next = this.#waiting.shift();
    if (next !== undefined) next.take(this.#lend(next.tokens));
  }

  #lend(tokens: readonly Token[]): Slot {
    const ranked = [...this.#idle]
      .map((slot) => ({ slot, worth: worthOf(slot.cachedPrefix(tokens), slot.sequence.nextTokenIndex) }))
      .toSorted((a, b) => b.worth - a.worth || a.slot.lastUsed - b.slot.lastUsed);
    const best = ranked[0]?.slot;
    if (best === undefined) throw new Error("no idle slot to lend");
    this.#idle.delete(best);
    best.lastUsed = this.#clock++;
    return best;
  }
}
