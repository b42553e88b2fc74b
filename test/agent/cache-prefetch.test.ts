import { readdir } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ModelCache } from "../../runtime/agent/cache/cache.ts";
import { keyOf, type CachedSpec } from "../../runtime/agent/cache/key.ts";
import type { RangeServer } from "../fakes/range-server.ts";
import { block, hang, idsIn, Models, remote, touch } from "./cache-models.ts";

const limits = { rangeBytes: block, connections: 1, retryBaseMs: 1, retryMaxMs: 5, attempts: 2, noteEveryMs: 0 };

let models: Models;
let server: RangeServer;
beforeEach(async () => {
  models = await Models.make();
  ({ server } = models);
});
afterEach(async () => models[Symbol.asyncDispose]());

const openCache = (blocks: number | null = null) =>
  ModelCache.open(
    models.root,
    {},
    {
      limits,
      reserveFreeBytes: 0,
      budgetBytes: blocks === null ? null : blocks * block,
    },
  );

const outcomes = (results: readonly { spec: CachedSpec; outcome: string }[]) =>
  results.map(({ spec, outcome }) => `${spec.id} ${outcome}`);

describe("a prefetch", () => {
  it("fetches in order, one at a time, and says what became of each", async () => {
    const cache = await openCache();
    const specs = [remote(server, "a", 3), remote(server, "b", 2), remote(server, "c", 1)];
    await touch(cache, remote(server, "b", 2));
    server.requests.length = 0;
    const seen = new Set<string | undefined>();
    const missing = { id: "missing", source: `${server.url}/missing`, format: "engine" } as const;
    const results = await cache.prefetch([...specs, missing], { onProgress: ({ id }) => seen.add(id) });
    expect(outcomes(results)).toEqual(["a fetched", "b cached", "c fetched", "missing skipped"]);
    expect(results[3]).toMatchObject({ reason: expect.stringContaining("/missing") });
    expect([...seen]).toEqual(["a", "c"]);
    expect(server.reads.map(({ path }) => path)).toEqual(["/a", "/a", "/a", "/c"]);
    expect(idsIn(cache)).toEqual(["a", "b", "c"]);
    expect(cache.list().some(({ inUse }) => inUse)).toBe(false);
  });

  it("fetches several at once when it is told to", async () => {
    const cache = await openCache();
    const [a, b, c] = [remote(server, "a", 2), remote(server, "b", 2), remote(server, "c", 2)];
    const [first, second] = [hang(server, a, 0), hang(server, b, 0)];
    const prefetching = cache.prefetch([a, b, c], { concurrency: 2 });
    await Promise.all([first.reached, second.reached]);
    expect(server.reads.some(({ path }) => path === "/c")).toBe(false);
    second.letGo();
    await expect.poll(() => idsIn(cache)).toEqual(["b", "c"]);
    first.letGo();
    expect(outcomes(await prefetching)).toEqual(["a fetched", "b fetched", "c fetched"]);
  });

  it("evicts nothing, and ends with the first model that does not fit", async () => {
    const cache = await openCache(10);
    await touch(cache, await models.put("old", 6));
    const results = await cache.prefetch([remote(server, "a", 3), remote(server, "b", 2), remote(server, "c", 1)]);
    expect(outcomes(results)).toEqual(["a fetched", "b skipped", "c skipped"]);
    expect(results[2]).toMatchObject({ reason: expect.stringContaining("budget is 40960 bytes") });
    expect(idsIn(cache)).toEqual(["a", "old"]);
  });

  it("makes way for a request, and goes on where it was", async () => {
    const cache = await openCache();
    const [background, wanted] = [remote(server, "background", 8), remote(server, "wanted", 4)];
    const slow = hang(server, background, 5);
    const prefetching = cache.prefetch([background]);
    await slow.reached;
    const gate = hang(server, wanted, 0);
    const asking = touch(cache, wanted);
    await gate.reached;
    // Time for a prefetch that does not wait to show itself.
    for (let i = 0; i < 10; i += 1) {
      await cache.sweep();
      await fetch(server.url);
    }
    slow.letGo();
    gate.letGo();
    expect(await asking).toBe(false);
    expect(outcomes(await prefetching)).toEqual(["background fetched"]);
    const paths = server.requests.map(({ path }) => path);
    const sinceRequest = paths.slice(paths.indexOf("/wanted"));
    expect(sinceRequest.indexOf("/background")).toBeGreaterThan(sinceRequest.lastIndexOf("/wanted"));
    // Five that it had, one that broke off, and the three that were missing.
    expect(server.reads.filter(({ path }) => path === "/background")).toHaveLength(9);
  });

  it("is not interrupted by a request that finds its model on disk", async () => {
    const cache = await openCache();
    const ready = await models.put("ready", 1);
    await touch(cache, ready);
    const background = remote(server, "background", 4);
    const slow = hang(server, background, 2);
    const prefetching = cache.prefetch([background]);
    await slow.reached;
    expect(await touch(cache, ready)).toBe(true);
    slow.letGo();
    expect(outcomes(await prefetching)).toEqual(["background fetched"]);
    expect(server.reads).toHaveLength(4);
  });

  it("becomes the request's own when that asks for the same model", async () => {
    const cache = await openCache();
    const [shared, other] = [remote(server, "shared", 6), remote(server, "other", 1)];
    const slow = hang(server, shared, 2);
    const stop = new AbortController();
    const prefetching = cache.prefetch([shared], { signal: stop.signal });
    await slow.reached;
    const asking = touch(cache, shared);
    stop.abort(new Error("stop"));
    expect(outcomes(await prefetching)).toEqual(["shared skipped"]);
    await touch(cache, other);
    slow.letGo();
    expect(await asking).toBe(false);
    expect(server.reads.filter(({ path }) => path === "/shared")).toHaveLength(6);
  });

  it.each(["before", "after"])("lets a request evict that comes %s it sees that there is no room", async (moment) => {
    const asked: Promise<boolean>[] = [];
    const ask = () => {
      if (asked.length === 0 && idsIn(cache).length === 1) asked.push(touch(cache, big));
    };
    const cache: ModelCache = await ModelCache.open(
      models.root,
      {},
      {
        limits,
        budgetBytes: 10 * block,
        async freeBytes() {
          if (moment === "after") ask();
          return 2 ** 40;
        },
      },
    );
    await touch(cache, await models.put("old", 6));
    const big = remote(server, "big", 6);
    server.faults.push(() => {
      if (moment === "before") ask();
      return undefined;
    });
    const results = await cache.prefetch([big]);
    expect(await asked[0]).toBe(false);
    expect(outcomes(results)).toEqual([moment === "before" ? "big fetched" : "big skipped"]);
    expect(idsIn(cache)).toEqual(["big"]);
  });

  it("ends by its signal, and leaves what it has for later", async () => {
    const cache = await openCache();
    const spec = remote(server, "a", 6);
    const slow = hang(server, spec, 3);
    const stop = new AbortController();
    const prefetching = cache.prefetch([spec, remote(server, "b", 1)], { signal: stop.signal });
    await slow.reached;
    stop.abort(new Error("stop"));
    expect(outcomes(await prefetching)).toEqual(["a skipped", "b skipped"]);
    expect(await readdir(models.root)).toContain(`${keyOf(spec)}.part`);
    expect(outcomes(await cache.prefetch([spec], { signal: AbortSignal.abort() }))).toEqual(["a skipped"]);
  });
});
