import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { GuardedHotStore, type GuardOptions } from "../../../runtime/gateway/stores/guarded.ts";
import type { Charge, StoreHealth } from "../../../runtime/gateway/stores/hot.ts";
import { RedisHotStore } from "../../../runtime/gateway/stores/hot-redis.ts";
import { freePort } from "../../support/servers/free-port.ts";
import { redis } from "../../support/servers/redis.ts";
import { lacking } from "../../support/servers/tools.ts";

const minuteMs = 60_000;
/** Reached only where the server hangs. */
const timeoutMs = 300;
/** Never reached, on however busy a machine. */
const longMs = 30_000;

const budget = (amount: number, limit = 100): Charge => ({
  meter: { kind: "budget", name: "usd", limit, period: "month" },
  amount,
});

/** A guarded store on the server at `url`, which is tried often. */
async function guarded(url: string, about: Partial<GuardOptions & { timeoutMs: number }> = {}) {
  const states: StoreHealth["state"][] = [];
  const shared = await RedisHotStore.open({ url, timeoutMs: about.timeoutMs ?? timeoutMs }, () => undefined);
  const store = new GuardedHotStore(shared, {
    onStoreFailure: "local",
    onChange: (state) => states.push(state),
    probeIntervalMs: 50,
    ...about,
  });
  onTestFinished(() => store[Symbol.asyncDispose]());
  let next = 0;
  const reserve = async (charges: readonly Charge[], account = "acme") => {
    next += 1;
    const reservation = { account, id: `${process.hrtime.bigint()}-${next}`, charges };
    return { reservation, answer: await store.reserve(reservation, minuteMs) };
  };
  return { store, states, reserve };
}

describe.skipIf(lacking("redis-server", "redis-cli") !== undefined)("a Redis server that fails", () => {
  it("is missed by nobody when it is killed: limits go on from where they were, and it learns of the rest", async () => {
    const server = await redis();
    const { store, states, reserve } = await guarded(server.url, { timeoutMs: longMs });
    const settle = async (count: number) => {
      const results = await Promise.all(Array.from({ length: count }, () => reserve([budget(1)])));
      const granted = results.filter(({ answer }) => answer.granted);
      for (const { reservation } of granted) await store.settle(reservation, [1]);
      return granted.length;
    };
    expect(await settle(30)).toBe(30);
    // Some are on their way.
    const during = settle(30);
    process.kill(server.pid, "SIGKILL");
    expect(await during).toBe(30);
    expect(await settle(100)).toBe(40);
    expect(store.health.state).toBe("lost");
    const { owed } = store.health;
    expect(owed).toBeGreaterThanOrEqual(40);
    await server[Symbol.asyncDispose]();

    // It comes back with nothing of what it knew, and gets what it was not told.
    await using _again = await redis({ port: server.port });
    await expect.poll(() => store.health.state).toBe("ok");
    const { answer } = await reserve([budget(0)]);
    expect(answer.readings[0]?.remaining).toBeLessThanOrEqual(60);
    expect(store.health).toMatchObject({ owed: 0, dropped: 0 });
    expect(states).toEqual(["lost", "ok"]);
  });

  it("slows down the first requests alone when it hangs, and gets no slot twice when it wakes", async () => {
    await using server = await redis();
    const { store, states, reserve } = await guarded(server.url);
    const slot: Charge = { meter: { kind: "concurrency", name: "requests", limit: 3 }, amount: 1 };
    await reserve([slot, budget(1)]);
    process.kill(server.pid, "SIGSTOP");
    // These are granted here, and Redis will read them when it wakes.
    const hung = await Promise.all([
      reserve([slot, budget(1)]),
      reserve([slot, budget(1)]),
      reserve([slot, budget(1)]),
    ]);
    expect(hung.map(({ answer }) => answer.granted)).toEqual([true, true, true]);
    expect(store.health.state).toBe("lost");
    const startedMs = performance.now();
    for (let at = 0; at < 50; at += 1) await reserve([budget(0)]);
    // One that waited would take a time-out each.
    expect(performance.now() - startedMs).toBeLessThan(10 * timeoutMs);
    for (const { reservation } of hung) await store.settle(reservation, [1, 5]);
    process.kill(server.pid, "SIGCONT");
    await expect.poll(() => store.health.state).toBe("ok");
    expect(states).toEqual(["lost", "ok"]);
    const { answer } = await reserve([slot, budget(0)]);
    expect(answer).toMatchObject({ granted: true, readings: [{ remaining: 1 }, { remaining: 84 }] });
  });

  it("keeps requests out while it is lost, where that was chosen", async () => {
    const server = await redis();
    const { store, reserve } = await guarded(server.url, { onStoreFailure: "deny", timeoutMs: longMs });
    expect((await reserve([budget(1)])).answer.granted).toBe(true);
    process.kill(server.pid, "SIGKILL");
    for (let at = 0; at < 5; at += 1) {
      await expect(reserve([budget(1)])).rejects.toMatchObject({ code: "overloaded", retryAfterSeconds: 1 });
    }
    await server[Symbol.asyncDispose]();
    await using _again = await redis({ port: server.port });
    await expect.poll(() => store.health.state).toBe("ok");
    expect((await reserve([budget(1)])).answer.granted).toBe(true);
  });

  it("is not blamed when it was the gateway that stood still", async () => {
    await using server = await redis();
    const { store, reserve } = await guarded(server.url);
    const asked = Array.from({ length: 10 }, () => reserve([budget(1)]));
    const untilMs = performance.now() + 3 * timeoutMs;
    while (performance.now() < untilMs);
    await Promise.all(asked);
    expect(store.health).toMatchObject({ state: "ok", fallbacks: 0 });
  });

  it("may come after the gateway", async () => {
    const port = await freePort();
    const { store, reserve } = await guarded(`redis://127.0.0.1:${port}`, { timeoutMs: longMs });
    for (let at = 0; at < 5; at += 1) expect((await reserve([budget(1)])).answer.granted).toBe(true);
    expect(store.health.state).toBe("lost");
    expect(await store.get("any")).toBeUndefined();
    expect(await store.set("any", Buffer.alloc(1), minuteMs)).toBe(false);
    expect((await store.acquire("load:m", "me", minuteMs)).held).toBe(true);
    await expect(store.bump("config")).rejects.toThrow();
    await using _server = await redis({ port });
    await expect.poll(() => store.health.state).toBe("ok");
    expect(await store.set("any", Buffer.alloc(1), minuteMs)).toBe(true);
    expect(await store.bump("config")).toBe(1);
  });

  it("gets the slots back of a gateway that died, and pays what a single failure left owing", async () => {
    await using server = await redis();
    const { store, reserve } = await guarded(server.url);
    const { reservation } = await reserve([budget(10)]);
    process.kill(server.pid, "SIGSTOP");
    await store.settle(reservation, [4]);
    process.kill(server.pid, "SIGCONT");
    expect(store.health.state).toBe("ok");
    await expect.poll(async () => (await reserve([budget(0)])).answer.readings[0]?.remaining).toBe(96);
    await expect.poll(() => store.health.owed).toBe(0);
    await using other = await RedisHotStore.open({ url: server.url, timeoutMs: longMs }, () => undefined);
    await other.reserve({ account: "died", id: "1", charges: [budget(100)] }, 100);
    await delay(100);
    expect((await reserve([budget(100)], "died")).answer.granted).toBe(true);
  });
});
