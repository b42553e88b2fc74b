import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ModelCache, type ModelCacheOptions } from "../../runtime/agent/cache/cache.ts";
import { keyOf, type CachedSpec } from "../../runtime/agent/cache/key.ts";
import { patternedBytes, type RangeServer } from "../fakes/range-server.ts";
import { smallDisk } from "../support/folders.ts";
import { block, hang, idsIn, Models, remote, touch } from "./cache-models.ts";

const hour = 3_600_000;
const year = 365 * 24 * hour;
const limits = { rangeBytes: block, connections: 1, retryBaseMs: 1, retryMaxMs: 5, attempts: 2, noteEveryMs: 0 };

let models: Models;
let server: RangeServer;
beforeEach(async () => {
  models = await Models.make();
  ({ server } = models);
});
afterEach(async () => models[Symbol.asyncDispose]());

const openCache = (blocks: number | null, options: ModelCacheOptions = {}) =>
  ModelCache.open(models.root, {}, { limits, budgetBytes: blocks === null ? null : blocks * block, ...options });

/** Begins to fetch a model that hangs after some ranges, until `letGo`. */
async function fetchSlowly(cache: ModelCache, spec: CachedSpec, ranges = 0) {
  const { reached, letGo } = hang(server, spec, ranges);
  const controller = new AbortController();
  const fetching = cache.ensure(spec, { signal: controller.signal });
  fetching.catch(() => undefined);
  await reached;
  return { fetching, letGo, controller };
}

describe("the budget", () => {
  it("is kept by evicting what was used least recently", async () => {
    const cache = await openCache(10);
    for (const name of ["a", "b", "c"]) await touch(cache, await models.put(name, 3));
    await touch(cache, await models.put("a", 3));
    await touch(cache, await models.put("d", 3));
    expect(idsIn(cache)).toEqual(["a", "c", "d"]);
    await touch(cache, await models.put("e", 6));
    expect(idsIn(cache)).toEqual(["d", "e"]);
    expect(await models.bytesOnDisk()).toBe(9 * block);
    expect(cache.sizeBytes).toBe(9 * block);
  });

  it("keeps the order of use over a restart", async () => {
    const first = await openCache(9);
    for (const name of ["a", "b", "c"]) await touch(first, await models.put(name, 3));
    await touch(first, await models.put("a", 3));
    const second = await openCache(9);
    await touch(second, await models.put("d", 3));
    expect(idsIn(second)).toEqual(["a", "c", "d"]);
  });

  it("says cache_full with the arithmetic, before it writes or evicts anything", async () => {
    const cache = await openCache(10);
    const [pinned, used] = [await models.put("pinned", 4), await models.put("used", 3)];
    await touch(cache, pinned);
    await cache.pin(pinned);
    using _used = await cache.ensure(used);
    await touch(cache, await models.put("idle", 2));
    await expect(cache.ensure(await models.put("big", 4))).rejects.toMatchObject({
      code: "cache_full",
      message: [
        "The model needs 16384 bytes (0.00 GiB) and the cache's budget is 40960 bytes (0.00 GiB);",
        "16384 bytes (0.00 GiB) are pinned, 12288 bytes (0.00 GiB) in use and 0 bytes (0.00 GiB) being fetched.",
        "Unpin or unload models, or give the cache a larger budget.",
      ].join(" "),
    });
    expect(idsIn(cache)).toEqual(["idle", "pinned", "used"]);
    expect(await readdir(models.root)).toHaveLength(4);
    await expect(touch(cache, await models.put("fits", 3))).resolves.toBe(false);
    expect(idsIn(cache)).toEqual(["fits", "pinned", "used"]);
  });

  it("is refused to a model that is larger than all of it", async () => {
    const cache = await openCache(10);
    await expect(cache.ensure(await models.put("huge", 11))).rejects.toMatchObject({ code: "cache_full" });
    await expect(touch(cache, await models.put("just", 10))).resolves.toBe(false);
  });

  it("counts what others are fetching from the moment they know its size", async () => {
    const [cache, other] = [await openCache(10), await openCache(10)];
    const slow = await fetchSlowly(cache, remote(server, "slow", 6));
    for (const one of [cache, other]) {
      await expect(one.ensure(await models.put("more", 5))).rejects.toMatchObject({
        code: "cache_full",
        message: expect.stringContaining(`${6 * block} bytes (0.00 GiB) being fetched`),
      });
    }
    await touch(other, await models.put("little", 4));
    slow.letGo();
    await slow.fetching;
    await other.sweep();
    expect(idsIn(other)).toEqual(["little", "slow"]);
  });

  it("counts unfinished downloads by what is on the disk, and drops them before any entry", async () => {
    const cache = await openCache(10);
    const broken = await fetchSlowly(cache, remote(server, "broken", 8), 3);
    broken.controller.abort(new Error("left"));
    await expect(broken.fetching).rejects.toThrow("left");
    expect(await models.bytesOnDisk()).toBe(3 * block);
    await touch(cache, await models.put("a", 4));
    await touch(cache, await models.put("b", 3));
    expect((await readdir(models.root)).filter((name) => name.endsWith(".part"))).toHaveLength(1);
    await touch(cache, await models.put("c", 1));
    expect(idsIn(cache)).toEqual(["a", "b", "c"]);
    expect((await readdir(models.root)).filter((name) => name.endsWith(".part"))).toEqual([]);
  });

  it("is given back by removing a model whose download broke off", async () => {
    const cache = await openCache(10);
    const spec = remote(server, "broken", 8);
    const broken = await fetchSlowly(cache, spec, 3);
    await expect(cache.remove(spec)).rejects.toMatchObject({ code: "model_in_use" });
    broken.controller.abort(new Error("left"));
    await expect(broken.fetching).rejects.toThrow("left");
    await cache.remove(spec);
    expect(await readdir(models.root)).toEqual([".penstock"]);
  });

  it("counts what a resumed download has already once", async () => {
    const cache = await openCache(8);
    const spec = remote(server, "model", 8);
    const broken = await fetchSlowly(cache, spec, 3);
    broken.controller.abort(new Error("left"));
    await expect(broken.fetching).rejects.toThrow("left");
    server.faults.length = 0;
    server.bytesServed = 0;
    await touch(cache, spec);
    expect(server.bytesServed).toBeLessThan(6 * block);
  });

  it("that is smaller after a restart is kept at once, except by what is in use", async () => {
    const first = await openCache(null);
    for (const name of ["a", "b", "c"]) await touch(first, await models.put(name, 3));
    using _held = await first.ensure(await models.put("a", 3));
    const second = await openCache(3);
    expect(idsIn(second)).toEqual(["a"]);
    expect(await models.bytesOnDisk()).toBe(3 * block);
  });
});

