import { PenstockError, toPenstockError } from "../contracts/errors.ts";
import type { Logger } from "../lib/log.ts";
import { Contexts } from "./contexts.ts";
import { Embedder } from "./embedder.ts";
import { Gate } from "./gate.ts";
import { generate, type GenerationEvent, type GenerationJob } from "./generate.ts";
import { loadModel, type LoadedModel } from "./load-model.ts";
import { EngineMetrics } from "./metrics.ts";
import type { EngineOptions } from "./options.ts";
import { Totals } from "./totals.ts";

/** A model that is loaded, with everything that answers requests. */
export interface Serving extends LoadedModel {
  readonly contexts: Contexts;
  readonly embedder: Embedder;
}

/** A request inside the engine. */
export interface Ticket {
  /** When it came, of `performance.now`. */
  readonly began: number;
  /** False while it waits for its turn or for its first sequence. */
  computes: boolean;
}

/** What a generation belongs to. */
export interface GenerateOptions {
  readonly adapter: string | undefined;
  readonly signal: AbortSignal;
  readonly ticket: Ticket;
}

type State = { readonly name: "loading" | "draining" } | { readonly name: "ready"; readonly serving: Serving };

/** The engine: one model, from load to drain. */
export class Engine {
  readonly options: EngineOptions;
  readonly metrics = new EngineMetrics();
  readonly gate: Gate;
  readonly totals = new Totals();
  readonly #log: Logger;
  #state: State = { name: "loading" };
  #loaded: Serving | undefined;
  /** Requests that are inside. */
  readonly #tickets = new Set<Ticket>();

  constructor(options: EngineOptions, log: Logger) {
    this.options = options;
    this.#log = log;
    this.gate = new Gate({ concurrent: options.maxConcurrentRequests, queue: options.maxQueue });
  }

  get state(): State["name"] {
    return this.#state.name;
  }

  /** What was loaded, also while draining; undefined before. */
  get loaded(): Serving | undefined {
    return this.#loaded;
  }

  /** Loads the model and its adapters. Throws an error whose message names the remedy. */
  async load(): Promise<void> {
    const began = performance.now();
    const loaded = await loadModel(this.options, this.#log);
    const contexts = await Contexts.create(loaded, this.options.parallel);
    for (const lora of this.options.loras) await contexts.load(lora);
    this.#loaded = { ...loaded, contexts, embedder: new Embedder(loaded) };
    if (this.#state.name === "loading") this.#state = { name: "ready", serving: this.#loaded };
    this.#log.info(
      {
        model: this.options.servedModelName,
        parameters: loaded.parameters,
        contextTokens: loaded.contextTokens,
        sequences: this.options.parallel,
        threads: loaded.threads,
        gpu: loaded.llama.gpu,
        gpuLayers: loaded.model.gpuLayers,
        ownTemplate: loaded.template.isOwn,
        toolFormat: loaded.toolFormat?.name ?? "none",
        milliseconds: Math.round(performance.now() - began),
      },
      "ready",
    );
  }

  /** From now on every new request is refused. */
  drain(): void {
    this.#state = { name: "draining" };
  }

  /** What answers requests. Throws `model_not_ready` or `draining`. */
  serving(): Serving {
    if (this.#state.name === "ready") return this.#state.serving;
    if (this.#state.name === "draining") {
      throw new PenstockError("draining", "The engine is shutting down; send the request to another replica.");
    }
    throw new PenstockError("model_not_ready", "The model is still loading; try again soon.", { retryAfterSeconds: 1 });
  }

  /** What writes texts. Throws as `serving` does, or `unsupported` when the model only makes embeddings. */
  writing(): Serving {
    const serving = this.serving();
    if (!serving.looksBothWays) return serving;
    throw new PenstockError("unsupported", "This model makes embeddings; it cannot write text.", { param: "model" });
  }

  /** What a request need not say: the engine has one model, so its name may be left out. */
  get requestDefaults(): { readonly model: string } {
    return { model: this.options.servedModelName };
  }

  /** The adapter that a request's `model` names; undefined for the base model. Throws `model_not_found`. */
  adapterOf(model: string): string | undefined {
    const base = this.options.servedModelName;
    if (model === base) return undefined;
    const adapter = model.startsWith(`${base}:`) ? model.slice(base.length + 1) : undefined;
    if (adapter !== undefined && this.serving().contexts.hasAdapter(adapter)) return adapter;
    throw new PenstockError("model_not_found", `The model \`${model}\` is not served here.`, { param: "model" });
  }

  /** Works on one request under the engine's limits, and counts it. */
  async admit<T>(signal: AbortSignal, work: (ticket: Ticket) => Promise<T>): Promise<T> {
    const ticket: Ticket = { began: performance.now(), computes: false };
    let outcome = "ok";
    this.#tickets.add(ticket);
    try {
      const leave = await this.gate.enter(signal);
      try {
        return await work(ticket);
      } finally {
        leave();
      }
    } catch (thrown) {
      outcome = toPenstockError(thrown).code;
      throw thrown;
    } finally {
      this.#tickets.delete(ticket);
      const seconds = (performance.now() - ticket.began) / 1000;
      this.metrics.requests.observe({ outcome }, seconds);
      this.#log.debug({ outcome, seconds }, "request");
    }
  }

  /** Generates one text on a free sequence of the base model, or of the adapter. Goes on while the engine drains. */
  async *generate(job: GenerationJob, { adapter, signal, ticket }: GenerateOptions): AsyncGenerator<GenerationEvent> {
    const serving = this.#loaded;
    if (serving === undefined) throw new Error("a generation before the model was loaded");
    const { contexts, model, vocabulary } = serving;
    const { slot, release } = await contexts.acquire(adapter, job.prompt, signal);
    ticket.computes = true;
    try {
      yield* this.#measured(generate(job, { model, vocabulary, slot, signal }), job, ticket.began);
    } catch (thrown) {
      // After a failure of llama.cpp nobody knows what the sequence holds.
      if (!(thrown instanceof PenstockError)) await slot.sequence.clearHistory();
      throw thrown;
    } finally {
      release();
    }
  }

  /** How many requests compute, and how many wait for their turn or for a sequence. */
  get demand(): { readonly running: number; readonly waiting: number } {
    const running = [...this.#tickets].filter(({ computes }) => computes).length;
    return { running, waiting: this.#tickets.size - running };
  }

  async *#measured(
    events: AsyncGenerator<GenerationEvent>,
    job: GenerationJob,
    began: number,
  ): AsyncGenerator<GenerationEvent> {
    let lastToken: number | undefined;
    for await (const event of events) {
      if (event.type === "prefilled") {
        this.metrics.promptTokens.inc(job.prompt.length);
        this.metrics.cachedTokens.inc(event.cachedTokens);
        this.totals.addPrompt(job.prompt.length, event.cachedTokens);
      }
      if (event.type === "token") {
        const now = performance.now();
        if (lastToken === undefined) this.metrics.firstToken.observe((now - began) / 1000);
        else this.metrics.betweenTokens.observe((now - lastToken) / 1000);
        lastToken = now;
        this.metrics.generatedTokens.inc();
        this.totals.addGenerated(now);
      }
      yield event;
    }
  }
}
