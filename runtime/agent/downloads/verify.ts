import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { PenstockError } from "../../contracts/errors.ts";
import type { Algorithm, Checksum } from "../sources/source.ts";
import { Crc64, crc64TableBytes, crc64Text } from "./direct/crc64.ts";
import { Meter, type DownloadProgress } from "./progress.ts";

/** A file on disk and what it must sum to. */
export interface ExpectedFile {
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string | null;
  readonly checksum?: Checksum;
}

const bufferBytes = 1 << 20;
const wasmPage = 65_536;

/** What a file must sum to: its SHA-256 where one is known, else what its store has. */
export function expectedSum({ sha256, checksum }: ExpectedFile): Checksum | undefined {
  return sha256 === null ? checksum : { algorithm: "sha256", value: sha256 };
}

/** Until when, and who hears of bytes. */
interface Hooks {
  readonly signal: AbortSignal;
  readonly onBytes: (bytes: number) => void;
}

interface VerifyOptions {
  readonly directory: string;
  readonly uri: string;
  readonly onProgress: (progress: DownloadProgress) => void;
  readonly signal: AbortSignal;
  /** What a file summed to while it arrived; undefined when it has to be read for that. */
  readonly arrived?: (path: string, hooks: Hooks) => Promise<string | undefined>;
}

/**
 * Compares the files that have a checksum with it, and reads those for that which were not summed while they arrived: clones,
 * what an earlier run brought, the cache. That costs about half a second per GB and core (SHA-256 at 1.8 GB/s).
 * Throws `checksum_mismatch`.
 */
export async function verifyFiles(files: readonly ExpectedFile[], options: VerifyOptions): Promise<void> {
  const { directory, uri, onProgress, signal, arrived } = options;
  const expected = files.filter((file) => expectedSum(file) !== undefined);
  if (expected.length === 0) return;
  const bytesTotal = expected.reduce((sum, file) => sum + file.sizeBytes, 0);
  using meter = new Meter({ phase: "verify", bytesTotal, alreadyDone: 0 }, onProgress);
  for (const file of expected) {
    const { algorithm, value } = expectedSum(file) ?? { algorithm: "sha256", value: "" };
    const hooks = { signal, onBytes: (bytes: number) => meter.add(bytes) };
    const actual =
      (await arrived?.(file.path, hooks)) ?? (await sumOf(join(directory, file.path), { algorithm, ...hooks }));
    if (actual === value) continue;
    throw new PenstockError(
      "checksum_mismatch",
      `${file.path} of ${uri} does not have the expected ${algorithm} ${value}; its bytes hash to ${actual}. ` +
        "Check the model's sha256, or upload the file again.",
    );
  }
}

interface Sum {
  update(bytes: Uint8Array): void;
  digest(): string;
}

const sums = {
  sha256: () => hashSum("sha256"),
  md5: () => hashSum("md5"),
  crc64nvme: () => crcSum(),
} as const satisfies Record<Algorithm, () => Sum>;

function hashSum(algorithm: "sha256" | "md5"): Sum {
  const hash = createHash(algorithm);
  return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest("hex") };
}

function crcSum(): Sum {
  const pages = Math.ceil((bufferBytes + crc64TableBytes) / wasmPage);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const room = new Uint8Array(memory.buffer, 0, bufferBytes);
  const crc64 = new Crc64(memory, bufferBytes);
  let sum = 0n;
  return {
    update: (bytes) => {
      room.set(bytes);
      sum = crc64.update(sum, 0, bytes.length);
    },
    digest: () => crc64Text(sum),
  };
}

/** What a file sums to. */
async function sumOf(
  path: string,
  { algorithm, onBytes, signal }: Hooks & { readonly algorithm: Algorithm },
): Promise<string> {
  await using handle = await open(path, "r");
  const sum = sums[algorithm]();
  const buffer = Buffer.allocUnsafe(bufferBytes);
  for (;;) {
    signal.throwIfAborted();
    const { bytesRead } = await handle.read(buffer, 0, bufferBytes, null);
    if (bytesRead === 0) return sum.digest();
    sum.update(buffer.subarray(0, bytesRead));
    onBytes(bytesRead);
  }
}
