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

/**
 * The transfer thread and its hash thread, as the download sees them. In threads of their own so that a download at the speed
 * of the disk does not hold up the tokens that this thread relays, and so that its buffers go back to the system with it.
 */
export class DirectEngine implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #ranges = new Map<number, Waiting>();
  readonly #digests = new Map<number, (value: string | undefined) => void>();
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
  async fetch(
    order: Omit<RangeOrder, "id">,
    { signal, onBytes }: { signal: AbortSignal; onBytes: (bytes: number) => void },
  ): Promise<Landed> {
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

  /** The hash of a file, once all its bytes were hashed; undefined when the threads died. */
  digest(file: number): Promise<string | undefined> {
    if (this.#died) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      this.#digests.set(file, resolve);
      this.#tell({ kind: "digest", file });
    });
  }

  /** Closes sockets and files and frees all memory. */
  async [Symbol.asyncDispose](): Promise<void> {
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
      case "digest":
        this.#digests.get(message.file)?.(message.value);
        this.#digests.delete(message.file);
        break;
    }
  }

  #count(range: Waiting | undefined, bytes: number): void {
    if (range === undefined) return;
    range.told += bytes;
    range.onBytes(bytes);
  }

  #end(): void {
    this.#died = true;
    for (const range of this.#ranges.values()) {
      this.#count(range, -range.told);
      range.resolve(lost(range.start));
    }
    for (const resolve of this.#digests.values()) resolve(undefined);
    this.#ranges.clear();
    this.#digests.clear();
  }
}

function lost(position: number): Landed {
  return { position, outcome: { kind: "unfit", reason: "worker_died" } };
}