describe("what is in use", () => {
  it("is neither evicted nor removed until the last one lets go", async () => {
    const [cache, other] = [await openCache(3), await openCache(3)];
    const spec = await models.put("a", 2);
    const [one, two] = [await cache.ensure(spec), await cache.ensure(spec)];
    expect(cache.list()[0]?.inUse).toBe(true);
    one.release();
    one.release();
    for (const asked of [cache, other]) {
      await expect(asked.remove(spec)).rejects.toMatchObject({ code: "model_in_use" });
      await expect(asked.ensure(await models.put("b", 2))).rejects.toMatchObject({ code: "cache_full" });
    }
    two[Symbol.dispose]();
    expect(cache.list()[0]?.inUse).toBe(false);
    await touch(other, await models.put("b", 2));
    await cache.sweep();
    expect(idsIn(cache)).toEqual(["b"]);
  });

  it("is free again when its cache is closed; an old release then touches nobody", async () => {
    const cache = await openCache(3);
    const spec = await models.put("a", 2);
    const held = await cache.ensure(spec);
    await cache.close();
    await (await openCache(3)).remove(spec);
    const again = await cache.ensure(spec);
    held.release();
    await expect(cache.remove(spec)).rejects.toMatchObject({ code: "model_in_use" });
    again.release();
    await cache.remove(spec);
  });

  it("keeps its files when its local source is written anew, until nobody uses it", async () => {
    const cache = await openCache(null);
    const held = await cache.ensure(await models.put("a", 1));
    const changed = await models.put("a", 2);
    expect(await touch(cache, changed)).toBe(true);
    held.release();
    expect(await touch(cache, changed)).toBe(false);
    expect(cache.sizeBytes).toBe(2 * block);
  });
});

