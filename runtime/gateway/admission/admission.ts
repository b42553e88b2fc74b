import { randomBytes } from "node:crypto";
import type { Principal } from "../../contracts/tenant.ts";
import type { Leaving } from "../../lib/leaving.ts";
import type { Meters, Reading, Reservation } from "../stores/hot.ts";
import { amountsOf, chargesOf, worstCase, type Estimate, type TokenUsage } from "./charges.ts";
import { FairQueue, type PlaceRequest, type QueueLimits } from "./fair-queue.ts";
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
  /** Waits for a place, for a request that took none. Throws what `admit` throws of the queue. */
  takePlace(): Promise<void>;
  /** Gives the place back and charges what was used. Resolves when the store knows, or it does already; never rejects. */
  settle(usage: TokenUsage): Promise<void> | undefined;
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
  /** Null: it has none. */
  place: Disposable | null;
  readonly startedMs: number;
  readonly request: PlaceRequest;
  readonly headers: Admitted["headers"];
}

/** Decides when a request may run: by its tenant's limits first, then by its turn among all that wait for its model. */
export class Admission implements AsyncDisposable {
  readonly queue: FairQueue;
  readonly #options: AdmissionOptions;
  readonly #ttlMs: number;
  readonly #idPrefix = randomBytes(12).toString("base64url");
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
   * the headers), `queue_full`, `overloaded`, and `client_closed` when `client` leaves meanwhile.
   */
  async admit(principal: Principal, estimate: Estimate, client: Leaving): Promise<Admitted> {
    if (client.aborted) throw clientClosed();
    const startedMs = performance.now();
    const { tenant } = principal;
    const worst = worstCase(tenant, estimate, this.#options.defaultMaxTokens);
    const charges = chargesOf(tenant, worst, estimate.price);
    const { model, bytes, deadlineMs, takesPlace = true } = estimate;
    const cost = Math.max(1, worst.promptTokens + worst.completionTokens);
    const request = { model, tenant, bytes, cost, client, deadlineMs };
    if (takesPlace) this.queue.check(request);
    let reservation: Reservation | undefined;
    let readings: readonly Reading[] = [];
    if (charges.length > 0) {
      this.#nextId += 1;
      reservation = { account: tenant.id, id: `${this.#idPrefix}:${this.#nextId}`, charges };
      const asked = this.#options.meters.reserve(reservation, this.#ttlMs);
      const answer = asked instanceof Promise ? await asked : asked;
      if (!answer.granted) throw refusal(charges, answer, this.#slotMs.get(tenant.id) ?? firstSlotMs);
      ({ readings } = answer);
      this.#open.add(reservation);
    }
    try {
      if (client.aborted) throw clientClosed();
      const entering = takesPlace ? this.queue.enter(request) : null;
      const place = entering instanceof Promise ? await entering : entering;
      const headers = rateLimitHeaders(charges, readings);
      return new Entry(this, { estimate, reservation, place, startedMs, request, headers });
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

  /** Of the entries that it made: gives back what one holds, and charges what was used. */
  end({ estimate, reservation, place, startedMs }: Running, usage: TokenUsage | undefined): Promise<void> | undefined {
    place?.[Symbol.dispose]();
    if (reservation === undefined) return undefined;
    const { account, charges } = reservation;
    if (charges.some(({ meter }) => meter.kind === "concurrency")) {
      const known = this.#slotMs.get(account);
      const tookMs = performance.now() - startedMs;
      this.#slotMs.set(account, known === undefined ? tookMs : known + newest * (tookMs - known));
    }
    return this.#settle(reservation, usage === undefined ? [] : amountsOf(charges, usage, estimate.price));
  }

  #settle(reservation: Reservation, used: readonly number[]): Promise<void> | undefined {
    this.#open.delete(reservation);
    const settled = this.#told(reservation, used);
    if (settled === undefined) return undefined;
    const settling = settled.catch(this.#options.onError).finally(() => this.#settling.delete(settling));
    this.#settling.add(settling);
    return settling;
  }

  #told(reservation: Reservation, used: readonly number[]): Promise<void> | undefined {
    try {
      return this.#options.meters.settle(reservation, used);
    } catch (error) {
      this.#options.onError(error);
      return undefined;
    }
  }

  #renew(): void {
    if (this.#open.size === 0) return;
    this.#options.meters.renew([...this.#open], this.#ttlMs).catch(this.#options.onError);
  }
}

class Entry implements Admitted {
  readonly #owner: Admission;
  readonly #running: Running;
  #ended = false;

  constructor(owner: Admission, running: Running) {
    this.#owner = owner;
    this.#running = running;
  }

  get headers(): Admitted["headers"] {
    return this.#running.headers;
  }

  async takePlace(): Promise<void> {
    this.#running.place ??= await this.#owner.queue.enter(this.#running.request);
  }

  settle(usage: TokenUsage | undefined): Promise<void> | undefined {
    if (this.#ended) return undefined;
    this.#ended = true;
    return this.#owner.end(this.#running, usage);
  }

  [Symbol.dispose](): void {
    void this.settle(undefined);
  }
}
