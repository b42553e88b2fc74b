import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ReplicaAccount } from "../../runtime/gateway/routing/account.ts";
import { policies } from "../../runtime/gateway/routing/index.ts";
import type { RouteRequest } from "../../runtime/gateway/routing/policy.ts";
import { prefillWork } from "../../runtime/gateway/routing/prefill-work.ts";
import { RateMeter } from "../../runtime/gateway/routing/rates.ts";
import { Router } from "../../runtime/gateway/routing/router.ts";

describe("account of a replica", () => {
  const work = { uncachedTokens: 1_000, promptTokens: 1_500 };
  const tokens = prefillWork(1_000, 500);

  test("books a request from its beginning over its first byte to its end", () => {
    const account = new ReplicaAccount("a");
    const ticket = account.begin(work, 0);
    const { inFlight, prefilling, pendingTokens, contextTokens } = account;
    expect({ inFlight, prefilling, pendingTokens, contextTokens }).toEqual({
      inFlight: 1,
      prefilling: 1,
      pendingTokens: tokens,
      contextTokens: 1_500,
    });
    ticket.firstByte(100);
    expect([account.inFlight, account.prefilling, account.pendingTokens]).toEqual([1, 0, 0]);
    expect(account.contextTokens).toBe(1_500);
    ticket.end(300);
    expect([account.inFlight, account.contextTokens]).toEqual([0, 0]);
  });

  test("what the engine must have done of the first prompt is no longer pending, but for a rest", () => {
    const account = new ReplicaAccount("a");
    account.begin(work, 0);
    account.begin(work, 0);
    account.at(25);
    expect(account.pendingTokens).toBe(2 * tokens - 25 * account.prefillTokensPerMs);
    account.at(60_000);
    expect(account.pendingTokens).toBeCloseTo(1.05 * tokens);
  });

  test("when the first prompt is given up, nothing of the next one is taken as done", () => {
    const account = new ReplicaAccount("a");
    const first = account.begin(work, 0);
    account.begin(work, 0);
    first.end(50);
    account.at(50);
    expect(account.pendingTokens).toBe(tokens);
  });

  test("sums return to zero, whatever the order, and however often something is told twice", () => {
    const step = fc.record({ ticket: fc.nat(9), act: fc.constantFrom("firstByte", "end") });
    fc.assert(
      fc.property(fc.array(fc.nat(50_000), { maxLength: 10 }), fc.array(step), (prompts, steps) => {
        const account = new ReplicaAccount("a");
        const tickets = prompts.map((promptTokens) =>
          account.begin({ promptTokens, uncachedTokens: Math.floor(promptTokens / 2) }, 0),
        );
        for (const [nowMs, { ticket, act }] of steps.entries()) {
          tickets[ticket]?.[act](nowMs);
          expect(account.pendingTokens).toBeGreaterThanOrEqual(0);
        }
        for (const ticket of tickets.toReversed()) ticket.end(1_000);
        const { inFlight, prefilling, pendingTokens, contextTokens } = account;
        expect({ inFlight, prefilling, pendingTokens, contextTokens }).toEqual({
          inFlight: 0,
          prefilling: 0,
          pendingTokens: 0,
          contextTokens: 0,
        });
      }),
    );
  });

  test("what an engine's queue has beyond this gateway's requests is foreign", () => {
    const account = new ReplicaAccount("a");
    account.begin(work, 0);
    account.measured({ waiting: 4, running: 7, kvUsage: 0.5 }, 100);
    account.at(350);
    expect([account.foreignWaiting, account.kvUsage, account.ageMs]).toEqual([3, 0.5, 250]);
    account.measured({ waiting: null, running: null, kvUsage: null }, 400);
    expect([account.foreignWaiting, account.kvUsage]).toEqual([0, null]);
  });
});

test("the work of a prefill is the same in one piece or in two, and late tokens are more of it", () => {
  const tokens = fc.nat(100_000);
  fc.assert(
    fc.property(tokens, tokens, tokens, (first, second, cached) => {
      const inTwo = prefillWork(first, cached) + prefillWork(second, cached + first);
      expect(prefillWork(first + second, cached)).toBeCloseTo(inTwo, 3);
    }),
  );
  expect(prefillWork(1_000, 63_000)).toBeGreaterThan(2.9 * prefillWork(1_000, 0));
});

