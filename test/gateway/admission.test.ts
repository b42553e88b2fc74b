import { describe, expect, it, onTestFinished } from "vitest";
import { tenant, type Principal, type TenantLimits } from "../../runtime/contracts/tenant.ts";
import { Admission, type AdmissionOptions } from "../../runtime/gateway/admission/admission.ts";
import { nanoUsd, type Estimate } from "../../runtime/gateway/admission/charges.ts";
import { duration } from "../../runtime/gateway/admission/headers.ts";
import type { Meters } from "../../runtime/gateway/stores/hot.ts";
import { MemoryHotStore } from "../../runtime/gateway/stores/hot-memory.ts";

const never = new AbortController().signal;
const estimate: Estimate = { model: "m", promptTokens: 10, maxTokens: 20, bytes: 100 };
/** Nothing drains while a test runs. */
const frozen = { elapsedMs: () => 0, wallMs: () => Date.now() };
/** 1 USD for 1,000 tokens of either kind. */
const price = { promptUsd: 1_000, completionUsd: 1_000 };

function principal(limits: Partial<TenantLimits>, about: object = {}): Principal {
  return { tenant: tenant.parse({ id: "acme", limits, ...about }), credentialId: "key-1", isAdmin: false };
}

function admission(about: Partial<AdmissionOptions> = {}): Admission {
  const made = new Admission({
    meters: new MemoryHotStore({ clock: frozen }),
    capacity: () => Infinity,
    queue: {
      maxRequests: 100,
      maxBytes: 1e6,
      maxRequestsPerTenant: 50,
      maxBytesPerTenant: 1e6,
      maxWaitMs: 10_000,
    },
    defaultMaxTokens: 100,
    onError: (error) => {
      throw error;
    },
    ...about,
  });
  onTestFinished(() => made[Symbol.asyncDispose]());
  return made;
}

