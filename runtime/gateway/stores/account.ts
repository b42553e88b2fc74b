import { settledMemoryMs, type Charge, type Meter, type Reading, type Reservation, type ReserveAnswer } from "./hot.ts";
import { periodEnd } from "./period.ts";
import { RecentIds } from "./recent-ids.ts";

/** Two clocks: one that never leaps, for windows and leases, and Unix time for the periods of budgets. In ms. */
export interface Clock {
  elapsedMs(): number;
  wallMs(): number;
}

export const systemClock: Clock = { elapsedMs: () => performance.now(), wallMs: () => Date.now() };

interface Bucket {
  used: number;
  atMs: number;
  /** Units that drain in a millisecond. */
  drain: number;
}

interface Spending {
  spent: number;
  periodEndMs: number;
}

interface Open {
  expiresMs: number;
  readonly budgets: readonly { readonly name: string; readonly periodEndMs: number; readonly amount: number }[];
}

/** What of an account outlives its process: levels of its rates in Unix time, and what was settled of its budgets. */
export interface AccountState {
  readonly rates: Readonly<Record<string, { readonly used: number; readonly atMs: number; readonly drain: number }>>;
  readonly budgets: Readonly<Record<string, Spending>>;
}

/** Meters whose level outlives a request. */
type Lasting = Exclude<Meter, { kind: "concurrency" }>;

/**
 * Ids of one account that are remembered for certain. Nobody in this process settles as late as a gateway does on Redis, and
 * what is remembered for long is copied by each collection of garbage.
 */
const maxSettledIds = 500;

