import { PenstockError } from "../../contracts/errors.ts";
import { diskFull, freeBytes, isOutOfSpace } from "../downloads/space.ts";

/** Why a model cannot fit. */
export interface Shortage {
  /** Bytes of the model. */
  readonly bytes: number;
  /** Null when it is the disk that is too small. */
  readonly budgetBytes: number | null;
  readonly freeBytes: number;
  readonly reserveFreeBytes: number;
  readonly pinnedBytes: number;
  /** Of entries that are not pinned. */
  readonly inUseBytes: number;
  /** Claimed by other fetches under way. */
  readonly fetchingBytes: number;
}

/** The error for a model that does not fit even when everything that may go has gone; its message has the arithmetic. */
export function cacheFull(shortage: Shortage): PenstockError {
  const { bytes, budgetBytes, reserveFreeBytes, pinnedBytes, inUseBytes, fetchingBytes } = shortage;
  const limit =
    budgetBytes === null
      ? `the cache's disk has ${size(shortage.freeBytes)} free, of which ${size(reserveFreeBytes)} stay free`
      : `the cache's budget is ${size(budgetBytes)}`;
  return new PenstockError(
    "cache_full",
    `The model needs ${size(bytes)} and ${limit}; ${size(pinnedBytes)} are pinned, ${size(inUseBytes)} in use and ` +
      `${size(fetchingBytes)} being fetched. Unpin or unload models, or give the cache a larger ` +
      `${budgetBytes === null ? "disk" : "budget"}.`,
  );
}

/** Does something that writes below `root`; a disk that is full then is `disk_full`. */
export async function orDiskFull<T>(root: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    if (!isOutOfSpace(thrown)) throw thrown;
    throw diskFull({ free: await freeBytes(root), cause: thrown });
  }
}

function size(bytes: number): string {
  return `${bytes} bytes (${(bytes / 2 ** 30).toFixed(2)} GiB)`;
}
