import { Worker } from "node:worker_threads";
import { blockBytes, type Block, type Blocks } from "./blocks.ts";
import { post, type FileOrder, type FromHasher, type ToHasher } from "./protocol.ts";

/** A piece of a file in memory. */
interface Held {
  readonly end: number;
  readonly block: Block;
  /** Whether it is on disk, so that the block may go: the hash thread can read it back. */
  written: boolean;
}

interface FileState {
  readonly ordered: boolean;
  readonly sizeBytes: number;
  /** Where the hash of an ordered file is. */
  next: number;
  /** Bytes that were given to the hash thread. */
  given: number;
  /** By start. */
  readonly held: Map<number, Held>;
  /** On disk only: start to end. */
  readonly onDisk: Map<number, number>;
  wanted: boolean;
}

/** Pieces that the hash thread has at once: enough that it never waits for this thread. */
const ahead = 8;

/**
 * Feeds the hash thread with what arrives: blocks while they are still in memory, and what had to leave it from disk. Blocks
 * that come before their turn are kept as long as no connection lacks one.
 */
export class HashQueue {
  readonly #memory: WebAssembly.Memory;
  /** Started for the first file that has a checksum. */
  #worker: Worker | undefined;
  readonly #blocks: Blocks;
  readonly #onDigest: (file: number, value: string) => void;
  readonly #files = new Map<number, FileState>();
  /** What to do when each piece that the hash thread has is done, in order. */
  readonly #given: (() => void)[] = [];

  constructor(options: {
    readonly memory: WebAssembly.Memory;
    readonly blocks: Blocks;
    readonly onDigest: (file: number, value: string) => void;
  }) {
    this.#memory = options.memory;
    this.#blocks = options.blocks;
    this.#onDigest = options.onDigest;
    this.#blocks.onShort = () => this.#makeRoom();
  }

  open({ file, path, sizeBytes, algorithm, onDisk }: FileOrder): void {
    if (algorithm === null) return;
    this.#files.set(file, {
      ordered: algorithm !== "crc64nvme",
      sizeBytes,
      next: 0,
      given: 0,
      held: new Map(),
      onDisk: new Map(onDisk),
      wanted: false,
    });
    this.#tell({ kind: "file", file, path, algorithm });
    this.#pump();
  }

  /** Takes a piece that has arrived; `written` follows once it is on disk. */
  arrived(file: number, { start, end, block }: { start: number; end: number; block: Block }): void {
    const state = this.#files.get(file);
    if (state === undefined) return;
    block.users += 1;
    state.held.set(start, { end, block, written: false });
    this.#pump();
  }

  written(file: number, start: number): void {
    const held = this.#files.get(file)?.held.get(start);
    if (held !== undefined) held.written = true;
    this.#makeRoom();
  }

  /**
   * Lets blocks go when a connection lacks one while the hash thread has nothing to do: what it needs next is still to come,
   * perhaps over that very connection. While it has work, blocks will be free soon, and reading back costs more than waiting.
   */
  #makeRoom(): void {
    while (this.#blocks.isShort && this.#given.length === 0 && this.#evict());
  }

  /** Lets go of the block whose turn is farthest away. Answers false when there is none. */
  #evict(): boolean {
    for (const state of [...this.#files.values()].toReversed()) {
      let farthest: number | undefined;
      for (const [start, { written }] of state.held) {
        if (written && start >= (farthest ?? 0)) farthest = start;
      }
      const held = farthest === undefined ? undefined : state.held.get(farthest);
      if (farthest === undefined || held === undefined) continue;
      state.held.delete(farthest);
      state.onDisk.set(farthest, held.end);
      this.#blocks.release(held.block);
      return true;
    }
    return false;
  }

  /** `onDigest` follows once all bytes of the file were given. */
  digest(file: number): void {
    const state = this.#files.get(file);
    if (state !== undefined) state.wanted = true;
    this.#pump();
  }

  forget(file: number): void {
    const state = this.#files.get(file);
    if (state === undefined) return;
    this.#files.delete(file);
    for (const { block } of state.held.values()) this.#blocks.release(block);
    this.#tell({ kind: "forget", file });
  }

  /** How far the files are whose hash is waited for. */
  *progress(): Generator<{ file: number; bytes: number }> {
    for (const [file, { wanted, given }] of this.#files) if (wanted) yield { file, bytes: given };
  }

  async stop(): Promise<void> {
    await this.#worker?.terminate();
  }

  #tell(message: ToHasher): void {
    post((this.#worker ??= this.#start()), message);
  }

  #start(): Worker {
    const worker = new Worker(new URL("hash-worker.ts", import.meta.url), {
      workerData: { memory: this.#memory },
      execArgv: [],
    });
    worker.on("message", (message: FromHasher) => this.#heard(message));
    // It ends this thread too, and the sources' own clients take over.
    worker.on("error", (error) => {
      throw error;
    });
    return worker;
  }

  #heard(message: FromHasher): void {
    if (message.kind === "digest") return this.#onDigest(message.file, message.value);
    this.#given.shift()?.();
    this.#pump();
  }

  #pump(): void {
    for (const [file, state] of this.#files) {
      while (this.#given.length < ahead && this.#give(file, state));
      if (state.wanted && state.given === state.sizeBytes) {
        this.#files.delete(file);
        this.#tell({ kind: "digest", file });
      }
    }
    this.#makeRoom();
  }

  /** Gives the hash thread the next piece of a file; false when that is not there yet. */
  #give(file: number, state: FileState): boolean {
    const heldAt = state.ordered ? state.next : state.held.keys().next().value;
    const held = heldAt === undefined ? undefined : state.held.get(heldAt);
    if (heldAt !== undefined && held !== undefined) {
      state.held.delete(heldAt);
      this.#tell({ kind: "block", file, start: heldAt, end: held.end, address: held.block.address });
      this.#given.push(() => this.#blocks.release(held.block));
      return this.#passed(state, { start: heldAt, end: held.end });
    }
    const start = state.ordered ? state.next : state.onDisk.keys().next().value;
    const last = start === undefined ? undefined : state.onDisk.get(start);
    if (start === undefined || last === undefined) return false;
    // Piece by piece, so that blocks do not wait behind gigabytes.
    const end = Math.min(last, start + blockBytes);
    state.onDisk.delete(start);
    if (end < last) state.onDisk.set(end, last);
    this.#tell({ kind: "disk", file, start, end });
    this.#given.push(() => undefined);
    return this.#passed(state, { start, end });
  }

  #passed(state: FileState, { start, end }: { start: number; end: number }): true {
    state.next = end;
    state.given += end - start;
    return true;
  }
}
