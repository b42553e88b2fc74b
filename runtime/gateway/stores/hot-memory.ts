import { PenstockError } from "../../contracts/errors.ts";
import { Account, systemClock, type AccountState, type Clock } from "./account.ts";
import {
  healthy,
  maxValueBytes,
  type Charge,
  type HotStore,
  type LeaseAnswer,
  type Reading,
  type Reservation,
  type ReserveAnswer,
} from "./hot.ts";

/** Bounds of the store in this process. */
export interface MemoryBounds {
  readonly maxAccounts: number;
  /** Of all values together; the ones that were not used for the longest go first. */
  readonly maxValueBytes: number;
}

const defaultBounds: MemoryBounds = { maxAccounts: 100_000, maxValueBytes: 256 * 2 ** 20 };

interface Lease {
  readonly holder: string;
  readonly untilMs: number;
}

interface Value {
  readonly bytes: Buffer;
  readonly untilMs: number;
}

/** The hot store of a single gateway: in this process, gone with it unless `hot-file.ts` keeps its accounts. */
export class MemoryHotStore implements HotStore {
  readonly health = healthy;
  readonly #clock: Clock;
  readonly #bounds: MemoryBounds;
  readonly #accounts = new Map<string, Account>();
  readonly #changed = new Set<string>();
  readonly #leases = new Map<string, Lease>();
  /** Least recently used first. */
  readonly #values = new Map<string, Value>();
  readonly #versions = new Map<string, number>();
  readonly #tallies = new Map<string, Map<string, { readonly count: number; readonly untilMs: number }>>();
  #valueBytes = 0;

  constructor({ clock = systemClock, bounds = {} }: { clock?: Clock; bounds?: Partial<MemoryBounds> } = {}) {
    this.#clock = clock;
    this.#bounds = { ...defaultBounds, ...bounds };
  }

  reserve(reservation: Reservation, ttlMs: number): ReserveAnswer {
    return this.#account(reservation.account).reserve(reservation, ttlMs);
  }

  settle(reservation: Reservation, amounts: readonly number[]): undefined {
    this.#account(reservation.account).settle(reservation, amounts);
  }

  async renew(reservations: readonly Pick<Reservation, "account" | "id">[], ttlMs: number): Promise<void> {
    for (const { account, id } of reservations) this.#accounts.get(account)?.renew(id, ttlMs);
  }

  /** Takes over what another store said of an account's meters, so that limits hold on when that store is lost. */
  learn(account: string, charges: readonly Charge[], readings: readonly Reading[]): void {
    this.#account(account).learn(charges, readings);
  }

  async acquire(key: string, holder: string, ttlMs: number): Promise<LeaseAnswer> {
    const nowMs = this.#clock.elapsedMs();
    for (const [other, { untilMs }] of this.#leases) if (untilMs <= nowMs) this.#leases.delete(other);
    const lease = this.#leases.get(key);
    if (lease !== undefined && lease.holder !== holder) {
      return { held: false, holder: lease.holder, expiresMs: Math.ceil(lease.untilMs - nowMs) };
    }
    this.#leases.set(key, { holder, untilMs: nowMs + ttlMs });
    return { held: true, holder, expiresMs: ttlMs };
  }

  async release(key: string, holder: string): Promise<void> {
    if (this.#leases.get(key)?.holder === holder) this.#leases.delete(key);
  }

  async get(key: string): Promise<Buffer | undefined> {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    this.#drop(key);
    if (value.untilMs <= this.#clock.elapsedMs()) return undefined;
    this.#keep(key, value);
    return value.bytes;
  }

  async set(key: string, value: Uint8Array, ttlMs: number): Promise<boolean> {
    this.#drop(key);
    if (value.length > Math.min(maxValueBytes, this.#bounds.maxValueBytes)) return false;
    // A copy: the caller may write into its bytes again.
    this.#keep(key, { bytes: Buffer.from(value), untilMs: this.#clock.elapsedMs() + ttlMs });
    for (const oldest of this.#values.keys()) {
      if (this.#valueBytes <= this.#bounds.maxValueBytes) break;
      this.#drop(oldest);
    }
    return true;
  }

  /** In this process there is nothing that a restart leaves. */
  async remember(key: string, value: Uint8Array, ttlMs: number): Promise<boolean> {
    return await this.set(key, value, ttlMs);
  }

  async delete(key: string): Promise<void> {
    this.#drop(key);
  }

  async bump(key: string): Promise<number> {
    const next = (this.#versions.get(key) ?? 0) + 1;
    this.#versions.set(key, next);
    return next;
  }

  async version(key: string): Promise<number> {
    return this.#versions.get(key) ?? 0;
  }

  async tally(
    key: string,
    { holder, count }: { readonly holder: string; readonly count: number },
    ttlMs: number,
  ): Promise<number> {
    const nowMs = this.#clock.elapsedMs();
    const holders = this.#tallies.get(key) ?? new Map<string, { readonly count: number; readonly untilMs: number }>();
    this.#tallies.set(key, holders);
    holders.set(holder, { count, untilMs: nowMs + ttlMs });
    for (const [other, { untilMs }] of holders) if (untilMs <= nowMs) holders.delete(other);
    return [...holders.values()].reduce((sum, each) => sum + each.count, 0);
  }

  /** Accounts that changed since the last call, as they are to be written down. */
  *takeChanges(): Iterable<readonly [account: string, state: AccountState]> {
    for (const name of this.#changed) {
      this.#changed.delete(name);
      const account = this.#accounts.get(name);
      if (account !== undefined) yield [name, account.save()];
    }
  }

  restore(account: string, state: AccountState): void {
    this.#account(account).restore(state);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#values.clear();
  }

  #keep(key: string, value: Value): void {
    this.#values.set(key, value);
    this.#valueBytes += sizeBytes(key, value);
  }

  #drop(key: string): void {
    const value = this.#values.get(key);
    if (value === undefined) return;
    this.#values.delete(key);
    this.#valueBytes -= sizeBytes(key, value);
  }

  #account(name: string): Account {
    this.#changed.add(name);
    const known = this.#accounts.get(name);
    if (known !== undefined) return known;
    if (this.#accounts.size >= this.#bounds.maxAccounts) this.#forgetIdle();
    const account = new Account(this.#clock);
    this.#accounts.set(name, account);
    return account;
  }

  #forgetIdle(): void {
    for (const [name, account] of this.#accounts) if (account.isIdle) this.#accounts.delete(name);
    if (this.#accounts.size < this.#bounds.maxAccounts) return;
    throw new PenstockError(
      "overloaded",
      "Too many tenants are active on this gateway; use a Redis store for so many.",
    );
  }
}

/** What an entry takes: UTF-16 of its key, its bytes, and about what Map and Buffer need themselves. */
function sizeBytes(key: string, { bytes }: Value): number {
  return key.length * 2 + bytes.length + 200;
}
