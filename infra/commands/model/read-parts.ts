import { withRetry, type RetryLimits } from "../../../runtime/agent/downloads/retry.ts";
import { failed } from "../../../runtime/agent/sources/errors.ts";
import type { Source, SourceFile } from "../../../runtime/agent/sources/source.ts";

/** Smallest part: S3 takes none below 5 MiB, and Azure bills each. */
const smallestPartBytes = 16 * 2 ** 20;
/** S3 takes 10,000 parts of an object. */
const mostParts = 10_000;
/** Parts that are read ahead of the one that is wanted. */
export const readAhead = 6;
const limits: RetryLimits = { attempts: 6, retryBaseMs: 500, retryMaxMs: 20_000 };

/** A file of a source, and when to stop. */
export interface PartsOptions {
  readonly source: Source;
  readonly file: SourceFile;
  readonly signal: AbortSignal;
  /** Smaller ones are for tests. */
  readonly partBytes?: number | undefined;
}

/** A file's bytes in parts, in order; several are read at once where the source has ranges. Throws what the source throws. */
export async function* readParts(options: PartsOptions): AsyncGenerator<Buffer> {
  const { file, partBytes = Math.max(smallestPartBytes, Math.ceil(file.sizeBytes / mostParts)) } = options;
  if (!file.ranges) {
    yield* cutStream(options, partBytes);
    return;
  }
  const pending: Promise<Buffer>[] = [];
  let start = 0;
  while (start < file.sizeBytes || pending.length > 0) {
    while (start < file.sizeBytes && pending.length < readAhead) {
      const part = readPart(options, { start, end: Math.min(file.sizeBytes, start + partBytes) });
      // Whoever waits for it hears of its failure; one that nobody waits for any more must not end the process.
      part.catch(() => undefined);
      pending.push(part);
      start += partBytes;
    }
    const next = pending.shift();
    if (next !== undefined) yield await next;
  }
}

/** One stream from the start, for servers that know no ranges: what breaks cannot be tried again. */
async function* cutStream({ source, file, signal }: PartsOptions, partBytes: number): AsyncGenerator<Buffer> {
  let chunks: Uint8Array[] = [];
  let held = 0;
  let total = 0;
  for await (const chunk of source.readRange(file, { start: 0, end: file.sizeBytes, signal })) {
    chunks.push(chunk);
    held += chunk.length;
    total += chunk.length;
    if (held < partBytes) continue;
    yield Buffer.concat(chunks, held);
    chunks = [];
    held = 0;
  }
  if (total !== file.sizeBytes) throw wrongLength(source, file, { got: total, wanted: file.sizeBytes });
  if (held > 0) yield Buffer.concat(chunks, held);
}

async function readPart(
  { source, file, signal }: PartsOptions,
  { start, end }: { readonly start: number; readonly end: number },
): Promise<Buffer> {
  return await withRetry(
    async () => {
      const bytes = Buffer.allocUnsafe(end - start);
      let at = 0;
      for await (const chunk of source.readRange(file, { start, end, signal })) {
        if (at + chunk.length <= bytes.length) bytes.set(chunk, at);
        at += chunk.length;
      }
      if (at !== bytes.length) throw wrongLength(source, file, { got: at, wanted: bytes.length });
      return bytes;
    },
    { limits, signal },
  );
}

function wrongLength(source: Source, file: SourceFile, { got, wanted }: { got: number; wanted: number }): Error {
  return failed(source.uri, `${got} bytes of ${file.path} came in place of ${wanted}`);
}
