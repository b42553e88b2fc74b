import { randomUUID } from "node:crypto";
import type { Principal } from "../../contracts/tenant.ts";
import type { Meters, Reading, Reservation } from "../stores/hot.ts";
import { amountsOf, chargesOf, worstCase, type Estimate, type TokenUsage } from "./charges.ts";
import { FairQueue, type QueueLimits } from "./fair-queue.ts";
import { rateLimitHeaders } from "./headers.ts";
import { clientClosed, refusal } from "./refusal.ts";

/** What admission is made of. */
export interface AdmissionOptions {
  readonly meters: Meters;
  /** How many requests of a model may run at once; `Infinity` for no bound. */
  readonly capacity: (model: string) => number;
  readonly queue: QueueLimits;
  /** Tokens that an answer without a bound of its own is taken to have. */
  readonly defaultMaxTokens: number;
  /** What a gateway that died holds is given back after so long. */
  readonly reservationTtlMs?: number;
  /** A settlement or renewal that failed: the reservation then expires. */
  readonly onError: (error: unknown) => void;
}

/** A request that may run. Exactly one of `settle` and dispose counts; the other does nothing then. */
export interface Admitted extends Disposable {
  /** `x-ratelimit-*` for the answer. */
  readonly headers: Readonly<Record<string, string>>;
  /** Gives the place back and charges what was used. Resolves when the store knows; never rejects. */
  settle(usage: TokenUsage): Promise<void>;
  /** Gives the place and everything that was reserved back. */
  [Symbol.dispose](): void;
}

const defaultReservationTtlMs = 30_000;

/** How much of the measured duration the latest request is. */
const newest = 0.1;
const firstSlotMs = 5_000;

/** A request that was admitted and has not ended. */
interface Running {
  readonly estimate: Estimate;
  /** Undefined for a tenant without limits. */
  readonly reservation: Reservation | undefined;
  readonly place: Disposable;
  readonly startedMs: number;
}

/** Decides when a request may run: by its tenant's limits first, then by its turn among all that wait for its model. */
export class Admission implements AsyncDisposable {
  readonly queue: FairQueue;
  readonly #options: AdmissionOptions;
  readonly #ttlMs: number;
  readonly #idPrefix = randomUUID();
  #nextId = 0;
  readonly #open = new Set<Reservation>();
  readonly #settling = new Set<Promise<void>>();
  /** How long the requests of tenants with a concurrency limit take. */
  readonly #slotMs = new Map<string, number>();
  readonly #renewal: NodeJS.Timeout;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    this.queue = new FairQueue(options.capacity, options.queue);
    this.#ttlMs = options.reservationTtlMs ?? defaultReservationTtlMs;
    this.#renewal = setInterval(() => this.#renew(), this.#ttlMs / 3).unref();
  }

  /** Requests that hold something of their tenant's limits. */
  get open(): number {
    return this.#open.size;
  }

  /**
   * Reserves the worst case, then waits for a place. Throws `rate_limited` and `budget_exceeded` (a `LimitError` with
   * the headers), `queue_full`, `overloaded`, and `client_closed` when `signal` is aborted meanwhile.
   */
  async admit(principal: Principal, estimate: Estimate, signal: AbortSignal): Promise<Admitted> {
    if (signal.aborted) throw clientClosed();
    const startedMs = performance.now();
    const { tenant } = principal;
    const worst = worstCase(tenant, estimate, this.#options.defaultMaxTokens);
    const charges = chargesOf(tenant, worst, estimate.price);
    const { model, bytes, deadlineMs } = estimate;
    const cost = Math.max(1, worst.promptTokens + worst.completionTokens);
    const request = { model, tenant, bytes, cost, signal, ...(deadlineMs === undefined ? {} : { deadlineMs }) };
    this.queue.check(request);
    let reservation: Reservation | undefined;
    let readings: readonly Reading[] = [];
    if (charges.length > 0) {
      this.#nextId += 1;
      reservation = { account: tenant.id, id: `${this.#idPrefix}:${this.#nextId}`, charges };
      const answer = await this.#options.meters.reserve(reservation, this.#ttlMs);
      if (!answer.granted) throw refusal(charges, answer, this.#slotMs.get(tenant.id) ?? firstSlotMs);
      ({ readings } = answer);
      this.#open.add(reservation);
    }
    try {
      if (signal.aborted) throw clientClosed();
      const place = await this.queue.enter(request);
      const running = { estimate, reservation, place, startedMs };
      return this.#admitted(running, rateLimitHeaders(charges, readings));
    } catch (error) {
      if (reservation !== undefined) void this.#settle(reservation, []);
      throw error;
    }
  }

  /** Waits until the stores know what ended requests used. Requests that still run are for their reservations' expiry. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#renewal);
    await Promise.all(this.#settling);
  }

  #admitted(running: Running, headers: Readonly<Record<string, string>>): Admitted {
    let ended = false;
    const end = async (usage: TokenUsage | undefined): Promise<void> => {
      if (ended) return;
      ended = true;
      await this.#end(running, usage);
    };
    return { headers, settle: end, [Symbol.dispose]: () => void end(undefined) };
  }

  async #end({ estimate, reservation, place, startedMs }: Running, usage: TokenUsage | undefined): Promise<void> {
    place[Symbol.dispose]();
    if (reservation === undefined) return;
    const { account, charges } = reservation;
    if (charges.some(({ meter }) => meter.kind === "concurrency")) {
      const known = this.#slotMs.get(account);
      const tookMs = performance.now() - startedMs;
      this.#slotMs.set(account, known === undefined ? tookMs : known + newest * (tookMs - known));
    }
    await this.#settle(reservation, usage === undefined ? [] : amountsOf(charges, usage, estimate.price));
  }

  #settle(reservation: Reservation, used: readonly number[]): Promise<void> {
    this.#open.delete(reservation);
    const settling = this.#options.meters
      .settle(reservation, used)
      .catch(this.#options.onError)
      .finally(() => this.#settling.delete(settling));
    this.#settling.add(settling);
    return settling;
  }

  #renew(): void {
    if (this.#open.size === 0) return;
    this.#options.meters.renew([...this.#open], this.#ttlMs).catch(this.#options.onError);
  }
}
