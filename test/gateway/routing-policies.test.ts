import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { policies, policyNames, type PolicyName } from "../../runtime/gateway/routing/index.ts";
import { loadBound } from "../../runtime/gateway/routing/policies/chwbl.ts";
import { choose, type ReplicaState } from "../../runtime/gateway/routing/policy.ts";
import { choiceOf, type Scene } from "./routing-support.ts";

function chosen(name: PolicyName, scene: Scene): number | undefined {
  return choose(policies[name], choiceOf(scene))?.index;
}

const twoThousand = { pendingTokens: 2_000, prefilling: 1, inFlight: 1 };

/** Policy, what the scene is, the scene, who must be chosen. */
const table: readonly (readonly [PolicyName, string, Scene, number])[] = [
  ["round_robin", "the first turn", { replicas: [{}, {}, {}] }, 0],
  ["round_robin", "turns go round", { replicas: [{}, {}, {}], context: { sequence: 5 } }, 2],
  ["round_robin", "who is not ready is passed by", { replicas: [{ ready: false }, {}, {}] }, 1],
  ["round_robin", "load does not matter", { replicas: [{ inFlight: 99 }, {}] }, 0],
  ["least_load", "the fewest requests", { replicas: [{ inFlight: 2 }, { inFlight: 1 }, { inFlight: 3 }] }, 1],
  ["least_load", "others' requests count", { replicas: [{ inFlight: 1, foreignWaiting: 5 }, { inFlight: 2 }] }, 1],
  ["least_load", "equals take turns", { replicas: [{}, {}, {}], context: { sequence: 2 } }, 2],
  [
    "least_pending_tokens",
    "one long prompt outweighs three short ones",
    {
      replicas: [
        { pendingTokens: 9_000, inFlight: 1 },
        { pendingTokens: 600, inFlight: 3 },
      ],
    },
    1,
  ],
  [
    "least_pending_tokens",
    "a foreign request counts as a mean one",
    { replicas: [{ foreignWaiting: 1 }, { pendingTokens: 900 }], context: { meanWork: 1_000 } },
    1,
  ],
  ["power_of_two", "the better of two", { replicas: [{ inFlight: 2 }, { inFlight: 1 }, {}] }, 1],
  ["power_of_two", "other draws", { replicas: [{}, {}, { inFlight: 9 }], context: { random: [0.9, 0.6] } }, 1],
  ["power_of_two", "one replica", { replicas: [{ inFlight: 7 }], context: { random: [0.99, 0.99] } }, 0],
  ["session", "without a key: least load", { replicas: [{ inFlight: 2 }, { inFlight: 1 }] }, 1],
  ["weighted", "the shortest queue", { replicas: [{ prefilling: 4 }, { prefilling: 1 }] }, 1],
  ["weighted", "the emptiest cache", { replicas: [{ kvUsage: 0.9 }, { kvUsage: 0.2 }] }, 1],
  ["weighted", "a cached prompt outweighs a queue", { replicas: [{ prefilling: 1 }, {}], cached: [2_047, 0] }, 0],
  ["weighted", "half a prompt does not", { replicas: [{ prefilling: 1 }, {}], cached: [1_024, 0] }, 1],
  [
    "weighted",
    "the adapter's home",
    { replicas: [{}, { adapters: new Set(["sql"]) }], request: { adapter: "sql" }, context: { sequence: 0 } },
    1,
  ],
  ["sticky_until_saturated", "home", { replicas: [twoThousand, {}], cached: [1_500, 0] }, 0],
  ["sticky_until_saturated", "a shared system prompt is no home", { replicas: [twoThousand, {}], cached: [256, 0] }, 1],
  [
    "sticky_until_saturated",
    "not where the queue is longer than 5 s",
    { replicas: [{ pendingTokens: 110_000 }, twoThousand], cached: [1_500, 0] },
    1,
  ],
  ["predicted_cost", "the shortest queue, all else equal", { replicas: [twoThousand, {}] }, 1],
  ["predicted_cost", "cached tokens outweigh a short queue", { replicas: [twoThousand, {}], cached: [1_500, 0] }, 0],
  [
    "predicted_cost",
    "they do not outweigh a long one",
    { replicas: [{ ...twoThousand, pendingTokens: 20_000 }, {}], cached: [1_500, 0] },
    1,
  ],
  [
    "predicted_cost",
    "but do where displaced prefixes are used again and again",
    { replicas: [{ ...twoThousand, pendingTokens: 12_000 }, {}], cached: [1_500, 0], context: { reuse: 0.9 } },
    0,
  ],
  [
    "predicted_cost",
    "and not while there is room in the caches",
    {
      replicas: [{ ...twoThousand, pendingTokens: 12_000 }, { cacheFill: 0 }],
      cached: [1_500, 0],
      context: { reuse: 0.9 },
    },
    1,
  ],
  ["predicted_cost", "the faster GPU", { replicas: [{ prefillTokensPerMs: 10 }, { prefillTokensPerMs: 20 }] }, 1],
  ["predicted_cost", "the one with fewer streams to hold up", { replicas: [{ inFlight: 9 }, { inFlight: 8 }] }, 1],
  ["predicted_cost", "the emptier KV cache", { replicas: [{ kvUsage: 0.95 }, { kvUsage: 0.5 }] }, 1],
  [
    "predicted_cost",
    "the own books where the engine does not say",
    { replicas: [{ kvUsage: null, contextTokens: 390_000 }, { kvUsage: 0.5 }] },
    1,
  ],
];

