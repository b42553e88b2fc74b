import { safetensors } from "../support/safetensors-bytes.ts";
import { mkdir, mkdtemp, open, readdir, readFile, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ModelCache, type EnsureOptions } from "../../runtime/agent/cache/cache.ts";
import { isKey, keyOf, type CachedSpec } from "../../runtime/agent/cache/key.ts";
import type { DownloadProgress } from "../../runtime/agent/downloads/progress.ts";
import { patternedBytes, RangeServer, sha256, type SeenRequest } from "../fakes/range-server.ts";
import { hubRoute } from "../fakes/range-server-stores.ts";
import { gguf } from "../support/gguf-bytes.ts";
import { smallDisk } from "../support/folders.ts";

const rangeBytes = 64 * 1024;
const limits = { rangeBytes, connections: 4, retryBaseMs: 1, retryMaxMs: 5, noteEveryMs: 0 };
const model = gguf({ data: patternedBytes(512 * 1024) });
const isRange = ({ range }: SeenRequest) => range !== null && range[1] > 1;

let directory = "";
let server: RangeServer;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "penstock-cache-"));
  server = await RangeServer.start({ route: hubRoute });
  server.put("/m.gguf", model);
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

const openCache = (from = limits) => ModelCache.open(directory, { hubEndpoint: server.url }, { limits: from });
const spec = (path = "/m.gguf"): CachedSpec => ({ source: `${server.url}${path}`, format: "gguf", sha256: undefined });
const hashed = (): CachedSpec => ({ ...spec(), sha256: sha256(model) });
const names = async () => (await readdir(directory)).filter((name) => name !== ".penstock").toSorted();
/** Asks for a model and lets go of it at once; `fields` of the answer stay true until somebody removes the entry. */
async function ensureOnce(cache: ModelCache, wanted: CachedSpec, options: EnsureOptions = {}) {
  using found = await cache.ensure(wanted, options);
  const { directory: files, entryPath, sizeBytes, fromCache } = found;
  return { directory: files, entryPath, sizeBytes, fromCache };
}

/** A promise that is fulfilled once the server has been asked for so many ranges; those after them hang. */
function afterRanges(count: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.faults.push((request) => {
    if (!isRange(request) || server.reads.length <= count) return undefined;
    resolve();
    return { kind: "stall" };
  });
  return promise;
}

describe("ensure", () => {
  it("fetches once, then answers from disk, after a restart too", async () => {
    const cache = await openCache();
    const first = await ensureOnce(cache, hashed());
    expect(first).toMatchObject({ fromCache: false, sizeBytes: model.length });
    expect((await readFile(first.entryPath)).equals(model)).toBe(true);
    const served = server.requests.length;
    expect(await ensureOnce(cache, hashed())).toEqual({ ...first, fromCache: true });
    expect(await ensureOnce(await openCache(), hashed())).toEqual({ ...first, fromCache: true });
    expect(server.requests).toHaveLength(served);
  });

  it("fetches a local file, whose checksum lies beside it", async () => {
    const outside = await mkdtemp(join(tmpdir(), "penstock-models-"));
    await writeFile(join(outside, "m.gguf"), model);
    const local = { source: `file://${outside}/m.gguf`, format: "gguf", sha256: undefined } as const;
    const cache = await openCache();
    await writeFile(join(outside, "m.gguf.sha256"), `${"0".repeat(64)}  m.gguf\n`);
    await expect(cache.ensure(local)).rejects.toMatchObject({ code: "checksum_mismatch" });
    await writeFile(join(outside, "m.gguf.sha256"), `${sha256(model)}  m.gguf\n`);
    const { entryPath } = await cache.ensure(local);
    expect((await readFile(entryPath)).equals(model)).toBe(true);
    await rm(outside, { recursive: true });
  });

  it("runs one download for fifty who ask at once", async () => {
    const cache = await openCache();
    const answers = await Promise.all(Array.from({ length: 50 }, () => cache.ensure(hashed())));
    expect(new Set(answers.map((answer) => answer.entryPath)).size).toBe(1);
    expect(server.bytesServed).toBe(model.length + 1);
    expect(server.reads).toHaveLength(Math.ceil(model.length / rangeBytes));
  });

  it("shares an entry between ids of one source, and keeps formats and checksums apart", () => {
    const keys = [spec(), hashed(), { ...spec(), format: "engine" } as const, spec("/n.gguf")].map(keyOf);
    expect(new Set(keys).size).toBe(4);
    expect(keyOf({ ...spec(), id: "a" })).toBe(keyOf({ ...spec(), id: "b" }));
  });

  it.each(["hf://a/..@..", "s3://b/%2e%2e/%2e%2e/etc", `https://h/${"x".repeat(300)}`, "https://h/é.gguf", "az://-/-"])(
    "makes a plain name of %s",
    (source) => {
      const key = keyOf({ source, format: "gguf", sha256: undefined });
      expect(key).toMatch(/^[a-z0-9][a-z0-9-]*$/);
      expect(key.length).toBeLessThan(70);
      expect(isKey(key)).toBe(true);
    },
  );
});

