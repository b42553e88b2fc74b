import { basename } from "node:path";
import { readAdapter, type Adapter, type Served } from "./adapter.ts";
import { BlockPool } from "./blocks.ts";
import { costProfiles, overhead, transferMs, type CostProfile } from "./cost.ts";
import { EngineError, LoadFailure } from "./errors.ts";
import { countUp, type Faults } from "./faults.ts";
import { GpuLoop, waitOn } from "./loop.ts";
import { Histogram } from "./metrics.ts";
import type { EngineHost, EngineOptions } from "./options.ts";
import { planAnswer, type Answer, type AnswerListener, type AnswerWork } from "./plan.ts";
import { Batch, type EndReason, type Sequence } from "./scheduler.ts";
import { answerSeed, answerToken, countTokens, embeddingOf, hash53 } from "./text.ts";

/** What of a sleeping engine is back already. */
type Tag = "weights" | "kv_cache";

/** Calls that are remembered. */
const keptCalls = 10_000;

/** Bytes on the GPU that a sleeping engine keeps (1.4 GiB seen on an H100). */
const asleepBytes = Math.round(1.4 * 2 ** 30);

const secondBounds = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80];

/** One simulated engine: a model on virtual GPUs, without its HTTP. */
export class SimEngine {
  readonly options: EngineOptions;
  readonly host: EngineHost;
  readonly startedMs = Date.now();
  readonly profile: CostProfile;
  readonly pool: BlockPool;
  readonly batch: Batch;
  readonly adapters = new Map<string, Adapter>();
  /** `METHOD path?query` of every call, in order; the simulator's own calls are not among them. */
  readonly calls: string[] = [];
  readonly finished: Record<EndReason, number> = { stop: 0, length: 0, abort: 0 };
  readonly seconds = {
    firstToken: new Histogram(secondBounds),
    betweenTokens: new Histogram(secondBounds),
    wholeRequest: new Histogram(secondBounds),
    queue: new Histogram(secondBounds),
  };
  faults: Faults;
  state: "loading" | "ready" | "dead" = "loading";
  /** Whether the model has been unloaded on command, as Triton does it. */
  unloaded = false;
  /** Null while awake. */
  asleep: { readonly level: number; readonly back: Set<Tag> } | null = null;
  readonly #loop: GpuLoop;
  readonly #weightsSeed: number;
  /** Whether the weights are what they were at the start. */
  #intact = true;
  #adaptersLost = false;

