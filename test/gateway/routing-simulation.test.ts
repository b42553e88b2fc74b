import { describe, expect, test } from "vitest";
import { policies } from "../../runtime/gateway/routing/index.ts";
import { prefixHashes } from "../../runtime/gateway/routing/prefix-hash.ts";
import type { Policy } from "../../runtime/gateway/routing/policy.ts";
import { BlockCache } from "../bench/routing-cache.ts";
import { FastEngine } from "../bench/routing-engine.ts";
import { promptBody, readPrompt } from "../bench/routing-prompt.ts";
import { goodput, measure } from "../bench/routing-report.ts";
import { simulation } from "../bench/routing-simulation.ts";
import { generateConversations, generateSharedPrefixes, traceBlockTokens } from "../bench/routing-trace.ts";
import { BlockPool } from "../fakes/engine/blocks.ts";
import { costProfiles, overhead } from "../fakes/engine/cost.ts";
import { Batch } from "../fakes/engine/scheduler.ts";

const profile = costProfiles["8b-h100-tp1"];
const driver = simulation({ profiles: Array.from({ length: 8 }, () => profile), heartbeatMs: 1_000 });

/** Small enough that requests queue, share prefixes, and have to be preempted. */
const scene = {
  kvTokens: 40_960,
  requests: Array.from({ length: 60 }, (_, index) => ({
    atMs: index * 40,
    promptTokens: 2_100 + (index % 5) * 1_024,
    outputTokens: 1 + ((index * 37) % 200),
    family: index % 4,
  })),
};

interface Times {
  first: number;
  end: number;
}

/** The simulator's own batch, driven step by step. */
function byBatch(): Times[] {
  const pool = new BlockPool(scene.kvTokens / 16, true);
  const batch = new Batch(profile, { maxNumSeqs: 256, maxNumBatchedTokens: 8_192, blockTokens: 16 }, pool);
  const times = scene.requests.map(() => ({ first: 0, end: 0 }));
  let nowMs = 0;
  let arrived = 0;
  const arrive = (): void => {
    for (; arrived < scene.requests.length; arrived += 1) {
      const request = scene.requests[arrived];
      const time = times[arrived];
      if (request === undefined || time === undefined || request.atMs + overhead.requestMs > nowMs) return;
      batch.add({
        prompt: String(request.family).repeat(4 * request.promptTokens),
        salt: "",
        outputTokens: request.outputTokens,
        lastReason: "length",
        tokenText: () => `out${arrived % 10}`,
        onToken: (produced) => (time.first = produced === 1 ? nowMs : time.first),
        onEnd: () => (time.end = nowMs),
      });
    }
  };
  for (;;) {
    arrive();
    const step = batch.plan();
    if (step === null) {
      const next = scene.requests[arrived];
      if (next === undefined) return times;
      nowMs = next.atMs + overhead.requestMs;
    } else {
      nowMs += step.ms;
      batch.complete(step);
    }
  }
}

function byFastEngine(): Times[] {
  const engine = new FastEngine({ ...profile, kvTokens: scene.kvTokens });
  const times = scene.requests.map(({ atMs, promptTokens, outputTokens, family }) => {
    const time: Times = { first: 0, end: 0 };
    const blocks = Array.from({ length: Math.floor(promptTokens / traceBlockTokens) }, (_, at) => family * 1_000 + at);
    engine.submit(
      {
        promptTokens,
        outputTokens,
        blocks,
        onStart: () => undefined,
        onFirstToken: (nowMs) => (time.first = nowMs),
        onEnd: (nowMs) => (time.end = nowMs),
      },
      atMs,
    );
    return time;
  });
  engine.advance(Infinity);
  return times;
}

test("the fast engine keeps the time of the simulator's batch", () => {
  const mean = (times: readonly Times[], of: (time: Times) => number): number =>
    times.reduce((sum, time) => sum + of(time), 0) / times.length;
  const [fast, slow] = [byFastEngine(), byBatch()];
  const arrivedMs = mean(
    scene.requests.map(({ atMs }) => ({ first: atMs, end: atMs })),
    ({ end }) => end,
  );
  for (const of of [({ first }: Times) => first - arrivedMs, ({ end }: Times) => end - arrivedMs]) {
    expect(mean(fast, of) / mean(slow, of)).toBeGreaterThan(0.9);
    expect(mean(fast, of) / mean(slow, of)).toBeLessThan(1.1);
  }
});

test("the fast engine takes the same time however often one looks", () => {
  const work = { promptTokens: 3_000, outputTokens: 400, blocks: [1, 2, 3, 4, 5], onStart: () => undefined };
  const ends = [1, 50, Infinity].map((stepMs) => {
    const engine = new FastEngine(profile);
    let end = 0;
    for (const atMs of [0, 100, 1_000]) {
      engine.submit({ ...work, onFirstToken: () => undefined, onEnd: (nowMs) => (end = nowMs) }, atMs);
    }
    for (let nowMs = 0; nowMs < 20_000; nowMs += stepMs) engine.advance(nowMs);
    engine.advance(Infinity);
    return end;
  });
  expect(ends[0]).toBeCloseTo(ends[2] ?? 0, 3);
  expect(ends[1]).toBeCloseTo(ends[2] ?? 0, 3);
});

