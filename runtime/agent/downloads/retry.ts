import { setTimeout as sleep } from "node:timers/promises";
import { SourceError } from "../sources/errors.ts";

/** How often, and how patiently, something is tried again. */
export interface RetryLimits {
  /** Tries in a row that bring nothing. */
  readonly attempts: number;
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
}

/**
 * Runs `attempt` until it succeeds. A failure that waiting may cure is tried again after a jittered, growing pause, at
 * least as long as the server asked for (within reason). An attempt that fails but brought something calls `progressed`
 * first: then the count starts again.
 */
export async function withRetry<T>(
  attempt: (progressed: () => void) => Promise<T>,
  { limits, signal }: { limits: RetryLimits; signal: AbortSignal },
): Promise<T> {
  let failures = 0;
  for (;;) {
    signal.throwIfAborted();
    try {
      return await attempt(() => (failures = 0));
    } catch (thrown) {
      signal.throwIfAborted();
      failures += 1;
      if (!(thrown instanceof SourceError) || thrown.retry !== "range" || failures >= limits.attempts) throw thrown;
      await pause(failures, { limits, signal, atLeastMs: (thrown.retryAfterSeconds ?? 0) * 1_000 });
    }
  }
}

async function pause(
  failures: number,
  { limits, signal, atLeastMs }: { limits: RetryLimits; signal: AbortSignal; atLeastMs: number },
): Promise<void> {
  const longest = Math.min(limits.retryMaxMs, limits.retryBaseMs * 2 ** (failures - 1));
  // Full jitter, so that ranges that failed together do not come back together.
  const waitMs = Math.max(Math.random() * longest, Math.min(atLeastMs, 6 * limits.retryMaxMs));
  try {
    await sleep(waitMs, undefined, { signal });
  } catch (thrown) {
    // The timer throws an AbortError of its own; callers want their reason.
    throw signal.aborted ? signal.reason : thrown;
  }
}
