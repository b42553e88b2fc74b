import { crc64TableBytes } from "./crc64.ts";

/** Alignment of memory, offsets and lengths that O_DIRECT asks for on every Linux disk. */
export const pageBytes = 4096;

/**
 * Each block costs a turn of the disk's and of the hash thread, so on a busy machine bigger ones are faster (sha256 of a file on
 * 2 shared cores, medians: 1 MiB 0.41 GB/s, 2 MiB 0.49, 4 MiB 0.68). Small enough that 32 connections have one each.
 */
export const blockBytes = 3 * 2 ** 20;

/** The most that all blocks take: one to fill for each of 32 connections, and some that are written and hashed. */
const poolBytes = 41 * blockBytes;
/** Behind the blocks: where the hash thread reads back what is no longer in memory, and its CRC tables. */
export const readBackBytes = 2 * 2 ** 20;
const wasmPage = 65_536;

/** Addresses of the parts of the shared memory. */
export const layout = { readBack: poolBytes, tables: poolBytes + readBackBytes } as const;

/**
 * The memory that downloads land in, shared by the transfer and the hash thread. WebAssembly's because that begins at a page,
 * as O_DIRECT wants it. Pages that nothing was written to take no room, and it goes with the threads.
 */
export function sharedMemory(): WebAssembly.Memory {
  const pages = Math.ceil((layout.tables + crc64TableBytes) / wasmPage);
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
}

/** A piece of the shared memory. It is free again once nobody uses it. */
export interface Block {
  readonly address: number;
  users: number;
}

/** The blocks of the shared memory, handed out one by one. */
export class Blocks {
  readonly bytes: Uint8Array;
  readonly #free: Block[] = [];
  readonly #waiting: ((block: Block) => void)[] = [];
  /** Called when somebody begins to wait for a block. */
  onShort: () => void = () => undefined;

  constructor(memory: WebAssembly.Memory) {
    this.bytes = new Uint8Array(memory.buffer);
    for (let address = poolBytes - blockBytes; address >= 0; address -= blockBytes) {
      this.#free.push({ address, users: 0 });
    }
  }

  /** A block with one user; undefined when all are in use. The one that was freed last comes first: its pages are warm. */
  take(): Block | undefined {
    const block = this.#free.pop();
    if (block !== undefined) block.users = 1;
    return block;
  }

  /** Calls back with the next block that is freed. */
  wait(callback: (block: Block) => void): void {
    this.#waiting.push(callback);
    this.onShort();
  }

  stopWaiting(callback: (block: Block) => void): void {
    const index = this.#waiting.indexOf(callback);
    if (index >= 0) this.#waiting.splice(index, 1);
  }

  get isShort(): boolean {
    return this.#waiting.length > 0;
  }

  release(block: Block): void {
    block.users -= 1;
    if (block.users > 0) return;
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(block);
    else {
      block.users = 1;
      next(block);
    }
  }

  view({ address }: Block, start: number, end: number): Uint8Array {
    return this.bytes.subarray(address + start, address + end);
  }
}