/** The meters of one account, in this process. Same rules as the Lua scripts of `hot-scripts.ts`. */
export class Account {
  readonly #clock: Clock;
  readonly #rates = new Map<string, Bucket>();
  readonly #budgets = new Map<string, Spending>();
  readonly #open = new Map<string, Open>();
  readonly #settled = new RecentIds({ turnMs: settledMemoryMs, maxIds: maxSettledIds });
  /** No open reservation expires before. */
  #nextExpiryMs = Infinity;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  reserve({ id, charges }: Reservation, ttlMs: number): ReserveAnswer {
    const nowMs = this.#clock.elapsedMs();
    this.#expire(nowMs);
    if (!this.#open.has(id) && !this.#settled.has(id, nowMs)) {
      const refusal = this.#refusal(charges, nowMs);
      if (refusal !== undefined) return { granted: false, readings: this.#readings(charges, nowMs), ...refusal };
      this.#take({ id, charges }, nowMs, ttlMs);
    }
    return { granted: true, readings: this.#readings(charges, nowMs) };
  }

  settle({ id, charges }: Reservation, amounts: readonly number[]): void {
    const nowMs = this.#clock.elapsedMs();
    this.#expire(nowMs);
    const open = this.#close(id);
    if (!open && this.#settled.has(id, nowMs)) return;
    this.#settled.add(id, nowMs);
    let at = 0;
    for (const { meter, amount } of charges) {
      const used = amounts[at] ?? 0;
      at += 1;
      if (meter.kind === "rate") {
        const difference = open ? used - amount : Math.max(0, used - amount);
        const bucket = this.#bucket(meter, nowMs);
        bucket.used = Math.max(0, bucket.used + difference);
      } else if (meter.kind === "budget") {
        this.#spending(meter).spent += used;
      }
    }
  }

  renew(id: string, ttlMs: number): void {
    const open = this.#open.get(id);
    if (open !== undefined) open.expiresMs = this.#clock.elapsedMs() + ttlMs;
  }

  /** Takes over what another store said of these meters. */
  learn(charges: readonly Charge[], readings: readonly Reading[]): void {
    const nowMs = this.#clock.elapsedMs();
    for (const [at, { meter }] of charges.entries()) {
      const used = meter.limit - (readings[at]?.remaining ?? meter.limit);
      if (meter.kind === "rate") this.#bucket(meter, nowMs).used = used;
      else if (meter.kind === "budget") this.#spending(meter).spent = used;
    }
  }

  /** Whether forgetting the account changes nothing. */
  get isIdle(): boolean {
    const nowMs = this.#clock.elapsedMs();
    this.#expire(nowMs);
    if (this.#open.size > 0 || !this.#settled.isEmpty(nowMs)) return false;
    const wallMs = this.#clock.wallMs();
    return (
      [...this.#rates.values()].every(({ used, atMs, drain }) => used <= (nowMs - atMs) * drain) &&
      [...this.#budgets.values()].every(({ spent, periodEndMs }) => spent <= 0 || periodEndMs <= wallMs)
    );
  }

  /** Reservations that are open die with this process, so their budgets are not in it. */
  save(): AccountState {
    const wallAheadMs = this.#clock.wallMs() - this.#clock.elapsedMs();
    const budgets = Object.fromEntries([...this.#budgets].map(([name, spending]) => [name, { ...spending }]));
    for (const open of this.#open.values()) {
      for (const { name, periodEndMs, amount } of open.budgets) {
        const spending = budgets[name];
        if (spending?.periodEndMs === periodEndMs) spending.spent -= amount;
      }
    }
    const rates = [...this.#rates].map(([name, rate]) => [name, { ...rate, atMs: rate.atMs + wallAheadMs }] as const);
    return { rates: Object.fromEntries(rates), budgets };
  }

  restore(state: AccountState): void {
    const nowMs = this.#clock.elapsedMs();
    const wallAheadMs = this.#clock.wallMs() - nowMs;
    for (const [name, { used, atMs, drain }] of Object.entries(state.rates)) {
      // A system clock that was set back since must not freeze the bucket.
      this.#rates.set(name, { used, atMs: Math.min(nowMs, atMs - wallAheadMs), drain });
    }
    for (const [name, spending] of Object.entries(state.budgets)) this.#budgets.set(name, { ...spending });
  }

  #take({ id, charges }: Pick<Reservation, "id" | "charges">, nowMs: number, ttlMs: number): void {
    const budgets: Open["budgets"][number][] = [];
    for (const { meter, amount } of charges) {
      if (meter.kind === "rate") {
        this.#bucket(meter, nowMs).used += amount;
      } else if (meter.kind === "budget") {
        const spending = this.#spending(meter);
        spending.spent += amount;
        budgets.push({ name: meter.name, periodEndMs: spending.periodEndMs, amount });
      }
    }
    const expiresMs = nowMs + ttlMs;
    this.#open.set(id, { expiresMs, budgets });
    this.#nextExpiryMs = Math.min(this.#nextExpiryMs, expiresMs);
  }

  #refusal(
    charges: readonly Charge[],
    nowMs: number,
  ): { readonly refusedBy: number; readonly retryAfterMs: number | null } | undefined {
    let refusedBy = -1;
    let longestMs = -1;
    let at = 0;
    for (const charge of charges) {
      const waitMs = this.#waitMs(charge, nowMs);
      if (waitMs !== undefined && waitMs > longestMs) {
        refusedBy = at;
        longestMs = waitMs;
      }
      at += 1;
    }
    if (refusedBy < 0) return undefined;
    return { refusedBy, retryAfterMs: longestMs === Infinity ? null : Math.ceil(longestMs) };
  }

  /** Until the charge fits; undefined when it does now. */
  #waitMs({ meter, amount }: Charge, nowMs: number): number | undefined {
    if (meter.kind === "concurrency") return this.#open.size < meter.limit ? undefined : 0;
    const over = this.#used(meter, nowMs) + amount - meter.limit;
    if (over <= rounding) return undefined;
    return amount > meter.limit ? Infinity : this.#untilRoomMs(meter, over);
  }

  #readings(charges: readonly Charge[], nowMs: number): Reading[] {
    return charges.map(({ meter }) => {
      if (meter.kind === "concurrency") return reading(meter.limit, this.#open.size, 0);
      const used = this.#used(meter, nowMs);
      return reading(meter.limit, used, this.#untilRoomMs(meter, used));
    });
  }

  #used(meter: Lasting, nowMs: number): number {
    return meter.kind === "rate" ? this.#bucket(meter, nowMs).used : this.#spending(meter).spent;
  }

  /** Until `amount` of what is used of a meter is free again. */
  #untilRoomMs(meter: Lasting, amount: number): number {
    if (meter.kind === "rate") return (amount * meter.windowMs) / meter.limit;
    return this.#spending(meter).periodEndMs - this.#clock.wallMs();
  }

  #bucket({ name, limit, windowMs }: { name: string; limit: number; windowMs: number }, nowMs: number): Bucket {
    const drain = limit / windowMs;
    const bucket = this.#rates.get(name);
    if (bucket === undefined) {
      const fresh = { used: 0, atMs: nowMs, drain };
      this.#rates.set(name, fresh);
      return fresh;
    }
    bucket.used = Math.max(0, bucket.used - (nowMs - bucket.atMs) * drain);
    bucket.atMs = nowMs;
    bucket.drain = drain;
    return bucket;
  }

  #spending({ name, period }: { name: string; period: Parameters<typeof periodEnd>[0] }): Spending {
    const wallMs = this.#clock.wallMs();
    const known = this.#budgets.get(name);
    if (known !== undefined && wallMs < known.periodEndMs) return known;
    const fresh = { spent: 0, periodEndMs: periodEnd(period, wallMs) };
    this.#budgets.set(name, fresh);
    return fresh;
  }

  #expire(nowMs: number): void {
    if (nowMs < this.#nextExpiryMs) return;
    this.#nextExpiryMs = Infinity;
    for (const [id, open] of this.#open) {
      if (open.expiresMs > nowMs) {
        this.#nextExpiryMs = Math.min(this.#nextExpiryMs, open.expiresMs);
        continue;
      }
      this.#close(id);
    }
  }

  /** Ends an open reservation and gives its budgets back; false when there is none. */
  #close(id: string): boolean {
    const open = this.#open.get(id);
    if (open === undefined) return false;
    this.#open.delete(id);
    for (const { name, periodEndMs, amount } of open.budgets) {
      const spending = this.#budgets.get(name);
      if (spending?.periodEndMs === periodEndMs) spending.spent -= amount;
    }
    return true;
  }
}

/** What sums of fractions that drained may be off by, in units of a meter. */
const rounding = 1e-6;

function reading(limit: number, used: number, resetMs: number): Reading {
  return { limit, remaining: Math.floor(limit - used + rounding), resetMs: Math.max(0, Math.ceil(resetMs)) };
}