describe("those who wait", () => {
  it("may leave without ending the download for the others", async () => {
    const cache = await openCache();
    const { promise: until, resolve: letGo } = Promise.withResolvers<void>();
    server.fail(1, { kind: "hold", until }, isRange);
    const leaver = new AbortController();
    const reason = new Error("the client left");
    const leaving = cache.ensure(hashed(), { signal: leaver.signal });
    const staying = cache.ensure(hashed());
    leaver.abort(reason);
    await expect(leaving).rejects.toBe(reason);
    letGo();
    await expect(staying).resolves.toMatchObject({ fromCache: false });
    expect(server.bytesServed).toBe(model.length + 1);
  });

  it("end the download when all have left; the next one goes on where it ended", async () => {
    const cache = await openCache({ ...limits, connections: 1 });
    const reached = afterRanges(3);
    const controllers = [new AbortController(), new AbortController()];
    const waiting = controllers.map(({ signal }) => cache.ensure(hashed(), { signal }));
    await reached;
    for (const controller of controllers) controller.abort(new Error("left"));
    server.faults.length = 0;
    server.bytesServed = 0;
    await expect(waiting[0]).rejects.toThrow("left");
    // Asked while the first download is still winding down, which the last one to leave waits for.
    const next = cache.ensure(hashed());
    await expect(waiting[1]).rejects.toThrow("left");
    expect(cache.list()).toEqual([]);
    await expect(next).resolves.toMatchObject({ fromCache: false });
    expect(server.bytesServed).toBe(model.length - 3 * rangeBytes + 1);
    expect(await names()).toEqual([keyOf(hashed())]);
  });

  it("hear how far it is as soon as they come", async () => {
    const cache = await openCache();
    const { promise: until, resolve: letGo } = Promise.withResolvers<void>();
    server.fail(1, { kind: "hold", until }, isRange);
    const { promise: began, resolve: begin } = Promise.withResolvers<void>();
    const first = cache.ensure(hashed(), { onProgress: () => begin() });
    await began;
    const seen: DownloadProgress[] = [];
    const second = cache.ensure(hashed(), { onProgress: (progress) => seen.push(progress) });
    expect(seen[0]).toMatchObject({ phase: "download", bytesTotal: model.length });
    letGo();
    await Promise.all([first, second]);
    expect(seen.at(-1)).toMatchObject({ phase: "verify", bytesDone: model.length });
  });

  it("that come with an aborted signal start nothing", async () => {
    const cache = await openCache();
    await expect(cache.ensure(hashed(), { signal: AbortSignal.abort(new Error("early")) })).rejects.toThrow("early");
    expect(server.requests).toEqual([]);
  });
});

