import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../../lib/log.ts";
import type { ReclaimNotice } from "./notices.ts";

/** How something is looked at again and again. */
export interface PollOptions {
  readonly intervalMs: number;
  readonly signal: AbortSignal;
  /** Says of which cloud the lines are. */
  readonly log: Logger;
}

/**
 * Looks again and again until the signal aborts. A look answers what was wrong with what it saw, or null. A problem is
 * logged when it appears and when it is over, not at every look.
 */
export async function poll(
  look: () => Promise<string | null>,
  { intervalMs, signal, log }: PollOptions,
): Promise<void> {
  let before: string | null = null;
  while (!signal.aborted) {
    const problem = await look().catch((thrown: unknown) => {
      log.debug({ err: thrown }, "no answer from the instance metadata service");
      return noAnswer;
    });
    if (problem !== before && !signal.aborted) {
      if (problem === null) log.info("reclaim notices can be read again");
      else log.warn({ problem }, "reclaim notices cannot be read");
      before = problem;
    }
    await delay(intervalMs, undefined, { signal, ref: false }).catch(() => undefined);
  }
}

const noAnswer =
  "The instance metadata service does not answer. In a container it may be out of reach: give the agent the host's " +
  "network, or raise the hop limit of the instance's metadata options to 2.";

/** Notices that are remembered as delivered. A machine gets one or two in its life. */
const remembered = 100;

/** Delivers a notice unless one of the same key was delivered before. */
export function deliverOnce(onNotice: (notice: ReclaimNotice) => void): (key: string, notice: ReclaimNotice) => void {
  const delivered = new Set<string>();
  return (key, notice) => {
    if (delivered.has(key)) return;
    for (const oldest of delivered) if (delivered.size >= remembered) delivered.delete(oldest);
    delivered.add(key);
    onNotice(notice);
  };
}