describe("a tenant's limits", () => {
  it("reserve the worst case, and are settled with what was used", async () => {
    const gate = admission();
    const acme = principal({ requestsPerMinute: 60, tokensPerMinute: 100 });
    const first = await gate.admit(acme, estimate, never);
    expect(first.headers).toEqual({
      "x-ratelimit-limit-requests": "60",
      "x-ratelimit-remaining-requests": "59",
      "x-ratelimit-reset-requests": "1s",
      "x-ratelimit-limit-tokens": "100",
      "x-ratelimit-remaining-tokens": "70",
      "x-ratelimit-reset-tokens": "18s",
    });
    await first.settle({ promptTokens: 8, completionTokens: 2 });
    const second = await gate.admit(acme, estimate, never);
    expect(second.headers["x-ratelimit-remaining-tokens"]).toBe("60");
    expect(second.headers["x-ratelimit-remaining-requests"]).toBe("58");
    expect(gate.open).toBe(1);
    second[Symbol.dispose]();
    expect(gate.open).toBe(0);
    using third = await gate.admit(acme, estimate, never);
    expect(third.headers["x-ratelimit-remaining-requests"]).toBe("58");
  });

  it("refuse with the time after which they do not", async () => {
    const gate = admission();
    const acme = principal({ tokensPerMinute: 60 });
    using _first = await gate.admit(acme, { ...estimate, maxTokens: 50 }, never);
    await expect(gate.admit(acme, { ...estimate, maxTokens: 20 }, never)).rejects.toMatchObject({
      code: "rate_limited",
      retryAfterSeconds: 30,
      message: expect.stringContaining("60 tokens per minute"),
      headers: { "x-ratelimit-remaining-tokens": "0" },
    });
  });

  it("refuse for good what can never fit, but not for a bound that the client did not set", async () => {
    const gate = admission();
    const acme = principal({ tokensPerMinute: 50 });
    await expect(gate.admit(acme, { ...estimate, maxTokens: 41 }, never)).rejects.toMatchObject({
      code: "rate_limited",
      retryAfterSeconds: undefined,
      message: expect.stringContaining("max_tokens"),
    });
    using admitted = await gate.admit(acme, { ...estimate, maxTokens: undefined }, never);
    expect(admitted.headers["x-ratelimit-remaining-tokens"]).toBe("0");
  });

  it("hold a budget to the cent, and name the end of its period", async () => {
    const gate = admission();
    const acme = principal({ budget: { usd: 0.05, period: "day" } });
    const priced = { ...estimate, price };
    using first = await gate.admit(acme, priced, never);
    await expect(gate.admit(acme, priced, never)).rejects.toMatchObject({ code: "budget_exceeded" });
    await first.settle({ promptTokens: 10, completionTokens: 10 });
    using _second = await gate.admit(acme, priced, never);
    const error = await gate.admit(acme, { ...priced, promptTokens: 1 }, never).catch((thrown: unknown) => thrown);
    const midnight = new Date().setUTCHours(24, 0, 0, 0);
    expect(error).toMatchObject({ code: "budget_exceeded", message: expect.stringContaining("0.05 USD per day") });
    const { retryAfterSeconds } = error as { retryAfterSeconds: number }; // matched just now
    expect(Math.abs(retryAfterSeconds - (midnight - Date.now()) / 1_000)).toBeLessThan(30);
    // What costs nothing may go on.
    using _free = await gate.admit(acme, estimate, never);
  });

  it("bound what runs at once", async () => {
    const gate = admission();
    const acme = principal({ concurrentRequests: 2 });
    using first = await gate.admit(acme, estimate, never);
    using _second = await gate.admit(acme, estimate, never);
    await expect(gate.admit(acme, estimate, never)).rejects.toMatchObject({
      code: "rate_limited",
      retryAfterSeconds: 3,
    });
    await first.settle({ promptTokens: 1, completionTokens: 1 });
    using _third = await gate.admit(acme, estimate, never);
  });

  it("are not asked for a tenant that has none", async () => {
    const broken = { reserve: () => Promise.reject(new Error("asked")) } as unknown as Meters; // is never called
    using admitted = await admission({ meters: broken }).admit(principal({}), estimate, never);
    expect(admitted.headers).toEqual({});
  });

  it("count an ending once, whichever comes first", async () => {
    const store = new MemoryHotStore();
    const settled: (readonly number[])[] = [];
    const meters: Meters = {
      reserve: (...about) => store.reserve(...about),
      renew: (...about) => store.renew(...about),
      settle: async (_, amounts) => void settled.push(amounts),
    };
    const gate = admission({ meters });
    const acme = principal({ requestsPerMinute: 10, tokensPerMinute: 1_000, budget: { usd: 1, period: "day" } });
    {
      using admitted = await gate.admit(acme, { ...estimate, price }, never);
      await admitted.settle({ promptTokens: 5, completionTokens: 6 });
      await admitted.settle({ promptTokens: 50, completionTokens: 60 });
    }
    {
      using _refunded = await gate.admit(acme, estimate, never);
    }
    expect(settled).toEqual([[1, 11, 11_000_000], []]);
  });

  it("are given back when the client leaves or the queue refuses", async () => {
    const gate = admission({ capacity: () => 1 });
    const acme = principal({ requestsPerMinute: 100 });
    const first = await gate.admit(acme, estimate, never);
    const controller = new AbortController();
    const waits = gate.admit(acme, estimate, controller.signal);
    await expect.poll(() => gate.queue.waiting.requests).toBe(1);
    controller.abort();
    await expect(waits).rejects.toMatchObject({ code: "client_closed" });
    await expect(gate.admit(acme, estimate, controller.signal)).rejects.toMatchObject({ code: "client_closed" });
    await expect(gate.admit(acme, { ...estimate, bytes: 2e6 }, never)).rejects.toMatchObject({ code: "queue_full" });
    await expect(gate.admit(acme, { ...estimate, deadlineMs: 10 }, never)).rejects.toMatchObject({
      code: "overloaded",
    });
    expect(gate.open).toBe(1);
    first[Symbol.dispose]();
    using next = await gate.admit(acme, estimate, never);
    expect(next.headers["x-ratelimit-remaining-requests"]).toBe("99");
  });

  it("are not asked while the queue is full", async () => {
    const store = new MemoryHotStore({ clock: frozen });
    let asked = 0;
    const meters: Meters = {
      reserve: (...about) => {
        asked += 1;
        return store.reserve(...about);
      },
      renew: (...about) => store.renew(...about),
      settle: (...about) => store.settle(...about),
    };
    const gate = admission({ meters, capacity: () => 0 });
    const large = { ...estimate, bytes: 2e6 };
    await expect(gate.admit(principal({ requestsPerMinute: 9 }), large, never)).rejects.toMatchObject({
      code: "queue_full",
    });
    expect(asked).toBe(0);
  });

  it("are held for as long as a request runs", async () => {
    const gate = admission({ reservationTtlMs: 90, meters: new MemoryHotStore() });
    const acme = principal({ concurrentRequests: 1 });
    using _running = await gate.admit(acme, estimate, never);
    // Several lives of a reservation that nobody renews.
    await new Promise((resolve) => setTimeout(resolve, 400));
    await expect(gate.admit(acme, estimate, never)).rejects.toMatchObject({ code: "rate_limited" });
  });

  it("report a store that fails to settle, and wait for it at the end", async () => {
    const errors: unknown[] = [];
    const store = new MemoryHotStore();
    const gate = admission({
      meters: {
        reserve: (...about) => store.reserve(...about),
        renew: (...about) => store.renew(...about),
        settle: () => Promise.reject(new Error("gone")),
      },
      onError: (error) => errors.push(error),
    });
    const admitted = await gate.admit(principal({ requestsPerMinute: 10 }), estimate, never);
    void admitted.settle({ promptTokens: 1, completionTokens: 1 });
    await gate[Symbol.asyncDispose]();
    expect(errors).toMatchObject([{ message: "gone" }]);
  });
});

it.each([
  [0, "0ms"],
  [0.2, "1ms"],
  [999, "999ms"],
  [1_000, "1s"],
  [1_450, "1.5s"],
  [59_950, "1m0s"],
  [360_000, "6m0s"],
  [3_723_000, "1h2m3s"],
])("%d ms are written as OpenAI does: %s", (ms, text) => {
  expect(duration(ms)).toBe(text);
});

it("costs are whole nano-USD, never rounded down", () => {
  expect(nanoUsd({ promptUsd: 0.05, completionUsd: 0.4 }, { promptTokens: 1, completionTokens: 1 })).toBe(450);
  expect(nanoUsd({ promptUsd: 0.0001, completionUsd: 0 }, { promptTokens: 1, completionTokens: 0 })).toBe(1);
});
