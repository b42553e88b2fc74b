import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DrainRate } from "../../runtime/gateway/admission/drain-rate.ts";
import { FairQueue, type PlaceRequest, type QueueLimits } from "../../runtime/gateway/admission/fair-queue.ts";

const roomy: QueueLimits = {
  maxRequests: 10_000,
  maxBytes: 1e9,
  maxRequestsPerTenant: 10_000,
  maxBytesPerTenant: 1e9,
  maxWaitMs: 60_000,
};

interface About extends Partial<Omit<PlaceRequest, "tenant">> {
  readonly tenant?: string;
  readonly priority?: number;
  readonly weight?: number;
}

function request({ tenant = "a", priority = 5, weight = 1, ...about }: About = {}): PlaceRequest {
  const { signal: client } = new AbortController();
  return { model: "m", tenant: { id: tenant, priority, weight }, bytes: 1, cost: 1, client, ...about };
}

/** A queue for one place, which is taken; `next` ends whatever runs and answers who runs then. */
async function busyQueue(limits: Partial<QueueLimits> = {}) {
  const queue = new FairQueue(() => 1, { ...roomy, ...limits });
  let running: { readonly name: string; readonly place: Disposable } = {
    name: "first",
    place: await queue.enter(request({ tenant: "first" })),
  };
  const started: (typeof running)[] = [];
  const enter = (about: About, name = about.tenant ?? "a"): Promise<void> =>
    Promise.resolve(queue.enter(request(about))).then((place) => void started.push({ name, place }));
  const next = async (): Promise<string | undefined> => {
    running.place[Symbol.dispose]();
    await new Promise((resolve) => setImmediate(resolve));
    const now = started.shift();
    if (now !== undefined) running = now;
    return now?.name;
  };
  return { queue, enter, next };
}

async function order(next: () => Promise<string | undefined>): Promise<string[]> {
  const names: string[] = [];
  for (let name = await next(); name !== undefined; name = await next()) names.push(name);
  return names;
}

describe("the turn of waiting requests", () => {
  it("is not waited for while there is room, and each model has its own", async () => {
    const queue = new FairQueue((model) => (model === "none" ? 0 : 2), roomy);
    const places = await Promise.all([queue.enter(request()), queue.enter(request())]);
    expect(queue.of("m")).toEqual({ running: 2, waiting: 0 });
    const third = Promise.resolve(queue.enter(request()));
    expect(queue.of("m")).toEqual({ running: 2, waiting: 1 });
    await queue.enter(request({ model: "other" }));
    places[0]?.[Symbol.dispose]();
    places[0]?.[Symbol.dispose]();
    await third;
    expect(queue.of("m")).toEqual({ running: 2, waiting: 0 });
    expect(queue.waiting).toEqual({ requests: 0, bytes: 0 });
  });

  it("comes for ten quiet tenants before the long queue of a greedy one", async () => {
    const { enter, next } = await busyQueue();
    for (let at = 0; at < 200; at += 1) void enter({ tenant: "greedy" });
    for (let at = 0; at < 10; at += 1) void enter({ tenant: `quiet-${at}` });
    const names = await order(next);
    expect(names).toHaveLength(210);
    const positions = names.flatMap((name, at) => (name.startsWith("quiet") ? [at] : []));
    expect(positions).toHaveLength(10);
    // One greedy request started the round.
    expect(Math.max(...positions)).toBeLessThanOrEqual(11);
  });

  it("is by work and weight, not by the number of requests", async () => {
    const { enter, next } = await busyQueue();
    for (let at = 0; at < 40; at += 1) void enter({ tenant: "large", cost: 100 });
    for (let at = 0; at < 400; at += 1) void enter({ tenant: "small", cost: 10 });
    for (let at = 0; at < 80; at += 1) void enter({ tenant: "heavy", cost: 100, weight: 2 });
    const names = (await order(next)).slice(0, 130);
    const count = (wanted: string) => names.filter((name) => name === wanted).length;
    expect(Math.abs(count("small") - 10 * count("large"))).toBeLessThanOrEqual(10);
    expect(Math.abs(count("heavy") - 2 * count("large"))).toBeLessThanOrEqual(2);
  });

  it("does not come sooner to who has one request waiting at a time", async () => {
    const { enter, next } = await busyQueue();
    for (let at = 0; at < 20; at += 1) void enter({ tenant: "steady", cost: 10 });
    void enter({ tenant: "sly", cost: 100 });
    const names: string[] = [];
    for (let at = 0; at < 22; at += 1) {
      const name = (await next()) ?? "nobody";
      names.push(name);
      if (name === "sly") void enter({ tenant: "sly", cost: 100 });
    }
    expect(names.filter((name) => name === "sly").length).toBeLessThanOrEqual(3);
  });

  it("comes first to the higher priority, and in order within a tenant", async () => {
    const { enter, next } = await busyQueue();
    for (const name of ["l1", "l2"]) void enter({ tenant: "low", priority: 1 }, name);
    for (const name of ["h1", "h2", "h3"]) void enter({ tenant: "high", priority: 9, cost: 1_000 }, name);
    expect(await order(next)).toEqual(["h1", "h2", "h3", "l1", "l2"]);
  });

  it("comes when the capacity grows", async () => {
    let capacity = 0;
    const queue = new FairQueue(() => capacity, roomy);
    const waiting = Promise.resolve(queue.enter(request()));
    capacity = 1;
    queue.refill("m");
    using _place = await waiting;
    expect(queue.of("m")).toEqual({ running: 1, waiting: 0 });
    const next = Promise.resolve(queue.enter(request()));
    capacity = 3;
    using _latest = await queue.enter(request());
    using _next = await next;
    expect(queue.of("m")).toEqual({ running: 3, waiting: 0 });
  });

  it("is never lost, and never more run than there is room", async () => {
    const step = fc.record({
      kind: fc.constantFrom("enter", "end", "abort"),
      tenant: fc.integer({ min: 0, max: 4 }),
      priority: fc.integer({ min: 0, max: 2 }),
      cost: fc.integer({ min: 1, max: 100 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 3 }), async (steps, capacity) => {
        const queue = new FairQueue(() => capacity, roomy);
        const running: Disposable[] = [];
        const waiting: AbortController[] = [];
        const outcomes: Promise<unknown>[] = [];
        let [served, left] = [0, 0];
        for (const { kind, tenant, priority, cost } of steps) {
          if (kind === "enter") {
            const controller = new AbortController();
            const about = { tenant: `t${tenant}`, priority, cost, signal: controller.signal };
            waiting.push(controller);
            outcomes.push(
              Promise.resolve(queue.enter(request(about))).then(
                (place) => (served += running.push(place) > 0 ? 1 : 0),
                () => (left += 1),
              ),
            );
          } else if (kind === "end") {
            running.shift()?.[Symbol.dispose]();
          } else {
            waiting.splice(tenant, 1)[0]?.abort();
          }
          await new Promise((resolve) => setImmediate(resolve));
          expect(running.length).toBeLessThanOrEqual(capacity);
          // Work-conserving: nobody waits beside a free place.
          expect(queue.of("m").waiting === 0 || running.length === capacity).toBe(true);
        }
        while (running.length > 0) {
          running.shift()?.[Symbol.dispose]();
          await new Promise((resolve) => setImmediate(resolve));
        }
        await Promise.all(outcomes);
        expect(served + left).toBe(outcomes.length);
        expect(queue.waiting).toEqual({ requests: 0, bytes: 0 });
        expect(queue.of("m")).toEqual({ running: 0, waiting: 0 });
      }),
      { numRuns: 60 },
    );
  });
});

