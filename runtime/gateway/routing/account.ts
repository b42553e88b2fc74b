import { hashName } from "./prefix-hash.ts";
import type { ReplicaState } from "./policy.ts";
import { prefillWork } from "./prefill-work.ts";
import { RateMeter } from "./rates.ts";

/** What a request means for the replica that it is routed to. */
export interface Work {
  /** Prompt tokens that the replica does not hold. */
  readonly uncachedTokens: number;
  readonly promptTokens: number;
}

/** What a heartbeat says of a replica. Null: no such signal. */
export interface MeasuredLoad {
  readonly waiting: number | null;
  readonly running: number | null;
  readonly kvUsage: number | null;
}

/** One routed request; every call after `end` does nothing. */
export interface Ticket {
  /** Its first byte came. */
  firstByte(nowMs: number): void;
  /** It is over, well or not. */
  end(nowMs: number): void;
}

/** How much of the head of the queue is taken as done, at most, before its first byte shows it. */
const mostOfHead = 0.95;
/** Until an engine has said otherwise: an 8B model on 80 GB. */
export const defaultKvTokens = 400_000;
/** Until an agent has measured one: a file of some hundred MB from a blob store, and a probe. */
export const defaultAdapterLoadMs = 1_000;

/** This gateway's books of one replica. Sums return to zero when all tickets have ended. */
export class ReplicaAccount implements ReplicaState {
  readonly id: string;
  readonly hash: number;
  kvTokens: number;
  /** What an adapter takes that is not loaded. */
  adapterLoadMs = defaultAdapterLoadMs;
  readonly rates: RateMeter;
  ready = true;
  adapters: ReadonlySet<string> = new Set();
  cacheFill = 0;
  measuredWaiting: number | null = null;
  measuredRunning: number | null = null;
  kvUsage: number | null = null;
  foreignWaiting = 0;
  ageMs = 0;
  inFlight = 0;
  contextTokens = 0;
  prefillTokensPerMs: number;
  /** Waiting for their first byte, in the order in which the engine takes them. */
  readonly #queue = new Set<OpenTicket>();
  #queuedWork = 0;
  #head: OpenTicket | undefined;
  /** Since when the engine works on the head of the queue, as far as one can see from here. */
  #headSinceMs = 0;
  #measuredAtMs = 0;
  #nowMs = 0;

  constructor(id: string, options: { readonly kvTokens?: number; readonly fleet?: RateMeter } = {}) {
    this.id = id;
    this.hash = hashName(id);
    this.kvTokens = options.kvTokens ?? defaultKvTokens;
    this.rates = new RateMeter(options.fleet);
    this.prefillTokensPerMs = this.rates.prefillTokensPerMs;
  }

  get prefilling(): number {
    return this.#queue.size;
  }

  /** Without what the engine must have done of the head of the queue since it began on it. */
  get pendingTokens(): number {
    if (this.#head === undefined) return 0;
    const done = Math.max(0, this.#nowMs - this.#headSinceMs) * this.prefillTokensPerMs;
    return this.#queuedWork - Math.min(done, this.#head.prefillWork * mostOfHead);
  }

  get baseMs(): number {
    return this.rates.baseMs;
  }

  get answerMs(): number {
    return this.rates.answerMs;
  }

  /** Moves the account's clock before a choice: ages what it knows, and takes the rate that was learned since. */
  at(nowMs: number): void {
    this.prefillTokensPerMs = this.rates.prefillTokensPerMs;
    this.#nowMs = nowMs;
    this.ageMs = nowMs - this.#measuredAtMs;
  }

  /** A heartbeat came. What it counts beyond this gateway's own requests belongs to others. */
  measured({ waiting, running, kvUsage }: MeasuredLoad, nowMs: number): void {
    this.measuredWaiting = waiting;
    this.measuredRunning = running;
    this.kvUsage = kvUsage;
    this.foreignWaiting = Math.max(0, (waiting ?? 0) - this.prefilling);
    this.#measuredAtMs = nowMs;
  }

  begin(work: Work, nowMs: number): Ticket {
    const ticket = new OpenTicket(this, work, nowMs);
    this.#queue.add(ticket);
    if (this.#head === undefined) this.#lead(nowMs);
    this.#queuedWork += ticket.prefillWork;
    this.inFlight += 1;
    this.contextTokens += work.promptTokens;
    return ticket;
  }

  /** Takes a ticket out of the queue: `prefilled`, or given up. */
  leaveQueue(ticket: OpenTicket, nowMs: number, prefilled: boolean): void {
    if (!this.#queue.delete(ticket)) return;
    this.#queuedWork -= ticket.prefillWork;
    if (prefilled) {
      const alone = ticket.beginMs >= this.#headSinceMs;
      const sinceMs = Math.max(ticket.beginMs, this.#headSinceMs);
      this.rates.prefilled({ ...ticket.work, elapsedMs: nowMs - sinceMs, alone });
    }
    if (prefilled || ticket === this.#head) this.#lead(nowMs);
  }

  /** The engine begins on the next in the queue. */
  #lead(nowMs: number): void {
    [this.#head] = this.#queue;
    this.#headSinceMs = nowMs;
  }
}

/** A ticket of an account. */
class OpenTicket implements Ticket {
  readonly work: Work;
  readonly prefillWork: number;
  readonly beginMs: number;
  readonly #account: ReplicaAccount;
  #firstByteMs: number | null = null;
  #ended = false;

  constructor(account: ReplicaAccount, work: Work, nowMs: number) {
    this.#account = account;
    this.work = work;
    this.prefillWork = prefillWork(work.uncachedTokens, work.promptTokens - work.uncachedTokens);
    this.beginMs = nowMs;
  }

  firstByte(nowMs: number): void {
    if (this.#ended || this.#firstByteMs !== null) return;
    this.#firstByteMs = nowMs;
    this.#account.leaveQueue(this, nowMs, true);
  }

  end(nowMs: number): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#account.inFlight -= 1;
    this.#account.contextTokens -= this.work.promptTokens;
    if (this.#firstByteMs === null) this.#account.leaveQueue(this, nowMs, false);
    else this.#account.rates.answered(nowMs - this.#firstByteMs);
  }
}