test("the cache of an engine never holds more than it has, and forgets the ends of old prompts first", () => {
  const cache = new BlockCache(2_048, 512);
  expect(cache.allocate(2_049)).toBe(false);
  expect(cache.allocate(1_536)).toBe(true);
  for (const block of [1, 2, 3]) expect(cache.name(block)).toBe(true);
  cache.release([1, 2, 3], 0);
  expect(cache.available).toBe(2_048);
  expect(cache.allocate(1_024)).toBe(true);
  expect(cache.take([1, 2, 3], 9)).toEqual([1, 2]);
  expect(cache.available).toBe(0);
  cache.release([1, 2], 1_024);
  expect(cache.available).toBe(2_048);
});

test("prompts of the bench begin alike as far as their blocks are the same, for the gateway and for engines", () => {
  const request = { atMs: 0, promptTokens: 2_400, outputTokens: 7, session: "" };
  const bodies = [
    promptBody({ ...request, blocks: [0, 71, 72, 73] }, 1),
    promptBody({ ...request, blocks: [0, 71, 9, 73] }, 2),
  ];
  expect(readPrompt(bodies[0] ?? "")).toEqual({ promptTokens: 2_400, outputTokens: 7, blocks: [0, 71, 72, 73] });
  const [first, second] = bodies.map((body) => prefixHashes(Buffer.from(body.slice(body.indexOf('"messages"')))));
  const alike = first?.findIndex((hash, at) => hash !== second?.[at]);
  // A block of the trace is two of the gateway's, and what stands in front of the text shifts them.
  expect(alike).toBe(2 * 2);
});

describe("the bench", () => {
  const generatePrefixes = (seed: number, seconds: number) => generateSharedPrefixes(seed, { seconds });
  const trace = generateConversations(1, 120);

  test("generates the same in each run, like the trace that it was fitted to", () => {
    expect(generateConversations(1, 120)).toEqual(trace);
    const whole = generateConversations(3);
    const mean = whole.reduce((sum, { promptTokens }) => sum + promptTokens, 0) / whole.length;
    expect(whole.length / 600).toBeGreaterThan(2.5);
    expect(whole.length / 600).toBeLessThan(4.5);
    expect(mean).toBeGreaterThan(9_000);
    expect(mean).toBeLessThan(16_000);
  });

  test("every request ends, in each run at the same time", async () => {
    const [first, second] = [
      await driver.run(trace, policies.power_of_two, { speed: 3 }),
      await driver.run(trace, policies.power_of_two, { speed: 3 }),
    ];
    expect(first).toHaveLength(trace.length);
    expect(second).toEqual(first);
    expect(first.every(({ ttftMs, tokenMs }) => ttftMs > 0 && tokenMs >= 0)).toBe(true);
  });

  test("shared prefixes: the predicted cost finds them and takes more than round robin", async () => {
    const search = { low: 0.5, high: 8, precision: 1.3 };
    const workload = { name: "ladder", traces: [generateSharedPrefixes(1, { seconds: 200 })], speed: 3, search };
    const [predicted, blind] = [
      await measure(driver, workload, policies.predicted_cost),
      await measure(driver, workload, policies.round_robin),
    ];
    expect(predicted.hitShare).toBeGreaterThan(0.7);
    expect(predicted.hitShare).toBeGreaterThan(1.5 * blind.hitShare);
    expect(predicted.capacity).toBeGreaterThan(blind.capacity);
  });

  test.each([
    ["conversations", generateConversations, { kvTokens: 442_000, seconds: 600, speed: 3 }],
    ["shared prefixes", generatePrefixes, { kvTokens: 308_000, seconds: 800, speed: 3.8 }],
  ] as const)(
    "%s: near its highest speed no other policy keeps more inside the goal",
    async (_, generate, { kvTokens, seconds, speed }) => {
      const fleet = simulation({
        profiles: Array.from({ length: 8 }, () => ({ ...profile, kvTokens })),
        heartbeatMs: 1_000,
      });
      const good = async (policy: Policy): Promise<number> => {
        const shares: number[] = [];
        for (const seed of [11, 12]) shares.push(goodput(await fleet.run(generate(seed, seconds), policy, { speed })));
        return shares.reduce((sum, share) => sum + share, 0) / shares.length;
      };
      const predicted = await good(policies.predicted_cost);
      expect(predicted).toBeGreaterThan(0.93);
      for (const rival of [policies.weighted, policies.chwbl]) {
        expect(predicted, rival.name).toBeGreaterThanOrEqual(await good(rival));
      }
    },
  );
});
