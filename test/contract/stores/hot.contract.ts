import { randomUUID } from "node:crypto";
import * as fc from "fast-check";
import { expect, it } from "vitest";
import type { Charge, HotStore, Meter, Reservation } from "../../../runtime/gateway/stores/hot.ts";
import { maxValueBytes } from "../../../runtime/gateway/stores/hot.ts";

/** So slow that nothing drains during a test. */
const frozenMs = 1e12;
const minuteMs = 60_000;

const rate = (limit: number, windowMs = frozenMs): Meter => ({ kind: "rate", name: "tokens", limit, windowMs });
const budget = (limit: number): Meter => ({ kind: "budget", name: "usd", limit, period: "month" });
const concurrency = (limit: number): Meter => ({ kind: "concurrency", name: "requests", limit });

function reservation(charges: readonly Charge[], account: string = randomUUID()): Reservation {
  return { account, id: randomUUID(), charges };
}

const again = (known: Reservation): Reservation => ({ ...known, id: randomUUID() });

/** What every hot store must do. */
export function hotContract(store: () => HotStore, { propertyRuns }: { propertyRuns: number }): void {
  const remaining = async ({ account, charges }: Reservation): Promise<number[]> => {
    const probe = charges
      .filter(({ meter }) => meter.kind !== "concurrency")
      .map((charge) => ({ ...charge, amount: 0 }));
    const look = { account, id: randomUUID(), charges: probe };
    const answer = await store().reserve(look, minuteMs);
    await store().settle(look, []);
    return answer.readings.map((each) => each.remaining);
  };

  it("grants up to the limit and not one more, however many ask at once", async () => {
    const first = reservation([{ meter: rate(100), amount: 1 }]);
    const answers = await Promise.all(
      Array.from({ length: 250 }, async () => await store().reserve(again(first), minuteMs)),
    );
    expect(answers.filter(({ granted }) => granted)).toHaveLength(100);
    expect(answers.at(-1)).toMatchObject({ granted: false, refusedBy: 0, readings: [{ limit: 100, remaining: 0 }] });
  });

  it("takes all charges or none", async () => {
    const charges = [
      { meter: rate(10), amount: 4 },
      { meter: budget(5), amount: 3 },
    ];
    const first = reservation(charges);
    expect((await store().reserve(first, minuteMs)).granted).toBe(true);
    expect(await store().reserve(again(first), minuteMs)).toMatchObject({
      granted: false,
      refusedBy: 1,
      readings: [{ remaining: 6 }, { remaining: 2 }],
    });
    expect(await remaining(first)).toEqual([6, 2]);
  });

  it("settles above and below what was reserved", async () => {
    const charges = [
      { meter: rate(100), amount: 50 },
      { meter: budget(100), amount: 50 },
    ];
    const [low, high] = [reservation(charges, "settling"), reservation(charges, "settling")];
    await store().reserve(low, minuteMs);
    await store().reserve(high, minuteMs);
    await store().settle(low, [10, 20]);
    expect(await remaining(low)).toEqual([40, 30]);
    await store().settle(high, [120, 90]);
    expect(await remaining(low)).toEqual([-30, -10]);
    expect((await store().reserve(again(low), minuteMs)).granted).toBe(false);
  });

  it("counts neither a reservation nor a settlement twice", async () => {
    const mine = reservation([
      { meter: rate(100), amount: 30 },
      { meter: budget(100), amount: 30 },
      { meter: concurrency(2), amount: 1 },
    ]);
    expect(await store().reserve(mine, minuteMs)).toMatchObject({ granted: true });
    expect(await store().reserve(mine, minuteMs)).toMatchObject({
      granted: true,
      readings: [{ remaining: 70 }, {}, { remaining: 1 }],
    });
    await store().settle(mine, [20, 20, 1]);
    await store().settle(mine, [0, 0, 0]);
    await store().settle(mine, [90, 90, 1]);
    expect(await store().reserve(mine, minuteMs)).toMatchObject({
      granted: true,
      readings: [{ remaining: 80 }, { remaining: 80 }, { remaining: 2 }],
    });
  });

  it("charges a reservation that it does not know for what it used", async () => {
    const lost = reservation([
      { meter: rate(100), amount: 30 },
      { meter: budget(100), amount: 30 },
    ]);
    await store().settle(lost, [20, 20]);
    expect(await remaining(lost)).toEqual([100, 80]);
  });

  it("gives slots back when they are settled, and budgets and slots when they expire", async () => {
    const first = reservation([
      { meter: concurrency(1), amount: 1 },
      { meter: budget(100), amount: 60 },
    ]);
    await store().reserve(first, minuteMs);
    expect(await store().reserve(again(first), 100)).toMatchObject({
      granted: false,
      retryAfterMs: expect.any(Number),
    });
    await store().settle(first, [0, 0]);
    expect((await store().reserve(again(first), 100)).granted).toBe(true);
    await expect.poll(async () => (await store().reserve(again(first), minuteMs)).granted, { interval: 20 }).toBe(true);
    expect(await remaining(first)).toEqual([40]);
  });

  it("keeps what is renewed", async () => {
    const kept = reservation([{ meter: concurrency(2), amount: 1 }]);
    const dropped = again(kept);
    await store().reserve(kept, 150);
    await store().reserve(dropped, 150);
    await store().renew([kept], minuteMs);
    await expect
      .poll(async () => (await store().reserve({ ...kept, id: "later" }, minuteMs)).granted, { interval: 20 })
      .toBe(true);
    expect((await store().reserve(again(kept), minuteMs)).granted).toBe(false);
  });

  it("opens nothing that is renewed and not open", async () => {
    const mine = reservation([{ meter: concurrency(1), amount: 1 }]);
    await store().renew([mine], minuteMs);
    const settled = again(mine);
    await store().reserve(settled, minuteMs);
    await store().settle(settled, [1]);
    await store().renew([settled], minuteMs);
    expect((await store().reserve(again(mine), minuteMs)).granted).toBe(true);
  });

  it("says truthfully when there is room again", async () => {
    const first = reservation([{ meter: rate(10, 500), amount: 10 }]);
    await store().reserve(first, minuteMs);
    const next = { ...again(first), charges: [{ meter: rate(10, 500), amount: 4 }] };
    const answer = await store().reserve(next, minuteMs);
    if (answer.granted) throw new Error("granted too early");
    expect(answer.retryAfterMs).toBeGreaterThan(0);
    expect(answer.retryAfterMs).toBeLessThanOrEqual(200);
    await new Promise((resolve) => setTimeout(resolve, (answer.retryAfterMs ?? 0) + 2));
    expect((await store().reserve(next, minuteMs)).granted).toBe(true);
    const tooLarge = { ...again(first), charges: [{ meter: rate(10, 500), amount: 11 }] };
    expect(await store().reserve(tooLarge, minuteMs)).toMatchObject({ granted: false, retryAfterMs: null });
  });

  it("names the end of a budget's period, and follows a limit that changes", async () => {
    const mine = reservation([{ meter: budget(10), amount: 10 }]);
    await store().reserve(mine, minuteMs);
    const refused = await store().reserve(again(mine), minuteMs);
    if (refused.granted || refused.retryAfterMs === null) throw new Error("no time to wait");
    const now = new Date();
    const nextMonth = Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1);
    expect(Math.abs(refused.retryAfterMs - (nextMonth - now.getTime()))).toBeLessThan(minuteMs);
    const raised = { ...again(mine), charges: [{ meter: budget(25), amount: 10 }] };
    expect(await store().reserve(raised, minuteMs)).toMatchObject({ granted: true, readings: [{ remaining: 5 }] });
  });

  it("keeps accounts apart", async () => {
    const mine = reservation([{ meter: rate(1), amount: 1 }]);
    const other = reservation([{ meter: rate(1), amount: 1 }]);
    expect((await store().reserve(mine, minuteMs)).granted).toBe(true);
    expect((await store().reserve(other, minuteMs)).granted).toBe(true);
    expect((await store().reserve(again(mine), minuteMs)).granted).toBe(false);
  });

  it("never lets more be spent than the limit and what settlements report above their reservations", async () => {
    const request = fc.record({
      reserved: fc.integer({ min: 0, max: 60 }),
      used: fc.integer({ min: 0, max: 90 }),
      ending: fc.constantFrom("settle", "refund", "stay", "twice"),
      startAfter: fc.integer({ min: 0, max: 3 }),
      endAfter: fc.integer({ min: 0, max: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(request, { maxLength: 25 }), async (requests) => {
        const limit = 100;
        const account = randomUUID();
        const turns = async (count: number) => {
          for (let at = 0; at < count; at += 1) await store().version("turn");
        };
        const spent = await Promise.all(
          requests.map(async ({ reserved, used, ending, startAfter, endAfter }) => {
            await turns(startAfter);
            const mine = reservation(
              [
                { meter: budget(limit), amount: reserved },
                { meter: rate(limit), amount: reserved },
              ],
              account,
            );
            if (!(await store().reserve(mine, minuteMs)).granted) return { spent: 0, above: 0 };
            await turns(endAfter);
            if (ending === "stay") return { spent: reserved, above: 0 };
            const amount = ending === "refund" ? 0 : used;
            await store().settle(mine, [amount, amount]);
            if (ending === "twice") await store().settle(mine, [amount, amount]);
            return { spent: amount, above: Math.max(0, amount - reserved) };
          }),
        );
        const total = spent.reduce((sum, each) => sum + each.spent, 0);
        expect(total).toBeLessThanOrEqual(limit + spent.reduce((sum, each) => sum + each.above, 0));
        const [ofBudget, ofRate] = await remaining(
          reservation(
            [
              { meter: budget(limit), amount: 0 },
              { meter: rate(limit), amount: 0 },
            ],
            account,
          ),
        );
        // In debt even nothing is refused, but the reading is exact.
        expect([ofBudget, ofRate]).toEqual([limit - total, limit - total]);
      }),
      { numRuns: propertyRuns },
    );
  });

  it("leases to one holder, who renews it, until it is released or expires", async () => {
    const key = randomUUID();
    const all = await Promise.all(["a", "b", "c"].map((holder) => store().acquire(key, holder, minuteMs)));
    const holder = all.find(({ held }) => held)?.holder ?? "";
    expect(all.filter(({ held }) => held)).toHaveLength(1);
    expect(all.every((each) => each.holder === holder)).toBe(true);
    expect(await store().acquire(key, holder, 2 * minuteMs)).toEqual({ held: true, holder, expiresMs: 2 * minuteMs });
    const refused = await store().acquire(key, "d", 100);
    expect(refused).toMatchObject({ held: false, holder });
    expect(refused.expiresMs).toBeGreaterThan(minuteMs);
    await store().release(key, "d");
    expect((await store().acquire(key, "d", 100)).held).toBe(false);
    await store().release(key, holder);
    expect((await store().acquire(key, "d", 100)).held).toBe(true);
    await expect.poll(async () => (await store().acquire(key, "e", 100)).held, { interval: 20 }).toBe(true);
  });

  it("keeps values until their time is over", async () => {
    const key = randomUUID();
    const bytes = Buffer.from([0, 1, 254, 255]);
    expect(await store().get(key)).toBeUndefined();
    expect(await store().set(key, bytes, minuteMs)).toBe(true);
    expect(await store().get(key)).toEqual(bytes);
    expect(await store().set(key, Buffer.alloc(maxValueBytes + 1), minuteMs)).toBe(false);
    expect(await store().get(key)).toBeUndefined();
    await store().set(key, bytes, 50);
    await expect.poll(() => store().get(key), { interval: 20 }).toBeUndefined();
    await store().set(key, bytes, minuteMs);
    await store().delete(key);
    expect(await store().get(key)).toBeUndefined();
  });

  it("remembers values as it keeps others", async () => {
    const key = randomUUID();
    const bytes = Buffer.from([0, 1, 254, 255]);
    expect(await store().remember(key, bytes, minuteMs)).toBe(true);
    expect(await store().get(key)).toEqual(bytes);
    expect(await store().remember(key, Buffer.alloc(maxValueBytes + 1), minuteMs)).toBe(false);
    expect(await store().get(key)).toBeUndefined();
    await store().remember(key, bytes, 50);
    await expect.poll(() => store().get(key), { interval: 20 }).toBeUndefined();
    await store().remember(key, bytes, minuteMs);
    await store().delete(key);
    expect(await store().get(key)).toBeUndefined();
  });

  it("adds up what each holder has, until it is told no more", async () => {
    const key = randomUUID();
    expect(await store().tally(key, { holder: "a", count: 2.5 }, minuteMs)).toBe(2.5);
    expect(await store().tally(key, { holder: "b", count: 4 }, 100)).toBe(6.5);
    expect(await store().tally(key, { holder: "a", count: 1 }, minuteMs)).toBe(5);
    const asked = () => store().tally(key, { holder: "a", count: 1 }, minuteMs);
    await expect.poll(asked, { interval: 20 }).toBe(1);
  });

  it("counts versions up", async () => {
    const key = randomUUID();
    expect(await store().version(key)).toBe(0);
    const bumps = await Promise.all([store().bump(key), store().bump(key), store().bump(key)]);
    expect(new Set(bumps)).toEqual(new Set([1, 2, 3]));
    expect(await store().version(key)).toBe(3);
  });
}
