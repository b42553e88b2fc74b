import type { Width } from "./width.ts";

/** How many at once, until when, and what each one does. */
interface Crew<T> {
  readonly width: Width;
  readonly signal: AbortSignal;
  readonly run: (item: T, signal: AbortSignal) => Promise<void>;
}

/** Runs over all items, in order, as many at once as `width` says. The first failure stops the others and is thrown. */
export async function inParallel<T>(items: readonly T[], { width, signal, run }: Crew<T>): Promise<void> {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const queue = items.values();
  const running = new Set<Promise<void>>();
  const fill = (): void => {
    while (!both.aborted && running.size < width.limit) {
      const { value, done } = queue.next();
      if (done === true) return;
      const one = run(value, both)
        .catch((thrown: unknown) => stop.abort(thrown))
        .finally(() => {
          running.delete(one);
          fill();
        });
      running.add(one);
    }
  };
  width.onGrow(fill);
  fill();
  while (running.size > 0) await Promise.race(running);
  signal.throwIfAborted();
  if (stop.signal.aborted) throw stop.signal.reason;
}