describe("pins", () => {
  it("keep a model over restarts, also when it is fetched only later", async () => {
    const [a, b] = [await models.put("a", 2), await models.put("b", 2)];
    const first = await openCache(4);
    await first.pin(a);
    await touch(first, a);
    await touch(first, b);
    const second = await openCache(4);
    expect(second.list().map(({ modelIds: [id], pinned }) => [id, pinned])).toEqual(
      expect.arrayContaining([
        ["a", true],
        ["b", false],
      ]),
    );
    await touch(second, await models.put("c", 2));
    expect(idsIn(second)).toEqual(["a", "c"]);
    await second.unpin(a);
    await second.unpin(a);
    await touch(second, await models.put("c", 2));
    await touch(second, await models.put("d", 2));
    expect(idsIn(second)).toEqual(["c", "d"]);
  });

  it("do not keep a model from being removed by name, and outlast that", async () => {
    const cache = await openCache(null);
    const a = await models.put("a", 2);
    await touch(cache, a);
    await cache.pin(a);
    await cache.remove(a);
    expect(cache.list()).toEqual([]);
    await touch(cache, a);
    expect(cache.list()[0]?.pinned).toBe(true);
  });
});

describe("the time to live", () => {
  it("ends what nobody used for longer, by itself after a while, not what is pinned or in use", async () => {
    let now = Date.now();
    const cache = await openCache(null, { ttlMs: 2 * hour, now: () => now, sweepEveryMs: 10 });
    const [pinned, used] = [await models.put("pinned", 1), await models.put("used", 1)];
    for (const spec of [pinned, await models.put("idle", 1)]) await touch(cache, spec);
    await cache.pin(pinned);
    const held = await cache.ensure(used);
    for (let i = 0; i < 3; i += 1) {
      now += 50 * 60_000;
      await cache.sweep();
    }
    expect(idsIn(cache)).toEqual(["pinned", "used"]);
    held.release();
    now += 50 * 60_000;
    await cache.sweep();
    // Until just now it was in use.
    expect(idsIn(cache)).toEqual(["pinned", "used"]);
    for (let i = 0; i < 3; i += 1) {
      now += 50 * 60_000;
      const before = now;
      await expect.poll(() => cache.list().every(({ lastUsedAt }) => lastUsedAt.getTime() <= before)).toBe(true);
      await cache.sweep();
    }
    await expect.poll(() => idsIn(cache)).toEqual(["pinned"]);
    await cache.close();
  });

  it.each([year, -year])("does not run out when the system clock jumps by %d ms", async (jump) => {
    let now = Date.now();
    const cache = await openCache(3, { ttlMs: 4 * hour, now: () => now });
    const touched = async (name: string) => touch(cache, await models.put(name, 1));
    await touched("a");
    await touched("b");
    now += jump;
    await cache.sweep();
    expect(idsIn(cache)).toEqual(["a", "b"]);
    for (const { lastUsedAt } of cache.list()) expect(Math.abs(now - lastUsedAt.getTime())).toBeLessThan(hour);
    await touched("c");
    await touched("a");
    // Back to where it was: still nobody is older than they are.
    now -= jump;
    await touched("d");
    expect(idsIn(cache)).toEqual(["a", "c", "d"]);
    await touched("e");
    expect(idsIn(cache)).toEqual(["a", "d", "e"]);
    for (let i = 0; i < 5; i += 1) {
      now += 50 * 60_000;
      await touched("e");
      await cache.sweep();
    }
    expect(idsIn(cache)).toEqual(["e"]);
  });

  it("does not run while no agent does, and goes on after a restart", async () => {
    let now = Date.now();
    const options = { ttlMs: 4 * hour, now: () => now };
    await touch(await openCache(null, options), await models.put("a", 1));
    now += year;
    expect(idsIn(await openCache(null, options))).toEqual(["a"]);
    for (let i = 0; i < 6; i += 1) {
      now += 50 * 60_000;
      await openCache(null, options);
    }
    expect(idsIn(await openCache(null, options))).toEqual([]);
  });

  it("survives the loss of its own clock", async () => {
    let now = Date.now();
    const options = { ttlMs: hour, now: () => now };
    await touch(await openCache(null, options), await models.put("a", 1));
    await writeFile(join(models.root, ".penstock/clock.json"), "{");
    now += year;
    expect(idsIn(await openCache(null, options))).toEqual(["a"]);
  });
});

