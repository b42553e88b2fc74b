import { Histogram, Registry } from "prom-client";
import { PenstockError } from "../../contracts/errors.ts";
import { createLog, type Logger } from "../../lib/log.ts";
import { LoadedHook, type Seconds } from "./loaded-hook.ts";
import type { HookOptions } from "../../contracts/hooks.ts";
import { RequestHooks, type About } from "./request-hooks.ts";
import { HookThread, Unusable } from "./thread.ts";

interface HooksParts {
  readonly registry: Registry;
  readonly log: Logger;
}

/** Other hooks that have been loaded and wait to be used. Disposing of them first drops them. */
export interface NextHooks extends AsyncDisposable {
  /** New requests see these; those that have begun keep the old ones, whose threads end with the last of them. */
  use(): void;
}

/** The hooks of the config, in its order. */
export class Hooks implements AsyncDisposable {
  readonly #parts: HooksParts;
  readonly #seconds: Seconds;
  #current = new Generation([]);

  private constructor(parts: HooksParts) {
    this.#parts = parts;
    this.#seconds = new Histogram({
      name: "penstock_gateway_hook_seconds",
      help: "Calls of hooks: `passed`, `changed`, `refused`, `failed` or `late`.",
      labelNames: ["hook", "outcome"],
      buckets: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 10],
      registers: [parts.registry],
    });
  }

  /** Loads hooks. Throws `invalid_config` with every problem of every one of them. */
  static async start(options: readonly HookOptions[], parts: HooksParts): Promise<Hooks> {
    const hooks = new Hooks(parts);
    (await hooks.load(options)).use();
    return hooks;
  }

  /** Whether no request is seen by any hook. */
  get none(): boolean {
    return this.#current.hooks.length === 0;
  }

  /** The hooks that see a request of `about.model`; null when there are none. Dispose of them when it has ended. */
  enter(about: About): RequestHooks | null {
    const generation = this.#current;
    const hooks = generation.hooks.filter((hook) => hook.sees(about.model));
    if (hooks.length === 0) return null;
    generation.enter();
    return new RequestHooks(hooks, about, () => generation.leave());
  }

  /** Loads hooks beside those in use, each module anew. Throws as `start` does; then all is as it was. */
  async load(options: readonly HookOptions[]): Promise<NextHooks> {
    const { log } = this.#parts;
    const started = await Promise.allSettled(options.map((each) => HookThread.start(each, log)));
    const next = new Generation(
      started.flatMap((result, at) => {
        const own = options[at];
        if (result.status === "rejected" || own === undefined) return [];
        return [new LoadedHook(result.value, own, { seconds: this.#seconds, log })];
      }),
    );
    const problems = started.flatMap((result, at) => (result.status === "fulfilled" ? [] : linesOf(result.reason, at)));
    if (problems.length > 0) {
      await next.retire();
      throw new PenstockError("invalid_config", problems.join("\n"));
    }
    let used = false;
    return {
      use: () => {
        used = true;
        void this.#current.retire();
        this.#current = next;
      },
      [Symbol.asyncDispose]: async () => {
        if (!used) await next.retire();
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#current.retire();
  }
}

/** Hooks that were loaded together. Their threads end when they are retired and no request uses them. */
class Generation {
  readonly hooks: readonly LoadedHook[];
  #requests = 0;
  #retired = false;

  constructor(hooks: readonly LoadedHook[]) {
    this.hooks = hooks;
  }

  enter(): void {
    this.#requests += 1;
  }

  leave(): void {
    this.#requests -= 1;
    if (this.#retired && this.#requests === 0) void this.#close();
  }

  async retire(): Promise<void> {
    this.#retired = true;
    if (this.#requests === 0) await this.#close();
  }

  async #close(): Promise<void> {
    await Promise.all(this.hooks.map((hook) => hook[Symbol.asyncDispose]()));
  }
}

function linesOf(reason: unknown, at: number): string[] {
  if (!(reason instanceof Unusable)) throw reason;
  return reason.problems.map(({ path, message }) => `hooks[${at}].${path}: ${message}`);
}

/** Whether hooks can be loaded. Throws as `Hooks.start` does. */
export async function checkHooks(options: readonly HookOptions[]): Promise<void> {
  await using _hooks = await Hooks.start(options, { registry: new Registry(), log: createLog("gateway", "silent") });
}
