import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { ModelCache } from "../../runtime/agent/cache/cache.ts";
import { keyOf, type CachedSpec } from "../../runtime/agent/cache/key.ts";
import { FileLock, type LockMode } from "../../runtime/agent/cache/lock.ts";
import { writeManifest } from "../../runtime/agent/cache/manifest.ts";
import { SharedDirectory } from "../../runtime/agent/cache/shared.ts";
import type { RangeServer } from "../fakes/range-server.ts";
import { block, hang, idsIn, Models, remote, touch } from "./cache-models.ts";

const limits = { rangeBytes: block, connections: 2, noteEveryMs: 0 };
const script = fileURLToPath(new URL("cache-child.ts", import.meta.url));

/** An agent in a process of its own. */
class Child implements AsyncDisposable {
  readonly process: ChildProcess;

  private constructor(child: ChildProcess) {
    this.process = child;
  }

  static async start(budgetBlocks?: number): Promise<Child> {
    const options = budgetBlocks === undefined ? {} : { budgetBytes: budgetBlocks * block };
    const child = new Child(fork(script, [models.root, JSON.stringify(options)], { execArgv: [] }));
    await once(child.process, "message");
    return child;
  }

  /** What the child answers: what the call did, or an error's code. One call at a time. */
  async tell(message: { do: string; spec?: CachedSpec }): Promise<unknown> {
    this.process.send(message);
    const [told] = (await once(this.process, "message")) as [{ answer?: unknown; code?: string }]; // as the script says
    return told.code ?? told.answer;
  }

  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    this.process.kill("SIGKILL");
    await once(this.process, "exit");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

let models: Models;
let server: RangeServer;
beforeEach(async () => {
  models = await Models.make();
  ({ server } = models);
});
afterEach(async () => models[Symbol.asyncDispose]());

const openCache = (budgetBlocks?: number) =>
  ModelCache.open(
    models.root,
    {},
    {
      limits,
      reserveFreeBytes: 0,
      budgetBytes: budgetBlocks === undefined ? null : budgetBlocks * block,
    },
  );

describe("a lock", () => {
  const together: Record<LockMode, Record<LockMode, boolean>> = {
    use: { use: true, fetch: true, remove: false },
    fetch: { use: true, fetch: false, remove: false },
    remove: { use: false, fetch: false, remove: false },
  };
  const modes = ["use", "fetch", "remove"] as const;
  it.each(modes.flatMap((first) => modes.map((second) => [first, second] as const)))(
    "for %s and one for %s, in one process",
    async (first, second) => {
      await openCache();
      const path = join(models.root, ".penstock/locks/some");
      const held = FileLock.try(path, first);
      const other = FileLock.try(path, second);
      expect(other !== undefined).toBe(together[first][second]);
      other?.[Symbol.dispose]();
      held?.[Symbol.dispose]();
      using after = FileLock.try(path, "remove");
      expect(after).toBeDefined();
      expect(await readdir(join(models.root, ".penstock/locks"))).toEqual(["some"]);
    },
  );

  it("of the directory ends with its process, and one that hangs is named", async () => {
    await using child = await Child.start();
    await child.tell({ do: "lockForever" });
    const impatient = new SharedDirectory(models.root, 100);
    await expect(impatient.locked(async () => 1)).rejects.toMatchObject({
      code: "model_in_use",
      message: expect.stringContaining("Stop that agent"),
    });
    const waiting = new SharedDirectory(models.root).locked(async () => 2);
    await child.kill();
    await expect(waiting).resolves.toBe(2);
    await expect(impatient.locked(async () => 3)).resolves.toBe(3);
  });

  it("of the directory lets one in at a time", async () => {
    await openCache();
    let inside = 0;
    let most = 0;
    const work = async () => {
      inside += 1;
      most = Math.max(most, inside);
      await new Promise((resume) => setImmediate(resume));
      inside -= 1;
    };
    const [one, two] = [new SharedDirectory(models.root), new SharedDirectory(models.root)];
    await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? one : two).locked(work)));
    await expect(one.locked(() => Promise.reject(new Error("thrown inside")))).rejects.toThrow("thrown inside");
    await two.locked(work);
    expect(most).toBe(1);
  });
});

