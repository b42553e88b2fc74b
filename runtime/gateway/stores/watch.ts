import type { Versions } from "./hot.ts";

/** What is watched. */
export interface WatchOptions {
  readonly key: string;
  /** How late a change may be noticed. */
  readonly intervalMs: number;
  /** Called for the version that is there at first, and for each that is another than the last. */
  readonly onChange: (version: number) => Promise<void>;
  /** The store could not be asked, or `onChange` rejected: it is called again for the same version. */
  readonly onError: (error: unknown) => void;
}

/** Looks at a version until it is disposed. Asking again and again misses nothing, unlike a message that is sent once. */
export function watchVersion(store: Versions, options: WatchOptions): Disposable {
  let known: number | undefined;
  let looking = false;
  const look = async (): Promise<void> => {
    if (looking) return;
    looking = true;
    try {
      const version = await store.version(options.key);
      if (version !== known) await options.onChange(version);
      known = version;
    } catch (error) {
      options.onError(error);
    } finally {
      looking = false;
    }
  };
  const timer = setInterval(() => void look(), options.intervalMs).unref();
  void look();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
