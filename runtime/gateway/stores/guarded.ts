import { PenstockError } from "../../contracts/errors.ts";
import type { HotStore, LeaseAnswer, Reservation, ReserveAnswer, StoreHealth } from "./hot.ts";
import { MemoryHotStore } from "./hot-memory.ts";

/** What happens while the shared store cannot be reached. */
export interface GuardOptions {
  /**
   * `local`: this gateway alone keeps the limits, from what it last saw of them, so that n gateways may allow n times as
   * much; `deny`: requests are refused with `overloaded`.
   */
  readonly onStoreFailure: "local" | "deny";
  /** `error` is what the store was lost by. */
  readonly onChange: (state: StoreHealth["state"], error: unknown) => void;
  /** When a lost store is first tried again; later less often. */
  readonly probeIntervalMs?: number;
}

/** So many failures in a row, and the store is not asked any more. */
const maxFailures = 3;
const defaultProbeIntervalMs = 500;
const maxProbeDelayMs = 5_000;
/** Settlements that wait for the store to come back. */
const maxOwed = 50_000;
/** Sent at once when it is back. */
const owedBatch = 100;

/** One that failed so often is not the store's failure. */
const maxPayments = 20;

interface Owed {
  readonly reservation: Reservation;
  readonly amounts: readonly number[];
  readonly failures: number;
}

/**
 * A shared hot store behind a circuit breaker: after a few failures or time-outs it is left alone and probed in the
 * background, so that a slow store does not slow each request. What was settled meanwhile is told to it when it is back.
 */