  constructor(options: EngineOptions, host: EngineHost) {
    this.options = options;
    this.host = host;
    this.faults = host.settings;
    this.profile = costProfiles[host.profile];
    const blocks =
      options.kvBlocks ?? host.settings.kvBlocks ?? Math.floor(this.profile.kvTokens / options.blockTokens);
    this.pool = new BlockPool(blocks, options.prefixCaching);
    this.batch = new Batch(this.profile, options, this.pool);
    const merged = options.mergedAdapters.map((path) => `+${basename(path)}`).join("");
    this.#weightsSeed = hash53((host.settings.weightsSeed ?? basename(options.modelPath)) + merged);
    this.#loop = new GpuLoop(this.batch, host.clock, () => ({
      slowFactor: this.faults.slow_factor ?? 1,
      stepDelayMs: this.faults.step_delay_ms ?? 0,
    }));
  }

  /** Longest prompt and answer together. */
  get contextTokens(): number {
    const capacity = this.pool.total * this.options.blockTokens;
    return Math.min(this.options.maxModelLen ?? capacity, capacity);
  }

  get weightsBytes(): number {
    return this.host.settings.weightsBytes ?? this.profile.weightsBytes;
  }

  /** Memory that the engine holds on its GPUs, all together. */
  get gpuMemoryBytes(): number {
    if (this.state !== "ready") return 0;
    if (this.unloaded) return asleepBytes;
    if (this.asleep === null) return Math.round(this.profile.gpuMemoryBytes * 0.9);
    return asleepBytes + (this.asleep.back.has("weights") ? this.weightsBytes : 0);
  }

  remember(call: string): void {
    if (this.calls.length < keptCalls) this.calls.push(call);
  }

  /** Loads the model. Throws `LoadFailure`; never settles when it is told so. */
  async load(): Promise<void> {
    const { faults, host } = this;
    this.state = "loading";
    const name = basename(this.options.modelPath);
    if (faults.corrupt_after_restart === true && countUp(host.counterFolder, `starts-${name}`) > 1)
      this.#intact = false;
    if (faults.slow_load_ms !== undefined) await waitOn({ speed: 1 }, faults.slow_load_ms);
    const deaths = faults.die_at_load_times ?? 0;
    const dies = deaths > 0 && countUp(host.counterFolder, `deaths-${name}`) <= deaths;
    if (dies || faults.die_at_load === true) throw new LoadFailure("CUDA out of memory");
    if (faults.never_ready === true) await new Promise<never>(() => {});
    await this.#readWeights();
    for (const [adapter, path] of Object.entries(this.options.adapters)) this.loadAdapter(adapter, path);
    this.state = "ready";
  }

  /** The model or adapter of that name. Throws 404. */
  find(name: string): Served {
    if (this.options.servedNames.includes(name)) return { name, adapter: null };
    const adapter = this.adapters.get(name);
    if (adapter !== undefined) return { name, adapter };
    const { unknownName, servedNames } = this.options;
    if (unknownName === "ignored") return { name: servedNames[0] ?? name, adapter: null };
    throw new EngineError(unknownName, `The model \`${name}\` does not exist.`, { param: "model" });
  }

  /** Throws when no request can be answered now. One that reaches a sleeping engine kills it, as it kills vLLM. */
  assertServing(): void {
    if (this.asleep !== null && this.state === "ready") this.die();
    if (this.state !== "ready" || this.faults.lie_ready === true) {
      const message = "EngineCore encountered an issue. See stack trace (above) for the root cause.";
      throw new EngineError(500, message, { type: "EngineDeadError" });
    }
  }

  /** Starts computing an answer. Throws 400 when the prompt does not fit. */
  async begin(work: AnswerWork, listener: AnswerListener): Promise<{ answer: Answer; abort(): void }> {
    const answer = this.#answer(work);
    const arrivedMs = performance.now();
    const { clock } = this.host;
    if (clock.speed > 0) {
      await waitOn(clock, overhead.requestMs);
      this.assertServing();
    }
    const timing = { firstMs: 0, lastMs: 0 };
    const sequence = this.#loop.submit({
      prompt: work.prompt,
      salt: work.served.adapter?.name ?? "",
      outputTokens: answer.tokens,
      lastReason: answer.reason,
      tokenText: (position) => answerToken(answer.seed, position).text,
      onStart: (cached) => {
        this.seconds.queue.observe(this.#simulatedSeconds(arrivedMs));
        listener.onStart?.(cached);
      },
      onToken: (produced) => {
        this.#observeToken(produced, { arrivedMs, timing });
        this.#dieOfTokens();
        if (this.state === "ready") listener.onToken?.(produced);
      },
      onEnd: (reason) => {
        this.finished[reason] += 1;
        this.seconds.wholeRequest.observe(this.#simulatedSeconds(arrivedMs));
        if (clock.speed === 0 || reason === "abort") listener.onEnd(reason);
        else void waitOn(clock, overhead.outputTokenMs * answer.tokens).then(() => listener.onEnd(reason));
      },
    });
    return { answer, abort: () => this.#abort(sequence) };
  }

  /** The embedding of a text. Takes the time of its prefill. Throws 400 when the text is too long. */
  async embed(served: Served, text: string): Promise<number[]> {
    const tokens = countTokens(text);
    if (tokens > this.contextTokens) {
      const message = `This model's maximum context length is ${this.contextTokens} tokens. However, you requested ${tokens} tokens in the input.`;
      throw new EngineError(400, message, { param: "input" });
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    const salt = served.adapter?.name ?? "";
    const work = { prompt: text, salt, outputTokens: 0, lastReason: "stop", tokenText: () => "" } as const;
    this.#loop.submit({ ...work, onEnd: () => resolve() });
    await promise;
    const source = { weights: this.#weights(), adapter: this.#adapterSeed(served), prompt: text, choice: 0 };
    return embeddingOf(source, this.host.settings.dimensions ?? 64);
  }

  /** What an adapter takes before it is loaded at run time. */
  async adapterDelay(): Promise<void> {
    const { slow_adapter_load_ms: ms } = this.faults;
    if (ms !== undefined) await waitOn({ speed: 1 }, ms);
  }

  /** Loads an adapter from its folder. Throws vLLM's 400 and 404. */
  loadAdapter(name: string, path: string, inPlace = false): void {
    const { lora } = this.options;
    if (lora === null) throw new EngineError(400, "LoRA is not enabled. Use --enable-lora to enable LoRA.");
    if (this.adapters.has(name) && !inPlace) {
      const message = `The lora adapter '${name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.`;
      throw new EngineError(400, message, { type: "InvalidUserInput" });
    }
    const adapter = readAdapter(name, path);
    if (adapter.rank > lora.maxRank) {
      throw new EngineError(400, `LoRA rank ${adapter.rank} is greater than max_lora_rank ${lora.maxRank}.`);
    }
    this.adapters.set(name, adapter);
  }

  /** Throws 404 when it is not loaded. */
  unloadAdapter(name: string): void {
    if (this.adapters.delete(name)) return;
    throw new EngineError(404, `The lora adapter '${name}' cannot be found.`);
  }

  /** Drops the KV cache and moves the weights to RAM (1) or nowhere (2); requests that run are aborted. */
  async sleep(level: number): Promise<void> {
    if (this.faults.refuse_sleep === true) throw new EngineError(500, "sleep failed");
    if (!this.options.sleepMode) throw new EngineError(500, "Sleep mode is not enabled. Use --enable-sleep-mode.");
    if (this.asleep !== null) return;
    this.#loop.abortAll();
    this.asleep = { level, back: new Set() };
    this.pool.forget();
    if (level === 2) this.#intact = false;
    await waitOn(this.host.clock, level === 1 ? transferMs(this.weightsBytes) : 100);
  }

  /** Brings back what `tags` name, or everything. After level 2 the weights are nonsense until they are reloaded. */
  async wakeUp(tags: readonly Tag[]): Promise<void> {
    if (this.faults.wake_fails === true) throw new EngineError(500, "CUDA error: out of memory");
    const { asleep } = this;
    if (asleep === null) return;
    const wanted: readonly Tag[] = tags.length === 0 ? ["weights", "kv_cache"] : tags;
    const readsWeights = asleep.level === 1 && wanted.includes("weights");
    await waitOn(this.host.clock, readsWeights ? transferMs(this.weightsBytes) : 100);
    for (const tag of wanted) asleep.back.add(tag);
    if (asleep.back.size < 2) return;
    this.asleep = null;
    if (this.faults.corrupt_after_wake === true) this.#intact = false;
    if (this.faults.lora_lost_after_wake === true) this.#adaptersLost = true;
  }

  /** Reads the weights from disk into memory that must be there. Throws 500 when it is not. */
  async reloadWeights(): Promise<void> {
    if (this.asleep !== null && !this.asleep.back.has("weights")) {
      throw new EngineError(500, "CUDA error: an illegal memory access was encountered");
    }
    await waitOn(this.host.clock, this.weightsBytes / diskBytesPerMs);
    this.#intact = true;
  }

  /** Frees the GPU while the server stays. */
  unload(): void {
    if (this.faults.refuse_sleep === true) throw new EngineError(500, "failed to unload");
    this.unloaded = true;
    this.pool.forget();
  }

  /** Loads the model again after `unload`. */
  async loadAgain(): Promise<void> {
    if (this.faults.wake_fails === true) throw new EngineError(500, "failed to load: CUDA out of memory");
    if (!this.unloaded) return;
    await this.#readWeights();
    if (this.faults.corrupt_after_wake === true) this.#intact = false;
    this.unloaded = false;
  }

  /** The engine process has broken down but its server is still there; it ends soon after. */
  die(): void {
    if (this.state === "dead") return;
    this.state = "dead";
    this.#loop.abortAll();
    const { speed } = this.host.clock;
    setTimeout(() => this.host.fail(), Math.max(lastWordsMs, speed === 0 ? 0 : watchdogMs / speed)).unref();
  }

  /** Nothing is heard of this engine any more. */
  stop(): void {
    this.#loop.stop();
  }

  #answer(work: AnswerWork): Answer {
    const promptTokens = countTokens(work.prompt);
    const room = this.contextTokens - promptTokens;
    if (room < 1) {
      const message = `This model's maximum context length is ${this.contextTokens} tokens. However, your request has ${promptTokens} input tokens. Please reduce the length of the input messages.`;
      throw new EngineError(400, message, { param: "input_tokens" });
    }
    if (work.maxTokens !== null && work.maxTokens > room) {
      const message = `'max_tokens' or 'max_completion_tokens' is too large: ${work.maxTokens}. This model's maximum context length is ${this.contextTokens} tokens and your request has ${promptTokens} input tokens.`;
      throw new EngineError(400, message, { param: "max_tokens" });
    }
    const weights = this.#weights();
    const { prompt, choice } = work;
    const seed = answerSeed({ weights, adapter: this.#adapterSeed(work.served), prompt, choice });
    return planAnswer(seed, { ...work, maxTokens: work.maxTokens ?? room, natural: this.host.settings.answerTokens });
  }

  async #readWeights(): Promise<void> {
    await waitOn(this.host.clock, this.weightsBytes / diskBytesPerMs + (this.host.settings.initMs ?? 18_000));
  }

  #abort(sequence: Sequence): void {
    this.#loop.abort(sequence);
  }

  #weights(): number {
    return this.#intact ? this.#weightsSeed : hash53("corrupt", this.#weightsSeed);
  }

  #adapterSeed({ adapter }: Served): number {
    return this.#adaptersLost ? 0 : (adapter?.seed ?? 0);
  }

  #dieOfTokens(): void {
    const { die_after_tokens: limit } = this.faults;
    if (limit === undefined || this.batch.counters.generationTokens < limit) return;
    this.state = "dead";
    this.stop();
    this.host.kill();
  }

  #observeToken(
    produced: number,
    { arrivedMs, timing }: { arrivedMs: number; timing: { firstMs: number; lastMs: number } },
  ): void {
    if (produced === 1) this.seconds.firstToken.observe(this.#simulatedSeconds(arrivedMs));
    else this.seconds.betweenTokens.observe(this.#simulatedSeconds(timing.lastMs));
    timing.lastMs = performance.now();
  }

  #simulatedSeconds(sinceMs: number): number {
    return ((performance.now() - sinceMs) / 1_000) * (this.host.clock.speed || 1);
  }
}

/** Safetensors from a local NVMe disk were measured at 3.6 GB/s, everything else in a start at 18 s. */
const diskBytesPerMs = 3.6e6;

/** Between the death of vLLM's engine core and the end of its server: its watchdog looks every 5 s. */
const watchdogMs = 5_000;

/** Real ms in which a dead engine still answers, so that its client hears the error. */
const lastWordsMs = 300;
