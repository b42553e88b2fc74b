import type { Logger } from "../../lib/log.ts";

/** A cloud says that it may take this machine back. */
export type ReclaimNotice = Takeback | Recommendation;

interface Common {
  readonly cloud: "aws" | "azure";
  /** What the cloud said, for the log. */
  readonly detail: string;
  /**
   * Tells the cloud that the machine is drained, so that it need not wait for the deadline. Only after the drain: it
   * speeds the event up. Sent once, however often it is asked for; never throws; does nothing where a cloud has no such
   * thing or the event is about other machines too.
   */
  acknowledge(): Promise<void>;
}

/** The machine goes away. */
interface Takeback extends Common {
  readonly kind: "reclaim";
  /** When it may go at the earliest; in the past when it already goes. */
  readonly deadline: Date;
}

/** The machine is likelier to be taken than others. A notice of its own comes if it is. */
interface Recommendation extends Common {
  readonly kind: "rebalance";
  readonly deadline: null;
}

/** Where notices come from. */
export interface ReclaimNotices {
  /**
   * Delivers each notice once until `signal` aborts; resolves then. A cloud that does not answer is asked again.
   * `onNotice` must not throw.
   */
  watch(onNotice: (notice: ReclaimNotice) => void, signal: AbortSignal): Promise<void>;
}

/** How a cloud's notices are read. Every field has a default that suits the real cloud. */
export interface ReclaimOptions {
  readonly log: Logger;
  /** Origin of the instance metadata service. */
  readonly metadataUrl?: string;
  /** Between two looks. AWS asks for at most 5 s, Azure for 1 s where every second counts; its shortest notice is 30 s. */
  readonly intervalMs?: number;
  /** How long one answer may take. */
  readonly timeoutMs?: number;
  /** Azure: whether a reboot or a move to another host counts as well. Such notices may come days ahead. */
  readonly maintenance?: boolean;
}

/** A cloud that can tell whether this machine is one of its own. */
export interface CloudNotices extends ReclaimNotices {
  answers(signal: AbortSignal): Promise<boolean>;
}

/** The link-local address that AWS and Azure share. */
export const metadataUrl = "http://169.254.169.254";
