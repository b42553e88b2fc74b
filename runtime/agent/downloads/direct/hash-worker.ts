import { createHash, type Hash } from "node:crypto";
import { closeSync, constants, openSync, readSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import type { Algorithm } from "../../sources/source.ts";
import { layout, pageBytes, readBackBytes } from "./blocks.ts";
import { combineCrc64, Crc64, crc64Text } from "./crc64.ts";
import { post, type FromHasher, type ToHasher } from "./protocol.ts";

/** The hash of one file under way. */
interface Digest {
  add(address: number, bytes: number, start: number): void;
  value(): string;
}

const { memory } = workerData as { memory: WebAssembly.Memory }; // what the transfer thread gives
const shared = new Uint8Array(memory.buffer);
const crc64 = new Crc64(memory, layout.tables);
const digests = new Map<number, { readonly path: string; readonly digest: Digest }>();

function tell(message: FromHasher): void {
  if (parentPort !== null) post(parentPort, message);
}

/** SHA-256 and MD5 come in the order of the file. */
class InOrder implements Digest {
  readonly #hash: Hash;

  constructor(algorithm: "sha256" | "md5") {
    this.#hash = createHash(algorithm);
  }

  add(address: number, bytes: number): void {
    this.#hash.update(shared.subarray(address, address + bytes));
  }

  value(): string {
    return this.#hash.digest("hex");
  }
}

/** CRCs of pieces in any order, put together at the end. */
class AnyOrder implements Digest {
  readonly #pieces = new Map<number, { readonly bytes: number; readonly sum: bigint }>();

  add(address: number, bytes: number, start: number): void {
    this.#pieces.set(start, { bytes, sum: crc64.update(0n, address, address + bytes) });
  }

  value(): string {
    const ordered = [...this.#pieces].toSorted(([left], [right]) => left - right);
    return crc64Text(ordered.reduce((sum, [, piece]) => combineCrc64(sum, piece.sum, piece.bytes), 0n));
  }
}

const makers = {
  sha256: () => new InOrder("sha256"),
  md5: () => new InOrder("md5"),
  crc64nvme: () => new AnyOrder(),
} as const satisfies Record<Algorithm, () => Digest>;

/** Hashes part of a file from disk, past the page cache where that works: what was written did not go through it either. */
function readBack({ path, digest }: { path: string; digest: Digest }, start: number, end: number): void {
  const fd = openForReading(path);
  try {
    for (let at = start; at < end;) {
      const wanted = Math.min(end - at, readBackBytes);
      const whole = Math.ceil(wanted / pageBytes) * pageBytes;
      const got = Math.min(wanted, readSync(fd, shared, layout.readBack, whole, at));
      if (got === 0) throw new Error("a partial file became shorter");
      digest.add(layout.readBack, got, at);
      at += got;
    }
  } finally {
    closeSync(fd);
  }
}

function openForReading(path: string): number {
  const { O_RDONLY, O_NOFOLLOW, O_DIRECT } = constants;
  try {
    const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_DIRECT);
    try {
      readSync(fd, shared, layout.readBack, pageBytes, 0);
      return fd;
    } catch {
      closeSync(fd);
    }
  } catch {
    // A file system without O_DIRECT.
  }
  return openSync(path, O_RDONLY | O_NOFOLLOW);
}

function handle(message: ToHasher): void {
  if (message.kind === "file") {
    digests.set(message.file, { path: message.path, digest: makers[message.algorithm]() });
    return;
  }
  if (message.kind === "forget") {
    digests.delete(message.file);
    return;
  }
  const of = digests.get(message.file);
  if (of === undefined) throw new TypeError("a file that was not opened");
  switch (message.kind) {
    case "block":
      of.digest.add(message.address, message.end - message.start, message.start);
      return tell({ kind: "done" });
    case "disk":
      readBack(of, message.start, message.end);
      return tell({ kind: "done" });
    case "digest":
      digests.delete(message.file);
      return tell({ kind: "digest", file: message.file, value: of.digest.value() });
  }
}

parentPort?.on("message", handle);
