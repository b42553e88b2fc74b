import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Charge, HotStore } from "../../runtime/gateway/stores/hot.ts";
import { FileHotStore } from "../../runtime/gateway/stores/hot-file.ts";
import { MemoryHotStore } from "../../runtime/gateway/stores/hot-memory.ts";
import { periodEnd, periodStart } from "../../runtime/gateway/stores/period.ts";
import { RecentIds } from "../../runtime/gateway/stores/recent-ids.ts";
import { watchVersion } from "../../runtime/gateway/stores/watch.ts";
import { temporaryFolder } from "../support/folders.ts";

const minuteMs = 60_000;
const dayMs = 86_400_000;

/** A store whose time stands still until it is moved. */
function frozenStore(bounds = {}) {
  const at = { elapsedMs: 5_000, wallMs: Date.UTC(2026, 0, 31, 23, 59) };
  const clock = { elapsedMs: () => at.elapsedMs, wallMs: () => at.wallMs };
  const pass = (ms: number) => {
    at.elapsedMs += ms;
    at.wallMs += ms;
  };
  const store: HotStore = new MemoryHotStore({ clock, bounds });
  return { store, pass };
}

const tokens = (amount: number, limit = 60): Charge => ({
  meter: { kind: "rate", name: "tokens", limit, windowMs: minuteMs },
  amount,
});
const usd = (amount: number, period: "day" | "month" = "month"): Charge => ({
  meter: { kind: "budget", name: "usd", limit: 100, period },
  amount,
});
const slot: Charge = { meter: { kind: "concurrency", name: "requests", limit: 1 }, amount: 1 };

describe("meters in this process", () => {
  it("drain evenly", async () => {
    const { store, pass } = frozenStore();
    const ask = (id: string, amount: number) =>
      store.reserve({ account: "a", id, charges: [tokens(amount)] }, minuteMs);
    expect((await ask("1", 60)).granted).toBe(true);
    pass(9_999);
    expect(await ask("2", 10)).toMatchObject({ granted: false, retryAfterMs: 1 });
    pass(1);
    expect(await ask("3", 10)).toMatchObject({ granted: true, readings: [{ remaining: 0, resetMs: 60_000 }] });
  });

  it("give back what expired, to the millisecond, but nothing of a rate", async () => {
    const { store, pass } = frozenStore();
    const charges = [slot, usd(70), tokens(60, 6e6)];
    await store.reserve({ account: "a", id: "dead", charges }, 1_000);
    pass(999);
    expect((await store.reserve({ account: "a", id: "early", charges }, 1_000)).granted).toBe(false);
    pass(1);
    expect((await store.reserve({ account: "a", id: "next", charges }, 1_000)).granted).toBe(true);
    // It was not dead after all: it is charged for what it used, and once.
    await store.settle({ account: "a", id: "dead", charges }, [1, 20, 60]);
    await store.settle({ account: "a", id: "dead", charges }, [1, 20, 60]);
    const answer = await store.reserve({ account: "a", id: "look", charges: [usd(0)] }, 1);
    expect(answer.readings).toMatchObject([{ remaining: 10 }]);
  });

  it("start a budget anew with its period, without what was reserved before", async () => {
    const { store, pass } = frozenStore();
    const charges = [usd(80)];
    await store.reserve({ account: "a", id: "1", charges }, dayMs);
    expect(await store.reserve({ account: "a", id: "2", charges }, dayMs)).toMatchObject({ retryAfterMs: minuteMs });
    pass(minuteMs);
    expect((await store.reserve({ account: "a", id: "3", charges }, dayMs)).granted).toBe(true);
    await store.settle({ account: "a", id: "1", charges }, [5]);
    const answer = await store.reserve({ account: "a", id: "4", charges: [usd(0)] }, dayMs);
    expect(answer.readings).toMatchObject([{ remaining: 15 }]);
  });

  it("let through in any span no more than the limit and what drained in it", async () => {
    const step = fc.record({
      amount: fc.integer({ min: 0, max: 70 }),
      passMs: fc.integer({ min: 0, max: 20_000 }),
      refund: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40 }), async (steps) => {
        const { store, pass } = frozenStore();
        const kept: { readonly atMs: number; readonly amount: number }[] = [];
        let nowMs = 0;
        for (const [at, { amount, passMs, refund }] of steps.entries()) {
          const reservation = { account: "a", id: String(at), charges: [tokens(amount)] };
          const { granted } = await store.reserve(reservation, minuteMs);
          if (granted && refund) await store.settle(reservation, [0]);
          else if (granted) kept.push({ atMs: nowMs, amount });
          nowMs += passMs;
          pass(passMs);
        }
        for (const [from, { atMs }] of kept.entries()) {
          let total = 0;
          for (const later of kept.slice(from)) {
            total += later.amount;
            expect(total).toBeLessThanOrEqual(60 + (later.atMs - atMs) / 1_000 + 1e-3);
          }
        }
      }),
    );
  });

  it("are forgotten when forgetting changes nothing, and bounded", async () => {
    const { store, pass } = frozenStore({ maxAccounts: 3 });
    const reserve = async (account: string, charges: Charge[]) =>
      store.reserve({ account, id: account, charges }, 1_000);
    await reserve("rate", [tokens(1)]);
    await reserve("budget", [usd(1)]);
    await store.settle({ account: "budget", id: "budget", charges: [usd(1)] }, [1]);
    await reserve("slot", [slot]);
    await expect(reserve("fourth", [slot])).rejects.toMatchObject({ code: "overloaded" });
    pass(2 * minuteMs);
    await reserve("fourth", [slot]);
    await reserve("fifth", [slot]);
  });
});

