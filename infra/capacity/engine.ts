import { overhead, prefillMs, stepMs, type EngineModel } from "./engine-model.ts";
import { Heap } from "./heap.ts";

/** A request as an engine sees it. Times in ms. */
export interface Work {
  readonly arrivedMs: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** Place of its model among the engine's models. */
  readonly model: number;
}

/** What an engine tells. */
export interface EngineEvents {
  /** The request is done. Its first token came at `firstMs`, its last at `endMs`. */
  readonly onEnd: (work: Work, firstMs: number, endMs: number) => void;
  /** ms until `model` serves in place of what was there, or after it was idle for so long. */
  readonly switchMs: (model: number, change: { readonly from: number | null; readonly idleMs: number }) => number;
  /** The model is being changed, or woken. */
  readonly onSwitch: (model: number) => void;
}

interface Queued {
  readonly work: Work;
  readonly atMs: number;
}

interface Prefilling {
  readonly work: Work;
  computed: number;
}

interface Decoding {
  readonly work: Work;
  readonly firstMs: number;
}

/** Steps that a router looks ahead, so that what decodes counts beside prompts that wait. */
const decodeWeight = 4;

/**
 * One engine: a batch with continuous batching and chunked prefill. Each step takes one chunk of prompts and one
 * token of everything that decodes. Steps of pure decoding are taken together, so that its cost is by request, not by
 * token. A request holds KV cache for its prompt and its whole answer from the start: nothing is preempted.
 */
export class Engine {
  readonly #models: readonly EngineModel[];
  readonly #events: EngineEvents;
  readonly #cachedShare: number;
  #model: number | null;
  #nowMs: number;
  /** End of the step or the load that is going on. */
  #busyUntilMs = 0;
  #isMixedStep = false;
  /** Requests that are not admitted; those before `#head` are gone. */
  #queue: Queued[] = [];
  #head = 0;
  #lastQueued: number | null;
  readonly #prefilling: Prefilling[] = [];
  /** New tokens of the step that is going on, for each of the first of `#prefilling`. */
  #chunks: number[] = [];
  /** By the step in which they end. */
  readonly #decoding = new Heap<Decoding>();
  #steps = 0;
  #contextTokens = 0;
  #kvTokens = 0;
  #pendingMs = 0;
  /** When the last request ended, or the model was there. */
  #lastEndMs: number;

  constructor(
    models: readonly EngineModel[],
    events: EngineEvents,
    start: { readonly atMs: number; readonly model: number | null; readonly cachedShare: number },
  ) {
    this.#models = models;
    this.#events = events;
    this.#model = start.model;
    this.#lastQueued = start.model;
    this.#nowMs = start.atMs;
    this.#lastEndMs = start.atMs;
    this.#cachedShare = start.cachedShare;
  }

  /** Requests that are here: waiting and running. */
  get outstanding(): number {
    return this.#waiting + this.#prefilling.length + this.#decoding.size;
  }

  /** The model that it has, or changes to; null: none. */
  get model(): number | null {
    return this.#lastQueued;
  }