describe("rates", () => {
  const sample = (tokensPerMs: number, uncachedTokens = 8_000) => ({
    uncachedTokens,
    promptTokens: uncachedTokens,
    elapsedMs: prefillWork(uncachedTokens, 0) / tokensPerMs,
    alone: false,
  });
  const teach = (meter: RateMeter, tokensPerMs: number, times: number): void => {
    for (let time = 0; time < times; time += 1) meter.prefilled(sample(tokensPerMs));
  };

  test.each([1, 5, 40, 200])("finds %d tokens a ms from the default", (tokensPerMs) => {
    const fleet = new RateMeter();
    teach(fleet, tokensPerMs, 50);
    expect(fleet.prefillTokensPerMs / tokensPerMs).toBeGreaterThan(0.9);
    expect(fleet.prefillTokensPerMs / tokensPerMs).toBeLessThan(1.1);
  });

  test("a hung request does not make a replica slow", () => {
    const fleet = new RateMeter();
    teach(fleet, 40, 50);
    fleet.prefilled({ ...sample(40), elapsedMs: 3_600_000 });
    expect(fleet.prefillTokensPerMs).toBeGreaterThan(35);
  });

  test("a new replica is as fast as its fleet, and one that is slower shows", () => {
    const fleet = new RateMeter();
    const [fast, slow] = [new RateMeter(fleet), new RateMeter(fleet)];
    for (let round = 0; round < 200; round += 1) {
      fast.prefilled(sample(40));
      slow.prefilled(sample(10));
    }
    const fresh = new RateMeter(fleet);
    expect(fresh.prefillTokensPerMs).toBeCloseTo(fleet.prefillTokensPerMs);
    expect(slow.prefillTokensPerMs * 1.5).toBeLessThan(fast.prefillTokensPerMs);
  });

  test("the base time comes from requests without work, the time of an answer from its first byte and its end", () => {
    const meter = new RateMeter();
    for (let time = 0; time < 100; time += 1) {
      meter.prefilled({ uncachedTokens: 1, promptTokens: 9_000, elapsedMs: 80, alone: true });
      meter.answered(2_000);
    }
    expect(meter.baseMs).toBeCloseTo(80, 0);
    expect(meter.answerMs).toBeCloseTo(2_000, 0);
  });
});

describe("router", () => {
  const request: RouteRequest = {
    promptTokens: 2_600,
    prefix: Uint32Array.from({ length: 10 }, (_, block) => block + 1),
    sessionKey: null,
    adapter: null,
  };
  function routerOf(count: number): Router {
    const router = new Router({ policy: policies.predicted_cost });
    for (let index = 0; index < count; index += 1) router.add(`replica-${index}`);
    return router;
  }

  test("a prompt comes back to where it was", () => {
    const router = routerOf(5);
    const first = router.route(request, 0);
    first?.firstByte(100);
    first?.end(200);
    const second = router.route(request, 300);
    expect(second?.replica).toBe(first?.replica);
    expect(second?.cachedTokens).toBe(2_560);
  });

  test("not to one that has restarted, is excluded or is not ready", () => {
    const router = routerOf(3);
    const home = router.route(request, 0)?.replica ?? "";
    expect(router.route(request, 0, { exclude: new Set([home]) })?.replica).not.toBe(home);
    const account = router.account(home);
    if (account !== undefined) account.ready = false;
    expect(router.route(request, 0)?.replica).not.toBe(home);
    for (let index = 0; index < 3; index += 1) router.forget(`replica-${index}`);
    expect(router.route(request, 0)?.cachedTokens).toBe(0);
  });

  test("what ended before its first byte leaves no trace", () => {
    const router = routerOf(1);
    router.route(request, 0)?.end(10);
    expect(router.account("replica-0")?.inFlight).toBe(0);
    expect(router.route(request, 20)?.cachedTokens).toBe(0);
  });

  test("replicas come and go; none left means no route", () => {
    const router = routerOf(2);
    const route = router.route(request, 0);
    router.remove("replica-0");
    router.remove("replica-1");
    expect(router.route(request, 1)).toBeNull();
    route?.end(2);
    router.add("replica-2");
    expect(router.route(request, 3)).toMatchObject({ replica: "replica-2", cachedTokens: 0 });
  });

  test("explains when asked to", () => {
    const route = routerOf(2).route(request, 0, { explain: true });
    expect(route?.explanation?.map(({ id }) => id)).toEqual(["replica-0", "replica-1"]);
    expect(Object.keys(route?.explanation?.[0]?.parts ?? {})).toEqual([
      "base",
      "queue",
      "prefill",
      "social",
      "streams",
      "decode",
      "memory",
    ]);
  });
});
