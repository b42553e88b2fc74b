import { setFlagsFromString } from "node:v8";

/** Up to four times what is in use: the most that V8 chooses by itself (`kMaxGrowingFactor` in its memory controller). */
const growingPercent = 300;

/**
 * Has V8 count buffers beside its heap by the same growing measure as the heap itself. By default it collects everything
 * each time that 64 MB of buffers have come and gone, which is twice a second with long prompts, and a collection holds up
 * every request for tens of milliseconds (`npm run bench:gateway -- --only large`). Its bounds for a container's memory
 * hold as before.
 * V8 that has no such option says so on stderr, and goes on.
 */
export function tuneHeap(): void {
  setFlagsFromString("--external-memory-accounted-in-global-limit");
  setFlagsFromString(`--heap-growing-percent=${growingPercent}`);
}
