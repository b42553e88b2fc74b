import { getCACertificates } from "node:tls";
import { Worker } from "node:worker_threads";
import { post, type FileOrder, type FromWorker, type Outcome, type RangeOrder, type ToWorker } from "./protocol.ts";

/** How far a range got. */
export interface Landed {
  /** Bytes of the range before it are on disk. */
  readonly position: number;
  readonly outcome: Outcome;
}

interface Waiting {
  readonly start: number;
  /** Bytes told of so far. */
  told: number;
  readonly onBytes: (bytes: number) => void;
  readonly resolve: (landed: Landed) => void;
}

/** Until when, and who hears of bytes. */
interface Hooks {
  readonly signal: AbortSignal;
  readonly onBytes: (bytes: number) => void;
}

/** A hash that is waited for. */
interface Hashing {
  readonly onBytes: (bytes: number) => void;
  readonly resolve: (value: string | undefined) => void;
  told: number;
}

/**
 * The transfer thread and its hash thread, as the download sees them. In threads of their own so that a download at the speed
 * of the disk does not hold up the tokens that this thread relays, and so that its buffers go back to the system with it.
 */
export class DirectEngine implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #ranges = new Map<number, Waiting>();
  readonly #digests = new Map<number, Hashing>();
  readonly #exited: Promise<void>;
  #died = false;
  #trusted = false;
  #nextId = 0;
  #nextFile = 0;

  constructor() {
    this.#worker = new Worker(new URL("worker.ts", import.meta.url), { execArgv: [] });
    this.#worker.on("message", (message: FromWorker) => this.#heard(message));
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#exited = promise;
    this.#worker.on("error", () => this.#end());
    this.#worker.on("exit", () => {
      this.#end();
      resolve();
    });
  }

  /** Announces a file that lies on disk at its full length; answers its number. */
  open(order: Omit<FileOrder, "file">): number {
    const file = this.#nextFile;
    this.#nextFile += 1;
    this.#tell({ kind: "file", file, ...order });
    return file;
  }

  /** All ranges of the file are done. */
  close(file: number): void {
    this.#tell({ kind: "close", file });
  }

  /**
   * Brings a range to disk. `onBytes` hears of bytes as they come, and at the end of the difference to what is on disk.
   * Ends with `broken` when the signal is aborted; never throws.
   */
  async fetch(order: Omit<RangeOrder, "id">, { signal, onBytes }: Hooks): Promise<Landed> {
    if (this.#died) return lost(order.start);
    const id = this.#nextId;
    this.#nextId += 1;
    const cancel = (): void => this.#tell({ kind: "cancel", id });
    signal.addEventListener("abort", cancel, { once: true });
    try {
      return await new Promise<Landed>((resolve) => {
        this.#ranges.set(id, { start: order.start, told: 0, onBytes, resolve });
        if (order.url.startsWith("https:")) this.#trust();
        this.#tell({ kind: "range", id, ...order });
      });
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  /**
   * The hash of a file, once all its bytes were hashed; undefined when the threads died. `onBytes` hears of all its bytes.
   * Throws the signal's reason.
   */
  async digest(file: number, { signal, onBytes }: Hooks): Promise<string | undefined> {
    if (this.#died) return undefined;
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
    const leave = (): void => reject(signal.reason);
    signal.addEventListener("abort", leave, { once: true });
    this.#digests.set(file, { onBytes, resolve, told: 0 });
    this.#tell({ kind: "digest", file });
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", leave);
      this.#digests.delete(file);
    }
  }

  /** Nothing more is wanted of a file. */
  forget(file: number): void {
    this.#tell({ kind: "forget", file });
  }

  /** Whether the threads are gone, by a failure or because nobody needs them. */
  get isDead(): boolean {
    return this.#died;
  }

  /** Closes sockets and files and frees all memory. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#died = true;
    this.#tell({ kind: "stop" });
    // A disk that hangs shall not hang the agent.
    const late = setTimeout(() => void this.#worker.terminate(), 5_000);
    await this.#exited;
    clearTimeout(late);
  }

  /** A thread has trust of its own: that one shall trust what this one does, and it costs 20 ms. */
  #trust(): void {
    if (this.#trusted) return;
    this.#trusted = true;
    this.#tell({ kind: "trust", ca: getCACertificates("default") });
  }

  #tell(message: ToWorker): void {
    post(this.#worker, message);
  }

  #heard(message: FromWorker): void {
    switch (message.kind) {
      case "bytes":
        for (const [id, bytes] of message.counts) this.#count(this.#ranges.get(id), bytes);
        break;
      case "end": {
        const range = this.#ranges.get(message.id);
        this.#ranges.delete(message.id);
        if (range === undefined) break;
        this.#count(range, message.position - range.start - range.told);
        range.resolve({ position: message.position, outcome: message.outcome });
        break;
      }
      case "hashed": {
        const hashing = this.#digests.get(message.file);
        if (hashing !== undefined) this.#count(hashing, message.bytes - hashing.told);
        break;
      }
      case "digest":
        this.#digests.get(message.file)?.resolve(message.value);
        break;
    }
  }

  #count(of: Waiting | Hashing | undefined, bytes: number): void {
    if (of === undefined) return;
    of.told += bytes;
    of.onBytes(bytes);
  }

  #end(): void {
    this.#died = true;
    for (const range of this.#ranges.values()) {
      this.#count(range, -range.told);
      range.resolve(lost(range.start));
    }
    for (const hashing of this.#digests.values()) {
      this.#count(hashing, -hashing.told);
      hashing.resolve(undefined);
    }
    this.#ranges.clear();
  }
}

/** The engine that all downloads of this process share, so that its memory is there once. */
let shared: { readonly engine: DirectEngine; users: number } | undefined;

/** The shared engine, started when nobody has it yet. It ends when the last one gives it back. */
export function takeEngine(): { engine: DirectEngine; giveBack: () => Promise<void> } {
  if (shared === undefined || shared.engine.isDead) shared = { engine: new DirectEngine(), users: 0 };
  const taken = shared;
  taken.users += 1;
  return {
    engine: taken.engine,
    giveBack: async () => {
      taken.users -= 1;
      if (taken.users > 0) return;
      if (shared === taken) shared = undefined;
      await taken.engine[Symbol.asyncDispose]();
    },
  };
}

function lost(position: number): Landed {
  return { position, outcome: { kind: "unfit", reason: "worker_died" } };
}