describe("entries that changed on disk", () => {
  it.each<[string, (path: string) => Promise<void>]>([
    ["a flipped byte", flipByte],
    ["a cut", (path) => truncate(path, 1_000)],
    ["a missing file", (path) => rm(path)],
  ])("are fetched once more after %s", async (_, damage) => {
    const { entryPath } = await ensureOnce(await openCache(), hashed());
    await damage(entryPath);
    server.bytesServed = 0;
    const again = await ensureOnce(await openCache(), hashed());
    expect(again.fromCache).toBe(false);
    expect((await readFile(again.entryPath)).equals(model)).toBe(true);
    expect(server.bytesServed).toBe(model.length + 1);
  });

  it.each<[string, (manifest: string) => Promise<void>]>([
    ["broken", (manifest) => writeFile(manifest, "{")],
    ["missing", (manifest) => rm(manifest)],
    ["of another version", (manifest) => writeFile(manifest, '{"version":1}')],
    ["pointing elsewhere", (manifest) => rewrite(manifest, '"entry": "m.gguf"', '"entry": "../../../etc/passwd"')],
  ])("are kept when their manifest is %s and the checksum vouches for them", async (_, damage) => {
    const { entryPath } = await ensureOnce(await openCache(), hashed());
    await damage(join(entryPath, "../../manifest.json"));
    server.bytesServed = 0;
    const cache = await openCache();
    expect(cache.list()).toEqual([]);
    expect(await names()).toEqual([`${keyOf(hashed())}.part`]);
    const again = await ensureOnce(cache, hashed());
    expect(again.entryPath).toBe(entryPath);
    expect((await readFile(entryPath)).equals(model)).toBe(true);
    // The one byte that asks for the length.
    expect(server.bytesServed).toBe(1);
    expect(await names()).toEqual([keyOf(hashed())]);
  });

  it("are fetched again when their manifest is lost and nothing vouches for them, or the checksum does not", async () => {
    for (const [wanted, damage] of [
      [spec(), () => Promise.resolve()],
      [hashed(), flipByte],
    ] as const) {
      const { entryPath } = await ensureOnce(await openCache(), wanted);
      await damage(entryPath);
      await rm(join(entryPath, "../../manifest.json"));
      server.bytesServed = 0;
      await ensureOnce(await openCache(), wanted);
      expect((await readFile(entryPath)).equals(model)).toBe(true);
      expect(server.bytesServed).toBe(model.length + 1);
    }
  });

  it("are not taken from under somebody who uses them", async () => {
    const cache = await openCache();
    const held = await cache.ensure(hashed());
    await flipByte(held.entryPath);
    await expect(cache.ensure(hashed())).rejects.toMatchObject({ code: "model_in_use" });
    await expect((await openCache()).ensure(hashed())).rejects.toMatchObject({ code: "model_in_use" });
    await rm(join(held.entryPath, "../../manifest.json"));
    for (const one of [cache, await openCache()]) {
      await expect(one.ensure(hashed())).rejects.toMatchObject({ code: "model_in_use" });
    }
    await expect(readFile(held.entryPath)).resolves.toHaveLength(model.length);
    held.release();
    await expect(ensureOnce(cache, hashed())).resolves.toMatchObject({ fromCache: false });
  });

  it("are only hashed again when nothing but their time changed", async () => {
    const cache = await openCache();
    const { entryPath } = await cache.ensure(hashed());
    await utimes(entryPath, new Date(0), new Date(0));
    server.bytesServed = 0;
    const phases: string[] = [];
    const onProgress = ({ phase }: DownloadProgress) => phases.push(phase);
    expect(await cache.ensure(hashed(), { onProgress })).toMatchObject({ fromCache: true });
    expect(phases).toContain("verify");
    phases.length = 0;
    expect(await cache.ensure(hashed(), { onProgress })).toMatchObject({ fromCache: true });
    expect(phases).toEqual([]);
    expect(server.bytesServed).toBe(0);
  });

  it("are fetched again when their time changed and no checksum vouches for them", async () => {
    const cache = await openCache();
    const { entryPath } = await ensureOnce(cache, spec());
    await flipByte(entryPath);
    const again = await ensureOnce(cache, spec());
    expect(again.fromCache).toBe(false);
    expect((await readFile(again.entryPath)).equals(model)).toBe(true);
  });

  it("are gone when the source cannot give them again", async () => {
    const cache = await openCache();
    const { entryPath } = await ensureOnce(cache, hashed());
    await flipByte(entryPath);
    server.put("/m.gguf", gguf({ data: patternedBytes(1_000, 7) }));
    server.requests.length = 0;
    await expect(cache.ensure(hashed())).rejects.toMatchObject({ code: "checksum_mismatch" });
    expect(cache.list()).toEqual([]);
    expect(await names()).toEqual([]);
    expect(server.requests.filter(({ range }) => range?.[1] === 1)).toHaveLength(1);
  });
});