test.each(table)("%s: %s", (...[name, , scene, index]) => {
  expect(chosen(name, scene)).toBe(index);
});

describe("consistent hashing", () => {
  const names = Array.from({ length: 10 }, (_, index) => ({ id: `gpu-${index}` }));
  const homeOf = (policy: PolicyName, key: number, replicas: readonly Partial<ReplicaState>[]): string | undefined => {
    const scene = { replicas, request: { sessionKey: `chat ${key}`, prefix: Uint32Array.of(key) } };
    const index = chosen(policy, scene);
    return index === undefined ? undefined : replicas[index]?.id;
  };

  test.each(["session", "chwbl"] as const)("%s: a replica that leaves moves only its own keys", (policy) => {
    const keys = Array.from({ length: 500 }, (_, key) => key * 7_919);
    const rest = names.slice(1);
    const moved = keys.filter((key) => homeOf(policy, key, names) !== homeOf(policy, key, rest));
    expect(moved.every((key) => homeOf(policy, key, names) === "gpu-0")).toBe(true);
    expect(moved.length).toBeGreaterThan(20);
    expect(moved.length).toBeLessThan(100);
  });

  test("chwbl: a hot key spreads, and no replica ever has more than the bound", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.array(fc.nat(3), { maxLength: 200 }), (count, keys) => {
        const loads = Array.from({ length: count }, () => 0);
        for (const [done, key] of keys.entries()) {
          const replicas = loads.map((inFlight) => ({ inFlight }));
          const index = chosen("chwbl", { replicas, request: { prefix: Uint32Array.of(key) } }) ?? -1;
          loads[index] = (loads[index] ?? 0) + 1;
          expect(loads[index]).toBeLessThanOrEqual(loadBound(done, count));
        }
      }),
    );
  });
});

const anyReplica = fc.record({
  ready: fc.boolean(),
  inFlight: fc.nat(300),
  prefilling: fc.nat(50),
  pendingTokens: fc.nat(500_000),
  contextTokens: fc.nat(500_000),
  foreignWaiting: fc.nat(20),
  kvUsage: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
  prefillTokensPerMs: fc.double({ min: 0.1, max: 400, noNaN: true }),
  cacheFill: fc.double({ min: 0, max: 1, noNaN: true }),
});
const fraction = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const anyScene = fc.record({
  replicas: fc.array(anyReplica, { maxLength: 20 }),
  request: fc.record({
    promptTokens: fc.integer({ min: 1, max: 130_000 }),
    sessionKey: fc.option(fc.string()),
    adapter: fc.option(fc.string()),
    prefix: fc.uint32Array({ maxLength: 12 }),
  }),
  context: fc.record({ sequence: fc.nat(), random: fc.tuple(fraction, fraction), reuse: fraction }),
});

describe.each(policyNames)("%s", (name) => {
  test("never chooses a replica that is not ready, and always one that is", () => {
    fc.assert(
      fc.property(anyScene, (scene) => {
        const index = chosen(name, scene);
        const someone = scene.replicas.some(({ ready }) => ready);
        expect(index === undefined ? undefined : scene.replicas[index]?.ready).toBe(someone ? true : undefined);
      }),
    );
  });

  test("explains: parts add up to the score, and the lowest score of the ready ones wins", () => {
    fc.assert(
      fc.property(anyScene, (scene) => {
        const decision = choose(policies[name], { ...choiceOf(scene), explain: true });
        const scores = decision?.explanation ?? [];
        fc.pre(decision !== null);
        for (const { score, parts } of scores) {
          expect(Number.isFinite(score)).toBe(true);
          expect(Object.values(parts).reduce((sum, part) => sum + part, 0)).toBe(score);
        }
        const lowest = Math.min(...scores.filter(({ ready }) => ready).map(({ score }) => score));
        expect(scores[decision?.index ?? -1]?.score).toBe(lowest);
      }),
    );
  });

  test("is a pure function", () => {
    fc.assert(
      fc.property(anyScene, (scene) => {
        const choice = choiceOf(scene);
        const untouched = structuredClone(choice);
        expect(choose(policies[name], choice)).toEqual(choose(policies[name], untouched));
        expect(choice).toEqual(untouched);
      }),
    );
  });
});