describe("agents on one directory", () => {
  it("fetch a model once between them", async () => {
    const spec = remote(server, "model", 50);
    await using one = await Child.start();
    await using two = await Child.start();
    const cache = await openCache();
    const answers = await Promise.all([
      touch(cache, spec),
      one.tell({ do: "touch", spec }),
      two.tell({ do: "touch", spec: { ...spec, id: "other-id" } }),
    ]);
    expect(answers.filter((fromCache) => fromCache === false)).toHaveLength(1);
    expect(answers.filter((fromCache) => fromCache === true)).toHaveLength(2);
    expect(server.bytesServed).toBe(50 * block + 1);
    await cache.sweep();
    expect(idsIn(cache)).toEqual(["model", "other-id"]);
  });

  it("see each other's entries and pins at a sweep, and never evict what another uses or pinned", async () => {
    await using child = await Child.start(10);
    const [used, pinned] = [await models.put("used", 4), await models.put("pinned", 3)];
    expect(await child.tell({ do: "ensure", spec: used })).toBe(false);
    expect(await child.tell({ do: "touch", spec: pinned })).toBe(false);
    expect(await child.tell({ do: "pin", spec: pinned })).toBe(true);
    const cache = await openCache(10);
    expect(idsIn(cache)).toEqual(["pinned", "used"]);
    expect(cache.list().map(({ modelIds: [id], pinned: isPinned }) => `${id} ${isPinned}`)).toEqual(
      expect.arrayContaining(["pinned true", "used false"]),
    );
    await expect(cache.ensure(await models.put("big", 4))).rejects.toMatchObject({
      code: "cache_full",
      message: expect.stringContaining("12288 bytes (0.00 GiB) are pinned, 16384 bytes (0.00 GiB) in use"),
    });
    await expect(cache.remove(used)).rejects.toMatchObject({ code: "model_in_use" });
    await child.tell({ do: "release" });
    await touch(cache, await models.put("big", 4));
    expect(idsIn(cache)).toEqual(["big", "pinned"]);
    // The child finds out when it asks.
    expect(await child.tell({ do: "touch", spec: used })).toBe(false);
  });

  it("count each other's fetches", async () => {
    await using child = await Child.start(10);
    const spec = remote(server, "slow", 7);
    const { reached, letGo } = hang(server, spec);
    const fetching = child.tell({ do: "touch", spec });
    await reached;
    const cache = await openCache(10);
    await expect(cache.ensure(await models.put("more", 4))).rejects.toMatchObject({ code: "cache_full" });
    await touch(cache, await models.put("little", 3));
    letGo();
    expect(await fetching).toBe(false);
  });

  it("keep within the budget together, whoever fetches what", async () => {
    const specs = await Promise.all(Array.from({ length: 6 }, (_, i) => models.put(`m${i}`, 3 + i)));
    await using one = await Child.start(12);
    await using two = await Child.start(12);
    let largest = 0;
    const done = new AbortController();
    // Under the lock nobody deletes, so that what is counted one after the other is there at once.
    const shared = new SharedDirectory(models.root);
    const watch = async () => {
      while (!done.signal.aborted) {
        largest = Math.max(largest, await shared.locked(() => models.bytesOnDisk()));
        await delay(5);
      }
    };
    const work = async (child: Child, offset: number) => {
      const codes = new Set<unknown>();
      for (let i = 0; i < 12; i += 1) codes.add(await child.tell({ do: "touch", spec: specAt(specs, i * offset) }));
      return codes;
    };
    const watching = watch();
    const codes = await Promise.all([work(one, 1), work(two, 5)]);
    done.abort();
    await watching;
    for (const seen of codes) expect([...seen].filter((code) => typeof code === "string")).not.toContain("disk_full");
    expect(largest).toBeGreaterThan(0);
    expect(largest).toBeLessThanOrEqual(12 * block);
  });
});

describe("a thousand entries", () => {
  it("are opened quickly, and take little memory", async () => {
    await openCache();
    const file = { path: "a", sizeBytes: 1, mtimeMs: 1, sha256: "0".repeat(64), etag: "etag" };
    const files = Array.from({ length: 30 }, (_, i) => ({ ...file, path: `model-${i}.safetensors` }));
    for (let i = 0; i < 1_000; i += 1) {
      const entry = join(models.root, keyOf({ source: `hf://org/model-${i}`, format: "safetensors" }));
      await mkdir(entry);
      await writeManifest(entry, {
        version: 2,
        source: `hf://org/model-${i}`,
        format: "safetensors",
        sha256: null,
        entry: "",
        files,
        createdAt: new Date().toISOString(),
        lastUsedMs: i,
        modelIds: [`model-${i}`],
      });
    }
    const started = performance.now();
    const cache = await openCache();
    expect(performance.now() - started).toBeLessThan(10_000);
    expect(cache.list()).toHaveLength(1_000);
    expect(cache.sizeBytes).toBe(30_000);
    const { revision } = cache;
    await cache.sweep();
    expect(cache.revision).toBe(revision);

    await using child = await Child.start();
    const { entries, openedMiB } = z
      .object({ entries: z.number(), openedMiB: z.number() })
      .parse(await child.tell({ do: "report" }));
    expect(entries).toBe(1_000);
    // Measured: 12 MiB, most of it garbage of the parser.
    expect(openedMiB).toBeLessThan(40);
  });
});