describe("sources that are wrong", () => {
  it("refuses a GGUF that was cut short, even without a checksum", async () => {
    server.put("/m.gguf", model.subarray(0, -100));
    const cache = await openCache();
    await expect(cache.ensure(spec())).rejects.toMatchObject({
      code: "model_file_invalid",
      message: expect.stringContaining("cut short"),
    });
    expect(await names()).toEqual([]);
  });

  it("shows nothing of a file with the wrong checksum", async () => {
    const cache = await openCache();
    await expect(cache.ensure({ ...spec(), sha256: "0".repeat(64) })).rejects.toMatchObject({
      code: "checksum_mismatch",
    });
    expect(await names()).toEqual([]);
    expect(cache.list()).toEqual([]);
  });

  it("starts over once when the model is replaced while it is read", async () => {
    const other = gguf({ data: patternedBytes(400_000, 5) });
    server.faults.push(({ range }) => {
      if (range?.[0] === 3 * rangeBytes) server.put("/m.gguf", other);
      return undefined;
    });
    const { entryPath, sizeBytes } = await (await openCache()).ensure(spec());
    expect(sizeBytes).toBe(other.length);
    expect((await readFile(entryPath)).equals(other)).toBe(true);
  });

  it("gives up on a model that is replaced again and again", async () => {
    let replacements = 0;
    server.faults.push(({ range }) => {
      if (range?.[0] === 3 * rangeBytes) server.put("/m.gguf", model, `"${(replacements += 1)}"`);
      return undefined;
    });
    await expect((await openCache()).ensure(spec())).rejects.toMatchObject({
      code: "source_failed",
      message: expect.stringContaining("replaced during download"),
    });
    expect(replacements).toBe(2);
    expect(await names()).toEqual([]);
  });

  it("tries a list again that fails for a moment", async () => {
    server.fail(2, { kind: "status", status: 429 });
    await expect((await openCache()).ensure(spec())).resolves.toMatchObject({ sizeBytes: model.length });
  });

  it("says disk_full on a disk where not even a folder fits (a real file system of few inodes)", async (context) => {
    await using disk = await smallDisk(context, "nr_inodes=9");
    const fillers = ["a", "b", "c", "d", "e", "f"].map((name) => join(disk.path, `filler-${name}`));
    for (const path of fillers) await writeFile(path, "");
    await expect(ModelCache.open(disk.path)).rejects.toMatchObject({ code: "disk_full" });
    for (const path of fillers) await rm(path);
    const cache = await ModelCache.open(disk.path, {}, { limits, reserveFreeBytes: 0 });
    const before = await readdir(disk.path, { recursive: true });
    for (let i = before.length + 1; i < 9; i += 1) await writeFile(join(disk.path, `filler-${i}`), "");
    await expect(cache.ensure(spec())).rejects.toMatchObject({ code: "disk_full" });
    expect((await readdir(disk.path)).filter((name) => !name.startsWith("filler"))).toEqual([".penstock"]);
  });
});