describe("the bounds of what waits", () => {
  it.each([
    ["requests of a tenant", { maxRequestsPerTenant: 1 }, "a", "queue_full"],
    ["bytes of a tenant", { maxBytesPerTenant: 15 }, "a", "queue_full"],
    ["requests in all", { maxRequests: 1 }, "b", "overloaded"],
    ["bytes in all", { maxBytes: 15 }, "b", "overloaded"],
  ])("hold: %s", async (...[, limits, tenant, code]) => {
    const { queue, enter } = await busyQueue(limits);
    void enter({ bytes: 10 });
    const refused = expect.objectContaining({ code, retryAfterSeconds: expect.any(Number) });
    expect(() => queue.enter(request({ tenant, bytes: 10 }))).toThrow(refused);
    expect(() => queue.check(request({ tenant, bytes: 10 }))).toThrow(refused);
    expect(queue.waiting).toEqual({ requests: 1, bytes: 10 });
  });

  it("leave other tenants their room", async () => {
    const { queue, enter } = await busyQueue({ maxRequestsPerTenant: 1 });
    void enter({ tenant: "a" });
    void enter({ tenant: "b" });
    expect(queue.waiting.requests).toBe(2);
  });

  it("hold in time: by the queue's limit, or by the request's deadline", async () => {
    const { queue } = await busyQueue({ maxWaitMs: 40 });
    const { queue: patient } = await busyQueue();
    for (const waits of [queue.enter(request()), patient.enter(request({ deadlineMs: 40 }))]) {
      await expect(waits).rejects.toMatchObject({ code: "overloaded", retryAfterSeconds: expect.any(Number) });
    }
    expect(queue.waiting).toEqual({ requests: 0, bytes: 0 });
  });

  it("end for who leaves", async () => {
    const { queue } = await busyQueue();
    const controller = new AbortController();
    const waits = queue.enter(request({ client: controller.signal }));
    controller.abort();
    await expect(waits).rejects.toMatchObject({ code: "client_closed" });
    await expect(queue.enter(request({ client: controller.signal }))).rejects.toMatchObject({ code: "client_closed" });
    expect(queue.waiting).toEqual({ requests: 0, bytes: 0 });
  });
});

it("a drain rate is that of the latest departures, and slows down when nothing leaves", () => {
  const rate = new DrainRate();
  expect(rate.untilLeftMs(1, 0)).toBeUndefined();
  for (let at = 0; at <= 200; at += 1) rate.left(at * 10);
  expect(rate.untilLeftMs(5, 2_000)).toBeCloseTo(50);
  expect(rate.untilLeftMs(5, 2_630)).toBeCloseTo(100);
});
