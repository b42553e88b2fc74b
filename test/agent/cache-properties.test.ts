import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ModelCache, type CachedModel } from "../../runtime/agent/cache/cache.ts";
import { toPenstockError } from "../../runtime/contracts/errors.ts";
import { CacheClock, maxGapMs } from "../../runtime/agent/cache/clock.ts";
import { isKey, keyOf, type CachedSpec } from "../../runtime/agent/cache/key.ts";
import { temporaryFolder } from "../support/folders.ts";
import { block, idsIn, Models } from "./cache-models.ts";

const budgetBlocks = 12;
const sizes = [1, 2, 3, 4, 5, 7, 13];

interface Expected {
  readonly blocks: number;
  lastUse: number;
}

/** What a step did, and what is there after it. */
interface Observation {
  readonly did: string;
  readonly ids: readonly string[];
  readonly bytes: number;
  readonly onDisk: number;
  readonly isOverBudget: boolean;
}

type Step = readonly [
  kind: "ensure" | "hold" | "release" | "pin" | "unpin" | "remove" | "sweep" | "restart",
  i: number,
];

const step: fc.Arbitrary<Step> = fc.tuple(
  fc.constantFrom("ensure", "ensure", "hold", "release", "pin", "unpin", "remove", "sweep", "restart"),
  fc.nat(sizes.length - 1),
);

/** A cache, and what a simple model of it says must be in there. */
class Check {
  readonly #models: Models;
  readonly #specs: readonly CachedSpec[];
  readonly #present = new Map<number, Expected>();
  readonly #pinned = new Set<number>();
  readonly #held: { readonly i: number; readonly model: CachedModel; readonly by: ModelCache }[] = [];
  #cache: ModelCache;
  #uses = 0;

  constructor(models: Models, { specs, cache }: { specs: readonly CachedSpec[]; cache: ModelCache }) {
    this.#models = models;
    this.#specs = specs;
    this.#cache = cache;
  }

  /** Does a step. Answers what the cache says and has afterwards, and what it should. */
  async run([kind, i]: Step): Promise<{ actual: Observation; expected: Observation }> {
    const [did, should] = await this.#do(kind, i);
    const bytes = this.#blocks() * block;
    const ids = [...this.#present.keys()].map((one) => `m${one}`).toSorted();
    return {
      actual: {
        did,
        ids: idsIn(this.#cache),
        bytes: this.#cache.sizeBytes,
        onDisk: await this.#models.bytesOnDisk(),
        isOverBudget: this.#cache.sizeBytes > budgetBlocks * block,
      },
      expected: { did: should, ids, bytes, onDisk: bytes, isOverBudget: false },
    };
  }

  async #do(kind: Step[0], i: number): Promise<readonly [did: string, should: string]> {
    switch (kind) {
      case "ensure":
      case "hold":
        return this.#ensure(i, kind === "hold");
      case "release":
        this.#held.shift()?.model.release();
        break;
      case "pin":
        await this.#cache.pin(this.#spec(i));
        this.#pinned.add(i);
        break;
      case "unpin":
        await this.#cache.unpin(this.#spec(i));
        this.#pinned.delete(i);
        break;
      case "remove":
        return this.#remove(i);
      case "sweep":
        await this.#cache.sweep();
        // What this cache gave out is used until now, and keeps its order.
        for (const [one] of this.#byUse()) {
          if (this.#held.some((held) => held.i === one && held.by === this.#cache)) this.#use(one);
        }
        break;
      case "restart":
        this.#cache = await openCache(this.#models);
        break;
    }
    return ["done", "done"];
  }

  async #ensure(i: number, keep: boolean): Promise<readonly [did: string, should: string]> {
    const wasPresent = this.#present.has(i);
    const should = this.#makeRoom(i) ? `from cache: ${wasPresent}` : "cache_full";
    try {
      const model = await this.#cache.ensure(this.#spec(i));
      if (!wasPresent) this.#present.set(i, { blocks: sizes[i] ?? 0, lastUse: 0 });
      this.#use(i);
      if (keep) this.#held.push({ i, model, by: this.#cache });
      else model.release();
      return [`from cache: ${model.fromCache}`, should];
    } catch (thrown) {
      return [toPenstockError(thrown).code, should];
    }
  }

  async #remove(i: number): Promise<readonly [did: string, should: string]> {
    const should = this.#isHeld(i) ? "model_in_use" : "removed";
    try {
      await this.#cache.remove(this.#spec(i));
      this.#present.delete(i);
      return ["removed", should];
    } catch (thrown) {
      return [toPenstockError(thrown).code, should];
    }
  }