describe("what a model consists of", () => {
  const small = gguf();
  const hub = (path = "", format: CachedSpec["format"] = "gguf") =>
    ({ source: `hf://org/repo${path}`, format, sha256: undefined }) as const;
  const put = (...paths: string[]) => paths.forEach((path) => server.put(`/org/repo/${path}`, small));

  it("is the one GGUF of a repository, with its image projector, without the rest", async () => {
    put("README.json", "model-Q4.gguf", "mmproj-F16.gguf", "model.safetensors");
    const { directory: files, entryPath } = await (await openCache()).ensure(hub());
    expect(entryPath).toBe(join(files, "model-Q4.gguf"));
    expect((await readdir(files)).toSorted()).toEqual(["mmproj-F16.gguf", "model-Q4.gguf"]);
  });

  it("is asked for when several GGUF files would do", async () => {
    put("model-Q4.gguf", "model-Q8.gguf");
    await expect((await openCache()).ensure(hub())).rejects.toMatchObject({
      code: "invalid_config",
      param: "model.source",
      message: expect.stringContaining("model-Q4.gguf, model-Q8.gguf"),
    });
    await expect((await openCache()).ensure(hub("/model-Q8.gguf"))).resolves.toBeDefined();
  });

  it("is all shards, whether the folder or the first one is named", async () => {
    put("q4/m-00001-of-00002.gguf", "q4/m-00002-of-00002.gguf");
    const cache = await openCache();
    for (const path of ["/q4", "/q4/m-00001-of-00002.gguf"]) {
      const { directory: files, entryPath, sizeBytes } = await ensureOnce(cache, hub(path));
      expect(entryPath).toBe(join(files, "m-00001-of-00002.gguf"));
      expect(sizeBytes).toBe(2 * small.length);
    }
    server.files.delete("/org/repo/q4/m-00002-of-00002.gguf");
    await cache.remove(hub("/q4"));
    await expect(cache.ensure(hub("/q4"))).rejects.toMatchObject({
      code: "model_file_invalid",
      message: expect.stringContaining("m-00002-of-00002.gguf"),
    });
  });

  it("is safetensors with what belongs to them, and no weights in other formats", async () => {
    put("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx", ".gitattributes");
    server.put("/org/repo/model.safetensors", safetensors({ "model.norm.weight": { shape: [8] } }));
    const { directory: files, entryPath } = await (await openCache()).ensure(hub("", "safetensors"));
    expect(entryPath).toBe(files);
    expect((await readdir(files)).toSorted()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
  });

  it("is not there without a file of its format", async () => {
    put("config.json");
    put("README.json");
    for (const format of ["gguf", "safetensors"] as const) {
      await expect((await openCache()).ensure(hub("", format))).rejects.toMatchObject({ code: "model_file_invalid" });
    }
  });

  it("cannot have one checksum for many files, nor two for one", async () => {
    put("config.json", "model.safetensors", "m.gguf");
    const wrong = { sha256: "0".repeat(64) };
    const cache = await openCache();
    await expect(cache.ensure({ ...hub("", "safetensors"), ...wrong })).rejects.toMatchObject({
      code: "invalid_config",
      param: "model.sha256",
    });
    server.requests.length = 0;
    await expect(cache.ensure({ ...hub("/m.gguf"), ...wrong })).rejects.toMatchObject({ code: "checksum_mismatch" });
    expect(server.requests.filter(({ path }) => path.includes("/resolve/"))).toEqual([]);
  });
});

describe("the directory", () => {
  it("lists, measures and removes entries, and knows them after a restart", async () => {
    const cache = await openCache();
    await ensureOnce(cache, { ...hashed(), id: "a" });
    await ensureOnce(cache, { ...hashed(), id: "org/b" });
    await ensureOnce(cache, hashed());
    expect(cache.list()).toEqual([
      {
        key: keyOf(hashed()),
        source: hashed().source,
        sizeBytes: model.length,
        lastUsedAt: expect.any(Date),
        pinned: false,
        inUse: false,
        modelIds: ["a", "org/b"],
      },
    ]);
    const reopened = await openCache();
    expect(reopened.list().map(({ modelIds, sizeBytes }) => [modelIds, sizeBytes])).toEqual([
      [["a", "org/b"], model.length],
    ]);
    expect(reopened.sizeBytes).toBe(model.length);
    await reopened.remove(hashed());
    expect(reopened.list()).toEqual([]);
    expect(await names()).toEqual([]);
    await reopened.remove(hashed());
  });

  it("notes every id of those who share one fetch", async () => {
    const cache = await openCache();
    const ids = ["a", "b", "c"];
    await Promise.all(ids.map((id) => ensureOnce(cache, { ...hashed(), id })));
    expect(cache.list()[0]?.modelIds.toSorted()).toEqual(ids);
    expect((await openCache()).list()[0]?.modelIds.toSorted()).toEqual(ids);
  });

  it("notes an id only at the entry that its last spec names", async () => {
    const cache = await openCache();
    server.put("/n.gguf", model);
    const [before, after] = [
      { ...hashed(), id: "a" },
      { ...spec("/n.gguf"), id: "a" },
    ];
    await ensureOnce(cache, before);
    expect([cache.has(before), cache.has(after)]).toEqual([true, false]);
    await ensureOnce(cache, { ...hashed(), id: "b" });
    const ids = (one: ModelCache) =>
      one.list().map(({ key, modelIds }) => `${key === keyOf(after)} ${modelIds.join()}`);
    await ensureOnce(cache, after);
    expect(ids(cache).toSorted()).toEqual(["false b", "true a"]);
    expect(ids(await openCache()).toSorted()).toEqual(["false b", "true a"]);
    await ensureOnce(cache, before);
    expect(ids(cache).toSorted()).toEqual(["false b,a", "true "]);
  });

  it("counts revisions when entries, ids or pins change, and not when a model is only used again", async () => {
    const cache = await openCache();
    const seen = [cache.revision];
    const changed = () => seen.push(cache.revision) && seen.at(-1) !== seen.at(-2);
    await ensureOnce(cache, { ...hashed(), id: "a" });
    expect(changed()).toBe(true);
    await ensureOnce(cache, { ...hashed(), id: "a" });
    await cache.sweep();
    expect(changed()).toBe(false);
    await ensureOnce(cache, { ...hashed(), id: "b" });
    expect(changed()).toBe(true);
    await cache.pin(hashed());
    expect(changed()).toBe(true);
    await cache.pin(hashed());
    expect(changed()).toBe(false);
    await cache.unpin(hashed());
    expect(changed()).toBe(true);
    await cache.remove(hashed());
    expect(changed()).toBe(true);
    await cache.remove(hashed());
    expect(changed()).toBe(false);
  });

  it.each(["..", "../other", "", "a/b", "manifest.json", ".penstock"])("does not take %j for a key", async (key) => {
    await expect((await openCache()).removeKey(key)).rejects.toMatchObject({ code: "invalid_value" });
  });

  it.each(["../../etc/passwd", "/etc/passwd", "a\0b", "x".repeat(400)])(
    "keeps the id %j out of every path",
    async (id) => {
      const root = join(directory, "deep/down");
      const cache = await ModelCache.open(root, {}, { limits });
      const { entryPath } = await ensureOnce(cache, { ...hashed(), id });
      await cache.pin({ ...hashed(), id });
      expect(entryPath).toBe(join(root, keyOf(hashed()), "files/m.gguf"));
      expect(await readdir(join(root, ".penstock/pins"))).toEqual([keyOf(hashed())]);
      const files = (await readdir(directory, { recursive: true, withFileTypes: true })).filter((entry) =>
        entry.isFile(),
      );
      expect(files.map(({ name }) => name).toSorted()).toEqual(
        ["clock.json", "lock", "m.gguf", "manifest.json", keyOf(hashed()), keyOf(hashed())].toSorted(),
      );
      expect((await ModelCache.open(root)).list()[0]?.modelIds).toEqual([id]);
    },
  );

  it("writes no credentials down", async () => {
    const secret = { ...spec(), source: `${spec().source.replace("://", "://user:hunter2@")}?sig=hunter2&key=hunter2` };
    const cache = await openCache();
    await ensureOnce(cache, secret);
    const manifest = await readFile(join(directory, keyOf(secret), "manifest.json"), "utf8");
    expect(manifest).toContain("/m.gguf");
    expect(manifest + JSON.stringify(cache.list())).not.toContain("hunter2");
  });

  it("does not remove what is being fetched", async () => {
    const [cache, other] = await Promise.all([openCache(), openCache()]);
    const { promise: until, resolve: letGo } = Promise.withResolvers<void>();
    server.fail(1, { kind: "hold", until }, isRange);
    const { promise: began, resolve: begin } = Promise.withResolvers<void>();
    const fetching = ensureOnce(cache, hashed(), { onProgress: () => begin() });
    await expect(cache.remove(hashed())).rejects.toMatchObject({ code: "model_in_use" });
    await began;
    await expect(other.remove(hashed())).rejects.toMatchObject({ code: "model_in_use" });
    letGo();
    await fetching;
    await other.remove(hashed());
  });

  it("may be shared by two caches that ask for the same model at once: one fetches, the other waits", async () => {
    const [one, two] = await Promise.all([openCache(), openCache()]);
    const answers = await Promise.all([one.ensure(hashed()), two.ensure(hashed())]);
    expect(new Set(answers.map(({ entryPath }) => entryPath)).size).toBe(1);
    expect(answers.filter(({ fromCache }) => fromCache)).toHaveLength(1);
    expect(server.bytesServed).toBe(model.length + 1);
    expect(await names()).toEqual([keyOf(hashed())]);
  });

  it("lets one who waits for another agent's fetch leave at once", async () => {
    const [one, two] = await Promise.all([openCache(), openCache()]);
    const { promise: until, resolve: letGo } = Promise.withResolvers<void>();
    server.fail(1, { kind: "hold", until }, isRange);
    const { promise: began, resolve: begin } = Promise.withResolvers<void>();
    const first = ensureOnce(one, hashed(), { onProgress: () => begin() });
    await began;
    const leaver = new AbortController();
    const second = two.ensure(hashed(), { signal: leaver.signal });
    leaver.abort(new Error("left"));
    await expect(second).rejects.toThrow("left");
    letGo();
    await first;
  });

  it("clears half-removed entries, and tells what is not its own but leaves that alone", async () => {
    const key = keyOf(hashed());
    const foreign = ["lost+found", "my-model.part", `${key}.0123456789ab.trash.bak`, ".hidden"];
    const part = `${key}.part`;
    for (const name of [`${key}.0123456789ab.trash`, part, ...foreign]) await mkdir(join(directory, name));
    await writeFile(join(directory, "notes.txt"), "");
    const cache = await openCache();
    expect(await names()).toEqual([part, "notes.txt", ...foreign].toSorted());
    expect([...cache.foreign].toSorted()).toEqual(["notes.txt", ...foreign].toSorted());
    expect(cache.list()).toEqual([]);
  });

  it("keeps an unfinished download for a day, and no longer", async () => {
    let now = Date.now();
    const reopen = () => ModelCache.open(directory, {}, { limits: { ...limits, connections: 1 }, now: () => now });
    const cache = await reopen();
    const reached = afterRanges(3);
    const controller = new AbortController();
    const waiting = cache.ensure(hashed(), { signal: controller.signal });
    await reached;
    controller.abort(new Error("left"));
    await expect(waiting).rejects.toThrow("left");
    // One of a process that died before it noted anything down.
    const bare = `${keyOf(spec("/n.gguf"))}.part`;
    await mkdir(join(directory, bare));
    await cache.sweep();
    for (let hour = 0; hour < 24; hour += 1) {
      expect(await names()).toEqual([`${keyOf(hashed())}.part`, bare].toSorted());
      now += 3_600_000;
      await (hour % 2 === 0 ? cache.sweep() : reopen());
    }
    now += 3_600_000;
    await cache.sweep();
    expect(await names()).toEqual([]);
  });
});

async function flipByte(path: string): Promise<void> {
  await using handle = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, 100_000);
  await handle.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, 100_000);
}

async function rewrite(path: string, from: string, to: string): Promise<void> {
  const before = await readFile(path, "utf8");
  expect(before).toContain(from);
  await writeFile(path, before.replace(from, to));
}
