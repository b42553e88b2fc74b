import { once } from "node:events";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import type { Logger } from "../../lib/log.ts";
import type { HookOptions } from "../../contracts/hooks.ts";
import type { Call, FromThread, Problem, Stage, ThreadData, ToThread } from "./protocol.ts";

/** A module that loads for longer is refused. */
const startTimeoutMs = 10_000;

/** A thread that says nothing for so long after a call was late is stuck, and is replaced. */
const stuckMs = 1_000;

/** Between the end of a thread and the start of the next one. */
const restartMs = 1_000;

/** What one hook may fill: prompts are megabytes at most. */
const memoryMiB = 256;

/** A line that a hook writes is cut here. */
const maxLineLength = 1_000;

/** The hook's answer did not come in time. */
export class Late extends Error {}

/** The hook cannot be used at all. */
export class Unusable extends Error {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    super("unusable hook");
    this.problems = problems;
  }
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

type Ready = Extract<FromThread, { readonly kind: "ready" }>;

/** The thread in which one hook runs. When it ends by itself, another one takes its place. */
export class HookThread implements AsyncDisposable {
  readonly name: string;
  readonly stages: ReadonlySet<Stage>;
  readonly #data: ThreadData;
  readonly #log: Logger;
  readonly #pending = new Map<number, Pending>();
  #worker: Worker | null;
  #nextId = 0;
  #lastSignMs = 0;
  #restart: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(started: { worker: Worker; ready: Ready }, parts: { data: ThreadData; log: Logger }) {
    this.name = started.ready.name;
    this.stages = new Set(started.ready.stages);
    this.#data = parts.data;
    this.#log = parts.log;
    this.#worker = this.#attend(started.worker);
  }

  /** Loads a hook in a thread of its own. Throws `Unusable`. */
  static async start({ module, options }: HookOptions, log: Logger): Promise<HookThread> {
    const data = { moduleUrl: pathToFileURL(module).href, options };
    return new HookThread(await startWorker(data, log), { data, log });
  }

  /** What the hook returned, unchecked. Rejects with `Late`, or with where it failed. */
  call(call: Call, deadlineMs: number): Promise<unknown> {
    const worker = this.#worker;
    if (worker === null) return Promise.reject(new Error("its thread has ended; another one starts"));
    this.#nextId += 1;
    const id = this.#nextId;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    // Looked at once more after what has arrived: this thread may be the one that was busy.
    const timer = setTimeout(() => setImmediate(() => this.#late(worker, id)), deadlineMs);
    this.#pending.set(id, { resolve, reject, timer });
    send(worker, { kind: "call", id, call });
    return promise;
  }

  /** A stream has ended. */
  forget(stream: number): void {
    if (this.#worker !== null) send(this.#worker, { kind: "forget", stream });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#restart);
    await this.#worker?.terminate();
  }

  #attend(worker: Worker): Worker {
    worker.on("message", (message: FromThread) => {
      this.#lastSignMs = performance.now();
      if (message.kind === "result") this.#take(message.id)?.resolve(message.value);
      else if (message.kind === "failed") this.#take(message.id)?.reject(new Error(message.reason));
    });
    // Its message may hold what a client wrote.
    worker.on("error", (error) => this.#log.error({ hook: this.name, error: error.name }, "a hook ended its thread"));
    worker.once("exit", () => this.#ended());
    return worker;
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    clearTimeout(pending?.timer);
    this.#pending.delete(id);
    return pending;
  }

  #late(worker: Worker, id: number): void {
    const pending = this.#take(id);
    if (pending === undefined) return;
    pending.reject(new Late("it took longer than its deadline"));
    const sinceMs = performance.now();
    send(worker, { kind: "ping" });
    setTimeout(() => {
      if (this.#worker !== worker || this.#lastSignMs >= sinceMs) return;
      this.#log.error({ hook: this.name }, "a hook's thread is stuck; another one takes its place");
      void worker.terminate();
    }, stuckMs).unref();
  }

  #ended(): void {
    this.#worker = null;
    for (const id of this.#pending.keys()) this.#take(id)?.reject(new Error("its thread has ended"));
    if (this.#closed) return;
    this.#restart = setTimeout(() => void this.#startAgain(), restartMs).unref();
  }

  async #startAgain(): Promise<void> {
    try {
      const { worker } = await startWorker(this.#data, this.#log);
      if (this.#closed) await worker.terminate();
      else this.#worker = this.#attend(worker);
    } catch {
      this.#log.error({ hook: this.name }, "a hook's thread does not start again");
      this.#ended();
    }
  }
}

function send(worker: Worker, message: ToThread): void {
  // The empty list tells the linter that this is no window.
  worker.postMessage(message, []);
}

async function startWorker(data: ThreadData, log: Logger): Promise<{ worker: Worker; ready: Ready }> {
  const worker = new Worker(new URL("worker.ts", import.meta.url), {
    workerData: data,
    execArgv: [],
    // Keys of stores and agents are in the gateway's.
    env: {},
    stdout: true,
    stderr: true,
    resourceLimits: { maxOldGenerationSizeMb: memoryMiB },
  });
  for (const stream of [worker.stdout, worker.stderr]) {
    stream.on("data", (text: Buffer) => log.info({ line: String(text).slice(0, maxLineLength) }, "a hook wrote"));
  }
  const answer = await firstMessage(worker);
  if (answer.kind === "ready") {
    // A gateway that has nothing else to do may end.
    worker.unref();
    return { worker, ready: answer };
  }
  await worker.terminate();
  throw new Unusable(answer.problems);
}

function unusable(message: string): First {
  return { kind: "unusable", problems: [{ path: "module", message }] };
}

type First = Extract<FromThread, { readonly kind: "ready" | "unusable" }>;

async function firstMessage(worker: Worker): Promise<First> {
  const timeout = AbortSignal.timeout(startTimeoutMs);
  const stop = new AbortController();
  const signal = AbortSignal.any([timeout, stop.signal]);
  try {
    return await Promise.race([
      once(worker, "message", { signal }).then(([message]) => message as First), // by what worker.ts sends first
      once(worker, "exit", { signal }).then(() => unusable("ended its thread while it was loaded")),
    ]);
  } catch (error) {
    if (timeout.aborted) return unusable(`did not load within ${startTimeoutMs / 1_000} s`);
    return unusable(`cannot be loaded: ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    stop.abort();
  }
}
