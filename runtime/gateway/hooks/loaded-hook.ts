import type { Histogram } from "prom-client";
import { PenstockError } from "../../contracts/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { HookRequest } from "./hook.ts";
import type { HookOptions } from "../../contracts/hooks.ts";
import type { Call, Stage } from "./protocol.ts";
import { Late, type HookThread } from "./thread.ts";

/** How long calls took, by hook and outcome. */
export type Seconds = Histogram<"hook" | "outcome">;

/** What a hook's answer means for the request. */
export type Taken<Value> =
  | { readonly outcome: "passed" }
  | { readonly outcome: "changed"; readonly value: Value }
  | { readonly outcome: "refused"; readonly refusal: PenstockError };

/** What log lines say of a request. */
type Named = Pick<HookRequest, "requestId" | "traceId">;

/** One call of a hook. */
export interface HookCall<Value> {
  readonly about: Named;
  readonly call: Call;
  /** Checks what came back. What it throws is the hook's fault. */
  readonly take: (answer: unknown) => Taken<Value>;
}

/** A hook with what the config says of it. */
export class LoadedHook implements AsyncDisposable {
  readonly #thread: HookThread;
  readonly #options: HookOptions;
  readonly #seconds: Seconds;
  readonly #log: Logger;
  readonly #models: ReadonlySet<string> | null;

  constructor(thread: HookThread, options: HookOptions, parts: { readonly seconds: Seconds; readonly log: Logger }) {
    this.#thread = thread;
    this.#options = options;
    this.#seconds = parts.seconds;
    this.#log = parts.log;
    this.#models = options.models === undefined ? null : new Set(options.models);
  }

  sees(model: string): boolean {
    return this.#models?.has(model) ?? true;
  }

  has(stage: Stage): boolean {
    return this.#thread.stages.has(stage);
  }

  /**
   * Calls the hook. Answers what it changed, or null. Throws its refusal; when it fails, `hook_failed`, unless it may be
   * skipped.
   */
  async run<Value>({ about, call, take }: HookCall<Value>): Promise<Value | null> {
    const startedMs = performance.now();
    let outcome: Taken<Value>["outcome"] | "failed" | "late" = "failed";
    let taken: Taken<Value>;
    try {
      taken = take(await this.#thread.call(call, this.#options.deadlineMs));
      ({ outcome } = taken);
    } catch (error) {
      if (error instanceof Late) outcome = "late";
      return this.fail(about, error);
    } finally {
      this.#seconds.observe({ hook: this.#thread.name, outcome }, (performance.now() - startedMs) / 1_000);
    }
    if (taken.outcome === "refused") throw taken.refusal;
    return taken.outcome === "changed" ? taken.value : null;
  }

  /** What a failure means: null when the hook may be skipped, else throws `hook_failed`. */
  fail({ requestId, traceId }: Named, error: unknown): null {
    const { name } = this.#thread;
    // An error of the table names a field; others come from `thread.ts` and `worker.ts`, which say nothing of a prompt.
    const reason = error instanceof Error ? error.message : "unknown";
    const who = { requestId, ...(traceId === null ? {} : { traceId }), hook: name };
    this.#log.warn({ ...who, reason, onError: this.#options.onError }, "a hook failed");
    if (this.#options.onError === "skip") return null;
    throw new PenstockError("hook_failed", `The gateway's check \`${name}\` of this request failed; try again later.`, {
      retryAfterSeconds: 1,
      cause: error,
    });
  }

  /** A stream has ended. */
  forget(stream: number): void {
    this.#thread.forget(stream);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#thread[Symbol.asyncDispose]();
  }
}
