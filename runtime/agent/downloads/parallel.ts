/** How many at once, until when, and what each one does. */
interface Crew<T> {
  readonly connections: number;
  readonly signal: AbortSignal;
  readonly run: (item: T, signal: AbortSignal) => Promise<void>;
}

/** Runs over all items with a bounded number at once. The first failure stops the others and is thrown. */
export async function inParallel<T>(items: readonly T[], { connections, signal, run }: Crew<T>): Promise<void> {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const queue = items.values();
  const worker = async (): Promise<void> => {
    try {
      for (const item of queue) await run(item, both);
    } catch (thrown) {
      stop.abort(thrown);
      throw thrown;
    }
  };
  const workers = Array.from({ length: Math.min(connections, items.length) }, worker);
  await Promise.allSettled(workers);
  signal.throwIfAborted();
  if (stop.signal.aborted) throw stop.signal.reason;
}
