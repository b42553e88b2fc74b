import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../../lib/log.ts";
import { queryGpus } from "./query.ts";
import type { GpuSlots } from "./slots.ts";
import { GpuToolError, type GpuTool } from "./tool.ts";

/** What a sampler is made of. */
export interface SamplerOptions {
  readonly slots: GpuSlots;
  readonly tool: GpuTool;
  /** From the end of one sample to the start of the next. */
  readonly intervalMs: number;
  readonly log: Logger;
}

/** Asks the driver again and again in the background, so that a heartbeat has numbers at hand. */
export class GpuSampler {
  readonly #options: SamplerOptions;
  readonly #stopping = new AbortController();
  readonly #ended: Promise<void>;
  #problem: string | null = null;

  /** Starts at once. */
  constructor(options: SamplerOptions) {
    this.#options = options;
    this.#ended = this.#run();
  }

  /** Why the last sample is not of now, fit to be shown; null while all is well. */
  get problem(): string | null {
    return this.#problem;
  }

  /** Ends the sampling, and the call of the tool that is under way. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await this.#sample(signal);
      await delay(this.#options.intervalMs, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  async #sample(signal: AbortSignal): Promise<void> {
    const { slots, tool } = this.#options;
    try {
      const lost = slots.update(await queryGpus(tool, signal));
      this.#report(lost.length === 0 ? null : `nvidia-smi no longer lists GPU ${lost.join(", ")}.`);
    } catch (thrown) {
      if (!(thrown instanceof GpuToolError)) throw thrown;
      if (signal.aborted) return;
      this.#report(thrown.message);
      // A tool that hangs in its driver survives being killed: a second one would only hang beside it.
      await Promise.race([thrown.gone, once(signal, "abort")]);
    }
  }

  #report(problem: string | null): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    if (problem === null) this.#options.log.info("GPUs answer again");
    else this.#options.log.warn({ problem }, "GPUs cannot be sampled");
  }
}
