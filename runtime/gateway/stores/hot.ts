import type { BudgetPeriod } from "./period.ts";

/**
 * What is counted against a limit. `rate` is a bucket that holds `limit` and drains evenly within `windowMs`; `budget`
 * starts anew with each UTC day or month; `concurrency` counts the reservations of the account that are open.
 */
export type Meter =
  | { readonly kind: "rate"; readonly name: string; readonly limit: number; readonly windowMs: number }
  | { readonly kind: "budget"; readonly name: string; readonly limit: number; readonly period: BudgetPeriod }
  | { readonly kind: "concurrency"; readonly name: string; readonly limit: number };

/** An amount, a whole number, on one meter. The amount on a `concurrency` meter is always 1. */
export interface Charge {
  readonly meter: Meter;
  readonly amount: number;
}

/** What one request takes from the meters of one account. Meters are told apart by their names within the account. */
export interface Reservation {
  readonly account: string;
  /** Chosen by the caller, never used twice. */
  readonly id: string;
  readonly charges: readonly Charge[];
}

/** A meter as it stands. `remaining` is below 0 when settlements went above what was reserved. */
export interface Reading {
  readonly limit: number;
  readonly remaining: number;
  /** Until the meter is back at its limit, or its period is over; 0 for `concurrency`, which nobody can know. */
  readonly resetMs: number;
}

/** All charges were taken, or none. Readings come in the order of the charges. */
export type ReserveAnswer =
  | { readonly granted: true; readonly readings: readonly Reading[] }
  | {
      readonly granted: false;
      readonly readings: readonly Reading[];
      /** The charge that has to wait the longest, by its index. */
      readonly refusedBy: number;
      /** When there is room again; 0 for `concurrency`, which nobody can know; null when the limit is too low ever to. */
      readonly retryAfterMs: number | null;
    };

/**
 * Limits that hold whatever the number of gateways. All times are of the store's own clock. A store in this process answers
 * at once, without a promise: a request passes here twice.
 */
export interface Meters {
  /**
   * Takes every charge or none. With an id that is open or settled already it changes nothing and grants. A
   * reservation that is neither settled nor renewed within `ttlMs` expires: its slot and its budgets are given back.
   */
  reserve(reservation: Reservation, ttlMs: number): ReserveAnswer | Promise<ReserveAnswer>;
  /**
   * Closes a reservation with what was really used, one amount for each charge; all zeros give everything back. The
   * second time it does nothing. Of one that is not open any more, budgets are charged in full and rates with what is
   * above the reservation. Undefined: it is done already.
   */
  settle(reservation: Reservation, amounts: readonly number[]): Promise<void> | undefined;
  /** Keeps open reservations for another `ttlMs`. */
  renew(reservations: readonly Pick<Reservation, "account" | "id">[], ttlMs: number): Promise<void>;
}

/** Who has a lease, and for how long. */
export interface LeaseAnswer {
  readonly held: boolean;
  readonly holder: string;
  readonly expiresMs: number;
}

/** Locks that end by themselves when their holder dies: one load per model, however many gateways. */
export interface Leases {
  /** Takes the lease, or renews it for the same holder. */
  acquire(key: string, holder: string, ttlMs: number): Promise<LeaseAnswer>;
  /** Gives it back, if `holder` still has it. */
  release(key: string, holder: string): Promise<void>;
}

/** Small values that may be lost at any time: snapshots, sessions, cached responses. */
export interface Values {
  get(key: string): Promise<Buffer | undefined>;
  /** False when the value is too large to be kept. */
  set(key: string, value: Uint8Array, ttlMs: number): Promise<boolean>;
  /** As `set`; and where the store is a file of this gateway, the value is still there after a restart. */
  remember(key: string, value: Uint8Array, ttlMs: number): Promise<boolean>;
  delete(key: string): Promise<void>;
}

/** Numbers that only grow: whoever changes the configuration bumps one, and all gateways look at it. */
export interface Versions {
  bump(key: string): Promise<number>;
  /** 0 while it was never bumped. */
  version(key: string): Promise<number>;
}

/** Numbers of which each holder tells its own, such as the requests that a gateway has open. */
export interface Tallies {
  /** Sets what `holder` has, which counts for `ttlMs`, and answers the sum over all holders. */
  tally(key: string, own: { readonly holder: string; readonly count: number }, ttlMs: number): Promise<number>;
}

/** How a store is, for metrics and `/health`. */
export interface StoreHealth {
  /** `lost` while it is not asked, only probed. */
  readonly state: "ok" | "lost";
  /** Operations that this gateway did alone, or left out, because the store failed. */
  readonly fallbacks: number;
  /** Settlements that wait for the store to come back, and those that never reached it. */
  readonly owed: number;
  readonly dropped: number;
}

/** Of a store that has no way around its failures. */
export const healthy: StoreHealth = { state: "ok", fallbacks: 0, owed: 0, dropped: 0 };

/** State that all gateways share and that changes with each request. Methods reject when the store cannot be reached. */
export interface HotStore extends Meters, Leases, Values, Versions, Tallies, AsyncDisposable {
  readonly health: StoreHealth;
}

/** A value above this is not kept: one response must not crowd out the rest. */
export const maxValueBytes = 4 * 2 ** 20;

/** How long a settled id is remembered, so that settling again changes nothing: longer than any retry of it. */
export const settledMemoryMs = 60_000;