describe("the disk", () => {
  it("keeps its reserve free", async () => {
    let free = 10 * block;
    const disk = { freeBytes: async () => free, reserveFreeBytes: 4 * block };
    const cache = await openCache(null, disk);
    await touch(cache, await models.put("a", 6));
    free = 4 * block;
    await expect(
      openCache(null, disk).then((one) => one.prefetch([{ ...remote(server, "p", 1) }])),
    ).resolves.toMatchObject([{ outcome: "skipped" }]);
    await expect(cache.ensure(await models.put("big", 7))).rejects.toMatchObject({
      code: "cache_full",
      message: expect.stringMatching(/disk has 16384 bytes .* free, of which 16384 bytes .* larger disk/),
    });
    expect(idsIn(cache)).toEqual(["a"]);
    await touch(cache, await models.put("b", 4));
    expect(idsIn(cache)).toEqual(["b"]);
  });

  it("is promised only once: what another fetch has yet to write counts as taken", async () => {
    const cache = await openCache(null, { freeBytes: async () => 10 * block, reserveFreeBytes: 0 });
    const slow = await fetchSlowly(cache, remote(server, "slow", 7));
    await expect(cache.ensure(await models.put("a", 4))).rejects.toMatchObject({ code: "cache_full" });
    await touch(cache, await models.put("b", 3));
    slow.letGo();
    await slow.fetching;
  });

  it("that is really small holds what fits, one after the other", async (context) => {
    await using disk = await smallDisk(context, "size=1m");
    const cache = await ModelCache.open(disk.path, {}, { limits, reserveFreeBytes: 64 * 1024 });
    for (const name of ["a", "b", "c", "d"]) await touch(cache, await models.put(name, 100));
    expect(idsIn(cache)).toEqual(["c", "d"]);
    await expect(cache.ensure(await models.put("huge", 300))).rejects.toMatchObject({ code: "cache_full" });
    expect(idsIn(cache)).toEqual(["c", "d"]);
  });

  it("that fills up behind the cache's back costs an eviction and a second try, or else disk_full", async (context) => {
    await using disk = await smallDisk(context, "size=1m");
    // What the file system says it has is a lie, as with quotas.
    const options = { limits, reserveFreeBytes: 0, freeBytes: async () => 2 ** 40 };
    const cache = await ModelCache.open(disk.path, {}, options);
    await touch(cache, remote(server, "a", 100));
    await touch(cache, remote(server, "b", 100));
    await touch(cache, remote(server, "c", 100));
    expect(idsIn(cache)).toEqual(["b", "c"]);
    await expect(cache.prefetch([remote(server, "p", 100)])).resolves.toMatchObject([{ outcome: "skipped" }]);
    expect(idsIn(cache)).toEqual(["b", "c"]);
    using _b = await cache.ensure(remote(server, "b", 100));
    using _c = await cache.ensure(remote(server, "c", 100));
    await expect(cache.ensure(remote(server, "d", 100))).rejects.toMatchObject({ code: "disk_full" });
    // What is there is served all the same.
    await writeFile(join(disk.path, "filler"), patternedBytes(2 ** 20)).catch(() => undefined);
    expect(await touch(cache, remote(server, "b", 100))).toBe(true);
    expect(idsIn(cache)).toEqual(["b", "c"]);
    // And so is an agent that starts anew there, beside a download that broke off.
    await mkdir(join(disk.path, `${keyOf(remote(server, "old", 1))}.part`)).catch(() => undefined);
    expect(idsIn(await ModelCache.open(disk.path, {}, options))).toEqual(["b", "c"]);
  });
});

describe("a key", () => {
  it("has a lock file only while the model is there", async () => {
    const cache = await openCache(null);
    const spec = await models.put("a", 1);
    const locks = () => readdir(join(models.root, ".penstock/locks"));
    await touch(cache, spec);
    expect(await locks()).toEqual([keyOf(spec)]);
    await cache.remove(spec);
    await cache.sweep();
    expect(await locks()).toEqual([]);
  });
});