describe("ids that are remembered", () => {
  it("are for one to two turns", () => {
    const ids = new RecentIds({ turnMs: 100, maxIds: 10 });
    ids.add("a", 0);
    expect(ids.has("a", 199)).toBe(true);
    expect(ids.has("b", 199)).toBe(false);
    expect([ids.has("a", 299), ids.isEmpty(299)]).toEqual([false, true]);
  });

  it("are forgotten after a long silence", () => {
    const ids = new RecentIds({ turnMs: 100, maxIds: 10 });
    ids.add("a", 0);
    expect(ids.isEmpty(200)).toBe(true);
  });

  it("are the last ones when there are too many", () => {
    const ids = new RecentIds({ turnMs: 100, maxIds: 10 });
    for (let id = 0; id < 1_000; id += 1) ids.add(String(id), 0);
    expect(ids.has("989", 0)).toBe(true);
    expect(ids.has("900", 0)).toBe(false);
  });
});

it("values are bounded in bytes, the least recently used go first", async () => {
  const { store, pass } = frozenStore({ maxValueBytes: 3_500 });
  for (const key of ["a", "b", "c"]) await store.set(key, Buffer.alloc(900), minuteMs);
  await store.get("a");
  await store.set("d", Buffer.alloc(900), minuteMs);
  expect(await store.get("b")).toBeUndefined();
  expect((await store.get("a"))?.length).toBe(900);
  pass(minuteMs);
  expect(await store.get("a")).toBeUndefined();
  expect(await store.set("large", Buffer.alloc(3_501), minuteMs)).toBe(false);
});

describe("a hot store in a file", () => {
  const fail = (error: unknown) => {
    throw error;
  };

  it("keeps limits over a restart, without what died with the process", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "hot.db");
    const settled = { account: "a", id: "1", charges: [tokens(60, 60), usd(30)] };
    {
      await using store: HotStore = new FileHotStore(file, fail);
      await store.reserve(settled, minuteMs);
      await store.settle(settled, [60, 20]);
      await store.reserve({ account: "a", id: "2", charges: [usd(70), slot] }, minuteMs);
    }
    await using store: HotStore = new FileHotStore(file, fail);
    const answer = await store.reserve({ account: "a", id: "3", charges: [tokens(10), usd(80), slot] }, minuteMs);
    expect(answer).toMatchObject({ granted: false, refusedBy: 0, readings: [{}, { remaining: 80 }, { remaining: 1 }] });
  });

  it("starts without rows that nobody can read", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "hot.db");
    {
      await using _store = new FileHotStore(file, fail);
    }
    using database = new DatabaseSync(file);
    database.exec(`INSERT INTO hot_accounts VALUES ('a', '{"rates":'), ('b', '{"rates":1}')`);
    await using store: HotStore = new FileHotStore(file, fail);
    expect((await store.reserve({ account: "a", id: "1", charges: [tokens(60)] }, minuteMs)).granted).toBe(true);
  });
});

it.each([
  ["day", "2026-02-28T23:59:59.999Z", "2026-02-28T00:00:00.000Z", "2026-03-01T00:00:00.000Z"],
  ["month", "2026-12-31T12:00:00.000Z", "2026-12-01T00:00:00.000Z", "2027-01-01T00:00:00.000Z"],
] as const)("a %s with %s in it starts and ends in UTC", (...[period, at, start, end]) => {
  expect(new Date(periodStart(period, Date.parse(at))).toISOString()).toBe(start);
  expect(new Date(periodEnd(period, Date.parse(at))).toISOString()).toBe(end);
});

it("a version that is watched is told of at first and at each change, again when that failed", async () => {
  const store = new MemoryHotStore();
  const seen: number[] = [];
  const errors: unknown[] = [];
  using _watch = watchVersion(store, {
    key: "config",
    intervalMs: 5,
    onChange: async (version) => {
      seen.push(version);
      if (seen.length === 2) throw new Error("not now");
    },
    onError: (error) => errors.push(error),
  });
  await expect.poll(() => seen).toEqual([0]);
  await store.bump("config");
  await expect.poll(() => seen).toEqual([0, 1, 1]);
  await store.bump("another");
  await store.bump("config");
  await expect.poll(() => seen).toEqual([0, 1, 1, 2]);
  expect(errors).toMatchObject([{ message: "not now" }]);
});