describe("an agent that is killed", () => {
  it("lets go of what it used at once", async () => {
    await using child = await Child.start(4);
    const spec = await models.put("a", 3);
    await child.tell({ do: "ensure", spec });
    const cache = await openCache(4);
    await expect(cache.remove(spec)).rejects.toMatchObject({ code: "model_in_use" });
    await child.kill();
    await touch(cache, await models.put("b", 3));
    expect(idsIn(cache)).toEqual(["b"]);
  });

  it("leaves its fetch to those who wait, who go on where it ended", async () => {
    await using child = await Child.start();
    const spec = remote(server, "model", 40);
    const { reached } = hang(server, spec, 20);
    child.process.send({ do: "touch", spec });
    await reached;
    const cache = await openCache();
    const waiting = touch(cache, spec);
    waiting.catch(() => undefined);
    const notes = join(models.root, `${keyOf(spec)}.part/files.part.json`);
    const rangesNoted = async () => {
      const { files } = z
        .object({ files: z.array(z.object({ done: z.array(z.number()) })) })
        .parse(JSON.parse(await readFile(notes, "utf8").catch(() => '{"files":[]}')));
      return files.reduce((sum, { done }) => sum + done.length, 0);
    };
    await expect.poll(rangesNoted).toBeGreaterThan(0);
    await child.kill();
    const done = await rangesNoted();
    server.faults.length = 0;
    server.bytesServed = 0;
    expect(await waiting).toBe(false);
    // And the one byte that asks for the length.
    expect(server.bytesServed).toBeLessThanOrEqual((40 - done) * block + 1);
    expect((await readdir(models.root)).toSorted()).toEqual([".penstock", keyOf(spec)].toSorted());
  });

  it("gives back the room that its fetch had claimed and not used", async () => {
    await using child = await Child.start(40);
    const slow = remote(server, "slow", 30);
    const { reached, letGo } = hang(server, slow, 5);
    child.process.send({ do: "touch", spec: slow });
    await reached;
    const cache = await openCache(40);
    const spec = await models.put("a", 20);
    await expect(cache.ensure(spec)).rejects.toMatchObject({ code: "cache_full" });
    await child.kill();
    letGo();
    await touch(cache, spec);
    // What had landed is still there for a later try.
    expect((await readdir(models.root)).filter((name) => name.endsWith(".part"))).toHaveLength(1);
  });

  it("at any moment leaves a cache that works, within its budget", async () => {
    const specs = await Promise.all(Array.from({ length: 5 }, (_, i) => models.put(`m${i}`, 20 + i)));
    const random = lcg(7);
    for (let round = 0; round < 3; round += 1) {
      const child = await Child.start(60);
      const keepBusy = async () => {
        for (let i = round; child.process.connected; i += 1) {
          await Promise.race([child.tell({ do: "touch", spec: specAt(specs, i) }), once(child.process, "exit")]);
        }
      };
      const busy = keepBusy().catch(() => undefined);
      const moment = performance.now() + random() * 120;
      await expect.poll(() => performance.now() > moment, { interval: 1 }).toBe(true);
      await child.kill();
      await busy;
      const cache = await openCache(60);
      expect(await models.bytesOnDisk()).toBeLessThanOrEqual(60 * block);
      for (const { key } of cache.list()) expect(await readdir(join(models.root, key))).toContain("manifest.json");
      for (const spec of specs) await touch(cache, spec);
      expect(await models.bytesOnDisk()).toBeLessThanOrEqual(60 * block);
      expect((await readdir(models.root)).filter((name) => name.endsWith(".trash"))).toEqual([]);
    }
  });
});

function specAt(specs: readonly CachedSpec[], i: number): CachedSpec {
  const spec = specs[i % specs.length];
  if (spec === undefined) throw new Error("no specs");
  return spec;
}

/** A small random generator, so that a failure can be seen again. */
function lcg(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return state / 2 ** 31;
  };
}