  /** Evicts from the model of the cache what the cache must evict. */
  #makeRoom(i: number): boolean {
    if (this.#present.has(i)) return true;
    const free = this.#byUse().filter(([one]) => !this.#pinned.has(one) && !this.#isHeld(one));
    let missing = this.#blocks() + (sizes[i] ?? 0) - budgetBlocks;
    if (free.reduce((sum, [, { blocks }]) => sum + blocks, 0) < missing) return false;
    for (const [one, { blocks }] of free) {
      if (missing <= 0) break;
      this.#present.delete(one);
      missing -= blocks;
    }
    return true;
  }

  #byUse(): [i: number, entry: Expected][] {
    return [...this.#present].toSorted(([, a], [, b]) => a.lastUse - b.lastUse);
  }

  #use(i: number): void {
    const entry = this.#present.get(i);
    this.#uses += 1;
    if (entry !== undefined) entry.lastUse = this.#uses;
  }

  #isHeld(i: number): boolean {
    return this.#held.some((held) => held.i === i);
  }

  #blocks(): number {
    return [...this.#present.values()].reduce((sum, { blocks }) => sum + blocks, 0);
  }

  #spec(i: number): CachedSpec {
    const spec = this.#specs[i];
    if (spec === undefined) throw new Error("no such model");
    return spec;
  }
}

// A clock that stands still: order must not need it.
const openCache = (models: Models) =>
  ModelCache.open(
    models.root,
    {},
    {
      limits: { connections: 1, rangeBytes: 16 * block },
      budgetBytes: budgetBlocks * block,
      reserveFreeBytes: 0,
      now: () => 1_000_000,
      sweepEveryMs: null,
    },
  );

describe("the cache", () => {
  it("holds just what a simple model of it holds, whatever is asked of it", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        await using models = await Models.make();
        const specs = await Promise.all(sizes.map((blocks, i) => models.put(`m${i}`, blocks)));
        const check = new Check(models, { specs, cache: await openCache(models) });
        for (const one of steps) {
          const { actual, expected } = await check.run(one);
          expect(actual).toEqual(expected);
        }
      }),
      { numRuns: 40 },
    );
  });
});

describe("its clock", () => {
  it("only ever goes forward, and never by more than an hour at once", async () => {
    await using folder = await temporaryFolder();
    const change = fc.integer({ min: -5 * maxGapMs, max: 5 * maxGapMs });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(change, fc.boolean()), { maxLength: 20 }), async (changes) => {
        let wall = 1_700_000_000_000;
        const path = `${folder.path}/clock-${Math.random()}`;
        const open = () => new CacheClock(path, () => wall);
        let clock = open();
        let before = await clock.tick(undefined);
        for (const [passed, isReopened] of changes) {
          wall += passed;
          if (isReopened) clock = open();
          const now = await clock.tick(before);
          const isTime = passed > 0 && passed <= maxGapMs;
          expect(now - before).toBe(isTime ? passed : 1);
          expect(clock.toDate(now).getTime()).toBe(wall);
          expect(clock.toDate(before).getTime()).toBe(wall - (now - before));
          before = now;
        }
      }),
    );
  });
});

describe("keys", () => {
  it("are plain names whatever the source, and tell sources, formats and checksums apart", () => {
    const spec = fc.record({
      source: fc.oneof(fc.string({ unit: "binary" }), fc.webUrl({ withQueryParameters: true })).map((s) => `hf://${s}`),
      format: fc.constantFrom("gguf", "safetensors", "engine"),
    });
    fc.assert(
      fc.property(spec, fc.string({ unit: "binary" }), (one, id) => {
        const key = keyOf(one);
        expect(isKey(key)).toBe(true);
        expect(key).toMatch(/^[a-z0-9][a-z0-9-]*$/);
        expect(keyOf({ ...one, id })).toBe(key);
        expect(keyOf({ ...one, sha256: "0".repeat(64) })).not.toBe(key);
      }),
    );
  });
});