export class GuardedHotStore implements HotStore {
  readonly #shared: HotStore;
  readonly #local = new MemoryHotStore();
  readonly #options: GuardOptions;
  /** Reservations that were made here, because the shared store failed: whether that may know of them, too. */
  readonly #here = new Map<string, boolean>();
  #owed: Owed[] = [];
  #paying: Promise<void> | undefined;
  #failures = 0;
  #dropped = 0;
  #fallbacks = 0;
  #probe: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(shared: HotStore, options: GuardOptions) {
    this.#shared = shared;
    this.#options = options;
  }

  get health(): StoreHealth {
    const state = this.#probe === undefined ? "ok" : "lost";
    return { state, fallbacks: this.#fallbacks, owed: this.#owed.length, dropped: this.#dropped };
  }

  async reserve(reservation: Reservation, ttlMs: number): Promise<ReserveAnswer> {
    const { account, charges, id } = reservation;
    const wasAsked = this.#probe === undefined;
    const answer = await this.#ask(async (store) => await store.reserve(reservation, ttlMs));
    if (answer !== undefined) {
      this.#local.learn(account, charges, answer.readings);
      return answer;
    }
    if (this.#options.onStoreFailure === "deny") {
      // It may have been made all the same, by a store that only answers late.
      if (wasAsked) this.#owe({ reservation, amounts: [] });
      throw new PenstockError("overloaded", "Limits cannot be checked at the moment; try again later.", {
        retryAfterSeconds: 1,
      });
    }
    const local = this.#local.reserve(reservation, ttlMs);
    if (local.granted) this.#here.set(id, wasAsked);
    else if (wasAsked) this.#owe({ reservation, amounts: [] });
    return local;
  }

  async settle(reservation: Reservation, amounts: readonly number[]): Promise<void> {
    const wasAsked = this.#here.get(reservation.id);
    if (wasAsked !== undefined) {
      this.#here.delete(reservation.id);
      this.#local.settle(reservation, amounts);
      const isOwed = wasAsked || reservation.charges.some(({ meter }) => meter.kind === "budget");
      if (isOwed) this.#owe({ reservation, amounts });
      return;
    }
    const done = await this.#ask(async (store) => {
      await store.settle(reservation, amounts);
      return true;
    });
    if (done === undefined) this.#owe({ reservation, amounts });
  }

  async renew(reservations: readonly Pick<Reservation, "account" | "id">[], ttlMs: number): Promise<void> {
    const here = reservations.filter(({ id }) => this.#here.has(id));
    const there = reservations.filter(({ id }) => !this.#here.has(id));
    await this.#local.renew(here, ttlMs);
    if (there.length > 0) await this.#ask((store) => store.renew(there, ttlMs));
  }

  async acquire(key: string, holder: string, ttlMs: number): Promise<LeaseAnswer> {
    const answer = await this.#ask((store) => store.acquire(key, holder, ttlMs));
    return answer ?? (await this.#local.acquire(key, holder, ttlMs));
  }

  async release(key: string, holder: string): Promise<void> {
    await this.#local.release(key, holder);
    await this.#ask((store) => store.release(key, holder));
  }

  /** Nothing while the store is lost. */
  async get(key: string): Promise<Buffer | undefined> {
    return await this.#ask((store) => store.get(key));
  }

  async set(key: string, value: Uint8Array, ttlMs: number): Promise<boolean> {
    return (await this.#ask((store) => store.set(key, value, ttlMs))) ?? false;
  }

  async remember(key: string, value: Uint8Array, ttlMs: number): Promise<boolean> {
    return (await this.#ask((store) => store.remember(key, value, ttlMs))) ?? false;
  }

  async delete(key: string): Promise<void> {
    await this.#ask((store) => store.delete(key));
  }

  /** Throws what the store threw: a change of configuration that nobody hears of has not happened. */
  async bump(key: string): Promise<number> {
    return await this.#shared.bump(key);
  }

  async version(key: string): Promise<number> {
    return await this.#shared.version(key);
  }

  async tally(...args: Parameters<HotStore["tally"]>): Promise<number> {
    return (await this.#ask((store) => store.tally(...args))) ?? (await this.#local.tally(...args));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    const wasLost = this.#probe !== undefined;
    clearTimeout(this.#probe);
    this.#probe = undefined;
    if (!wasLost) await this.#payOwed().catch(() => undefined);
    await this.#shared[Symbol.asyncDispose]();
  }

  /** What the shared store says; undefined when it fails, or is known to. */
  async #ask<T>(work: (store: HotStore) => Promise<T>): Promise<T | undefined> {
    if (this.#probe !== undefined) {
      this.#fallbacks += 1;
      return undefined;
    }
    try {
      const answer = await work(this.#shared);
      this.#failures = 0;
      if (this.#owed.length > 0) void this.#payOwed().catch(() => undefined);
      return answer;
    } catch (error) {
      this.#fallbacks += 1;
      this.#failures += 1;
      if (this.#failures >= maxFailures) this.#lose(error);
      return undefined;
    }
  }

  #lose(error: unknown): void {
    if (this.#probe !== undefined || this.#closed) return;
    this.#probeLater(this.#options.probeIntervalMs ?? defaultProbeIntervalMs);
    this.#options.onChange("lost", error);
  }

  #probeLater(delayMs: number): void {
    this.#probe = setTimeout(() => void this.#tryReturn(delayMs), delayMs).unref();
  }

  async #tryReturn(delayMs: number): Promise<void> {
    try {
      await this.#shared.version("probe");
    } catch {
      if (!this.#closed) this.#probeLater(Math.min(2 * delayMs, maxProbeDelayMs));
      return;
    }
    await this.#payOwed().catch(() => undefined);
    this.#probe = undefined;
    this.#failures = 0;
    if (!this.#closed) this.#options.onChange("ok", undefined);
  }

  #owe(owed: Omit<Owed, "failures">, failures = 0): void {
    if (this.#owed.length < maxOwed && failures < maxPayments) this.#owed.push({ ...owed, failures });
    else this.#dropped += 1;
  }

  async #payOwed(): Promise<void> {
    this.#paying ??= this.#pay().finally(() => (this.#paying = undefined));
    await this.#paying;
  }

  async #pay(): Promise<void> {
    while (this.#owed.length > 0) {
      const batch = this.#owed.splice(0, owedBatch);
      const results = await Promise.allSettled(
        batch.map(async ({ reservation, amounts }) => await this.#shared.settle(reservation, amounts)),
      );
      const failed = batch.filter((_, at) => results[at]?.status === "rejected");
      for (const owed of failed) this.#owe(owed, owed.failures + 1);
      if (failed.length > 0) throw new Error(`${failed.length} settlements failed`);
    }
  }
}
