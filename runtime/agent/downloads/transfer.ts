import { failed, replaced, unusable, type SourceError } from "../sources/errors.ts";
import type { Source, SourceFile } from "../sources/source.ts";
import type { PartFile } from "./part-file.ts";
import { withRetry, type RetryLimits } from "./retry.ts";

/** One piece of work: bytes `start` up to, not including, `end` of a file. */
export interface Range {
  readonly file: SourceFile;
  readonly start: number;
  readonly end: number;
}

/** What a range may cost before it counts as failed. */
export interface TransferLimits extends RetryLimits {
  /** How long a source may send nothing. */
  readonly stallTimeoutMs: number;
}

interface TransferOptions {
  readonly source: Source;
  readonly part: PartFile;
  readonly limits: TransferLimits;
  readonly signal: AbortSignal;
  /** Bytes that landed; negative when a stream that cannot go on begins anew. */
  readonly onBytes: (bytes: number) => void;
}

/** All ranges of a download, file by file. Small files, and those of servers without ranges, are one range each. */
export function planRanges(files: readonly SourceFile[], rangeBytes: number): Range[] {
  const ranges: Range[] = [];
  for (const file of files) {
    const step = file.ranges ? rangeBytes : Math.max(file.sizeBytes, 1);
    for (let start = 0; start < file.sizeBytes; start += step) {
      ranges.push({ file, start, end: Math.min(start + step, file.sizeBytes) });
    }
  }
  return ranges;
}

/**
 * Brings one range to disk. A broken stream goes on where it ended, or from 0 where the server knows no ranges.
 * Throws what the source throws once trying again is of no use.
 */
export async function transferRange(range: Range, options: TransferOptions): Promise<void> {
  const { file, end } = range;
  const { limits, signal, onBytes } = options;
  // Bytes of this range that are down. A server that cuts every stream after one byte shall not keep us for ever,
  // so only a good piece of the range counts as progress.
  const enough = Math.ceil((end - range.start) / 16);
  let position = range.start;
  await withRetry(
    async (progressed) => {
      const from = position;
      // It broke after the last byte that mattered.
      if (from === end) return;
      const onWritten = (bytes: number): void => {
        position += bytes;
        onBytes(bytes);
      };
      try {
        await transferOnce({ file, start: from, end }, { ...options, onBytes: onWritten });
      } catch (thrown) {
        if (!file.ranges) {
          onBytes(range.start - position);
          position = range.start;
        } else if (position - from >= enough) progressed();
        throw thrown;
      }
    },
    { limits, signal },
  );
}

async function transferOnce({ file, start, end }: Range, options: TransferOptions): Promise<void> {
  const { source, part, limits, onBytes } = options;
  const stall = new AbortController();
  const signal = AbortSignal.any([options.signal, stall.signal]);
  let writing = false;
  const timer = setTimeout(() => {
    // A disk that is slow to take the last bytes is not the source's fault.
    if (writing) timer.refresh();
    else stall.abort(failed(source.uri, `nothing came for ${limits.stallTimeoutMs / 1_000} seconds`));
  }, limits.stallTimeoutMs);
  const writer = part.writer(start, onBytes);
  let left = end - start;
  try {
    for await (const chunk of source.readRange(file, { start, end, signal })) {
      signal.throwIfAborted();
      if (chunk.length > left) throw tooLong(source, file);
      left -= chunk.length;
      writing = true;
      await writer.write(chunk);
      writing = false;
      timer.refresh();
    }
    signal.throwIfAborted();
    if (left > 0) throw failed(source.uri, `the connection ended ${left} bytes early`);
  } finally {
    clearTimeout(timer);
    // What came before a break is kept; a failure to write it replaces the break, since a full disk matters more.
    await writer.flush();
  }
}

/** A range that runs over is a server's mistake; a whole file that does has grown. */
function tooLong(source: Source, file: SourceFile): SourceError {
  return file.ranges
    ? unusable(source.uri, `The server sends more bytes of ${file.path} than were asked for.`)
    : replaced(source.uri, file.path);
}