  /**
   * About how long a request would wait here for its turn, in ms. Infinity: another model is here that somebody uses, or
   * used until `notBeforeMs` ago.
   */
  waitMs(model: number, notBeforeMs: number): number {
    const constants = this.#models[model];
    if (constants === undefined) return Infinity;
    if (this.#lastQueued !== model) {
      const isUsed = this.outstanding > 0 || this.#nowMs - this.#lastEndMs < notBeforeMs;
      return isUsed ? Infinity : this.#events.switchMs(model, { from: this.#lastQueued, idleMs: 0 });
    }
    const work = { prefillMs: 0, decodes: this.#decoding.size, contextTokens: this.#contextTokens };
    const step = stepMs(constants, work);
    const isFull = this.#kvTokens > 0.95 * constants.kvTokens || this.outstanding >= constants.maxSequences;
    const untilNext = isFull && this.#decoding.size > 0 ? this.#decoding.first - this.#steps : 0;
    const loading = this.#isMixedStep ? 0 : Math.max(0, this.#busyUntilMs - this.#nowMs);
    const blocked = step * untilNext * (1 + this.#waiting);
    return this.#pendingMs * overhead.factor + loading + blocked + step * decodeWeight;
  }

  get #waiting(): number {
    return this.#queue.length - this.#head;
  }

  /** Takes a request. Not before the time of an earlier one. */
  submit(work: Work, atMs: number): void {
    this.#queue.push({ work, atMs: atMs + overhead.requestMs });
    this.#lastQueued = work.model;
    this.#pendingMs += this.#wholePrefillMs(work);
  }

  /** Does everything that ends by `untilMs`. */
  advance(untilMs: number): void {
    for (;;) {
      if (this.#busyUntilMs > untilMs) return;
      this.#nowMs = Math.max(this.#nowMs, this.#busyUntilMs);
      if (this.#isMixedStep) this.#endMixedStep();
      if (this.#admit()) continue;
      if (this.#prefilling.length > 0) this.#startMixedStep();
      else if (this.#decoding.size > 0) {
        if (!this.#decode(untilMs)) return;
      } else {
        const next = this.#queue[this.#head];
        if (next === undefined || next.atMs > untilMs) {
          if (untilMs < Infinity) this.#nowMs = Math.max(this.#nowMs, untilMs);
          return;
        }
        this.#nowMs = Math.max(this.#nowMs, next.atMs);
      }
    }
  }

  /** Lets in who waits and fits. Answers whether the model is being changed now. */
  #admit(): boolean {
    for (;;) {
      const next = this.#queue[this.#head];
      if (next === undefined || next.atMs > this.#nowMs) return false;
      const { work } = next;
      const isEmpty = this.#prefilling.length + this.#decoding.size === 0;
      if (isEmpty) {
        const ms = this.#change(work.model);
        if (ms > 0) {
          this.#busyUntilMs = this.#nowMs + ms;
          return true;
        }
      } else if (this.#model !== work.model) return false;
      const constants = this.#models[work.model];
      const needed = work.inputTokens + work.outputTokens;
      const running = this.#prefilling.length + this.#decoding.size;
      if (constants === undefined || running >= constants.maxSequences) return false;
      if (!isEmpty && this.#kvTokens + needed > constants.kvTokens) return false;
      this.#kvTokens += needed;
      this.#dequeue();
      this.#prefilling.push({ work, computed: Math.floor(work.inputTokens * this.#cachedShare) });
    }
  }

  #change(model: number): number {
    const idleMs = this.#nowMs - Math.max(this.#busyUntilMs, this.#lastEndMs);
    const ms = this.#events.switchMs(model, { from: this.#model, idleMs });
    if (ms > 0) this.#events.onSwitch(model);
    this.#model = model;
    this.#lastEndMs = this.#nowMs + ms;
    return ms;
  }

  #startMixedStep(): void {
    const constants = this.#constants();
    let room = Math.max(1, constants.chunkTokens - this.#decoding.size);
    let prefill = 0;
    this.#chunks = [];
    for (const { work, computed } of this.#prefilling) {
      if (room <= 0) break;
      const tokens = Math.min(room, Math.max(1, work.inputTokens - computed));
      this.#chunks.push(tokens);
      prefill += prefillMs(constants, tokens, computed);
      room -= tokens;
    }
    const step = { prefillMs: prefill, decodes: this.#decoding.size, contextTokens: this.#contextTokens };
    this.#pendingMs = Math.max(0, this.#pendingMs - prefill);
    this.#busyUntilMs = this.#nowMs + stepMs(constants, step);
    this.#isMixedStep = true;
  }

  #endMixedStep(): void {
    this.#isMixedStep = false;
    this.#contextTokens += this.#decoding.size;
    this.#steps += 1;
    this.#endDecoded();
    const finished = this.#chunks.length;
    for (let at = 0; at < finished; at += 1) {
      const entry = this.#prefilling[at];
      if (entry !== undefined) entry.computed += this.#chunks[at] ?? 0;
    }
    while (this.#prefilling[0] !== undefined && this.#prefilling[0].computed >= this.#prefilling[0].work.inputTokens) {
      const { work } = this.#prefilling.shift() ?? this.#prefilling[0];
      if (work.outputTokens <= 1) this.#end({ work, firstMs: this.#nowMs });
      else {
        this.#decoding.push(this.#steps + work.outputTokens - 1, { work, firstMs: this.#nowMs });
        this.#contextTokens += work.inputTokens + 1;
      }
    }
  }

  /** Steps in which nothing but decoding happens. False: not one of them ends by `untilMs`. */
  #decode(untilMs: number): boolean {
    const constants = this.#constants();
    const decodes = this.#decoding.size;
    const first = stepMs(constants, { prefillMs: 0, decodes, contextTokens: this.#contextTokens });
    const growth = overhead.factor * constants.k * decodes;
    const left = Math.max(1, this.#decoding.first - this.#steps);
    const next = this.#queue[this.#head];
    const arrivalMs = next === undefined || next.atMs <= this.#nowMs ? Infinity : next.atMs;
    // Someone new is let in at the first step that ends after they came.
    const byArrival = Math.ceil(stepsIn(arrivalMs - this.#nowMs, first, growth));
    const byTime = Math.floor(stepsIn(untilMs - this.#nowMs, first, growth));
    const steps = Math.min(left, Math.max(1, byArrival), byTime);
    if (steps < 1) return false;
    this.#nowMs += steps * first + (growth * steps * (steps - 1)) / 2;
    this.#steps += steps;
    this.#contextTokens += steps * decodes;
    this.#endDecoded();
    return true;
  }

  #endDecoded(): void {
    while (this.#decoding.first <= this.#steps) {
      const done = this.#decoding.pop();
      if (done === undefined) return;
      this.#contextTokens -= done.work.inputTokens + done.work.outputTokens;
      this.#end(done);
    }
  }

  #end({ work, firstMs }: Decoding): void {
    this.#kvTokens -= work.inputTokens + work.outputTokens;
    this.#lastEndMs = this.#nowMs;
    this.#events.onEnd(work, firstMs, this.#nowMs + overhead.outputTokenMs * work.outputTokens);
  }

  #dequeue(): void {
    this.#head += 1;
    if (this.#head < 1_024) return;
    this.#queue = this.#queue.slice(this.#head);
    this.#head = 0;
  }

  #wholePrefillMs({ model, inputTokens }: Work): number {
    const constants = this.#models[model];
    if (constants === undefined) return 0;
    const cached = Math.floor(inputTokens * this.#cachedShare);
    return prefillMs(constants, Math.max(1, inputTokens - cached), cached);
  }

  #constants(): EngineModel {
    const constants = this.#models[this.#model ?? 0];
    if (constants === undefined) throw new Error("an engine has at least one model");
    return constants;
  }
}

/** How many steps fit in `ms`, where the first takes `first` and each one `growth` more: not rounded. */
function stepsIn(ms: number, first: number, growth: number): number {
  if (ms <= 0) return 0;
  if (ms === Infinity) return Infinity;
  if (growth < 1e-12) return ms / first;
  const half = first - growth / 2;
  return (Math.sqrt(half * half + 2 * growth * ms) - half) / growth;
}
