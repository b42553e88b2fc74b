import type { DrainResult } from "../../contracts/agent.ts";
import type { Logger } from "../../lib/log.ts";
import type { ReclaimNotice, ReclaimNotices } from "./notices.ts";

/** What is kept of the notice for stopping engines and telling the cloud. */
const lastSecondsMs = 5_000;

/** Who drains. */
export interface Drainable {
  drain(reason: string, deadlineMs: number): Promise<DrainResult>;
}

/** Drains when the cloud takes the machine back, and tells the cloud once that is done. Resolves when `signal` aborts. */
export async function drainOnReclaim(
  notices: ReclaimNotices,
  { node, log, signal }: { node: Drainable; log: Logger; signal: AbortSignal },
): Promise<void> {
  const act = async (notice: ReclaimNotice): Promise<void> => {
    log.warn({ cloud: notice.cloud, kind: notice.kind, deadline: notice.deadline, detail: notice.detail }, "notice");
    if (notice.kind !== "reclaim") return;
    const deadline = notice.deadline.toISOString();
    const leftMs = Math.max(0, notice.deadline.getTime() - Date.now() - lastSecondsMs);
    const { status, running } = await node.drain(`The cloud takes this machine back at ${deadline}.`, leftMs);
    log.warn({ status, running }, "drained for the cloud");
    await notice.acknowledge();
  };
  await notices.watch((notice) => void act(notice), signal);
}
