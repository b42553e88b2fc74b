import { toPenstockError } from "../../contracts/errors.ts";
import type { DownloadProgress } from "../downloads/progress.ts";
import type { CachedSpec } from "./key.ts";

/** How a prefetch is run. */
export interface PrefetchOptions<Spec extends CachedSpec = CachedSpec> {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((spec: Spec, progress: DownloadProgress) => void) | undefined;
  /** Fetches under way at once; default 1. */
  readonly concurrency?: number | undefined;
}

/** What became of one model. `cached`: it was there already. */
export type PrefetchResult<Spec extends CachedSpec = CachedSpec> =
  | { readonly spec: Spec; readonly outcome: "cached" | "fetched" }
  | { readonly spec: Spec; readonly outcome: "skipped"; readonly reason: string };

/** Obtains one model in the background. */
export type BackgroundFetch<Spec> = (spec: Spec, signal: AbortSignal) => Promise<"cached" | "fetched">;

/**
 * Obtains models in order and answers what became of each, in the same order; never throws. A model that cannot be had is
 * skipped; the first that does not fit ends it, and so does the signal.
 */
export async function prefetchAll<Spec extends CachedSpec>(
  specs: readonly Spec[],
  fetch: BackgroundFetch<Spec>,
  { signal = new AbortController().signal, concurrency = 1 }: PrefetchOptions<Spec>,
): Promise<PrefetchResult<Spec>[]> {
  const results: PrefetchResult<Spec>[] = [];
  const queue = specs.entries();
  let stopped: string | undefined;
  const one = async (spec: Spec): Promise<PrefetchResult<Spec>> => {
    if (stopped !== undefined) return { spec, outcome: "skipped", reason: stopped };
    if (signal.aborted) return { spec, outcome: "skipped", reason: "The prefetch was stopped." };
    try {
      return { spec, outcome: await fetch(spec, signal) };
    } catch (thrown) {
      if (signal.aborted) return { spec, outcome: "skipped", reason: "The prefetch was stopped." };
      const { code, message } = toPenstockError(thrown);
      if (code === "cache_full" || code === "disk_full") stopped = message;
      return { spec, outcome: "skipped", reason: message };
    }
  };
  const worker = async (): Promise<void> => {
    for (const [index, spec] of queue) results[index] = await one(spec);
  };
  await Promise.all(Array.from({ length: Math.max(1, concurrency) }, worker));
  return results;
}
