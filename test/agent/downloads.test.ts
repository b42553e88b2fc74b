import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { download, type DownloadOptions } from "../../runtime/agent/downloads/download.ts";
import type { DownloadProgress } from "../../runtime/agent/downloads/progress.ts";
import { createSource } from "../../runtime/agent/sources/index.ts";
import type { SourceFile } from "../../runtime/agent/sources/source.ts";
import { patternedBytes, RangeServer, sha256, type SeenRequest } from "../fakes/range-server.ts";
import { smallDisk } from "../support/folders.ts";

const MiB = 2 ** 20;
const rangeBytes = 64 * 1024;
const limits = { rangeBytes, connections: 4, retryBaseMs: 1, retryMaxMs: 5, stallTimeoutMs: 5_000, noteEveryMs: 0 };
const never = new AbortController().signal;
const model = patternedBytes(MiB + 12_345);

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "penstock-download-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** Lists and downloads one file of the server to `<directory>/out`. */
async function fetchOne(server: RangeServer, options: Partial<DownloadOptions> & { sha256?: string } = {}) {
  const source = createSource(`${server.url}/m.gguf`);
  const files = (await source.list(never)).map((file) => ({ ...file, sha256: options.sha256 ?? null }));
  await download({
    source,
    files,
    directory: join(directory, "out"),
    onProgress: () => undefined,
    signal: never,
    limits,
    ...options,
  });
}

const result = () => readFile(join(directory, "out", "m.gguf"));
const left = async () => (await readdir(directory)).toSorted();
const isRange = ({ range }: SeenRequest) => range !== null && range[1] > 1;

describe("download", () => {
  it("puts parallel ranges where they belong, and leaves nothing beside the files", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    await fetchOne(server, { sha256: sha256(model) });
    expect((await result()).equals(model)).toBe(true);
    expect(await left()).toEqual(["out"]);
    expect(server.reads).toHaveLength(Math.ceil(model.length / rangeBytes));
    expect(server.bytesServed).toBe(model.length + 1);
  });

  it("fetches many files at once, small and empty ones too", async () => {
    await using server = await RangeServer.start();
    const bodies = new Map(
      [...Array(20).keys()].map((n) => [`s/f${n}.json`, patternedBytes(n * 7_000, n + 1)] as const),
    );
    for (const [path, body] of bodies) server.put(`/${path}`, body);
    const files: SourceFile[] = [...bodies].map(([path, body]) => ({
      path,
      sizeBytes: body.length,
      etag: null,
      sha256: sha256(body),
      ranges: true,
    }));
    const source = {
      uri: "test://folder",
      list: async () => files,
      async *readRange(file: SourceFile, { start, end }: { start: number; end: number }) {
        const answer = await fetch(`${server.url}/${file.path}`, { headers: { range: `bytes=${start}-${end - 1}` } });
        yield new Uint8Array(await answer.arrayBuffer());
      },
    };
    await download({
      source,
      files,
      directory: join(directory, "all"),
      onProgress: () => undefined,
      signal: never,
      limits,
    });
    for (const [path, body] of bodies) {
      expect((await readFile(join(directory, "all", path))).equals(body), path).toBe(true);
    }
  });

  it("reads one stream from a server without ranges, and begins it anew when it breaks", async () => {
    await using server = await RangeServer.start({ ranges: false });
    server.put("/m.gguf", model);
    const seen: DownloadProgress[] = [];
    server.fail(1, { kind: "cut", afterBytes: 600_000 }, ({ range }) => range === null);
    await fetchOne(server, { sha256: sha256(model), onProgress: (progress) => seen.push(progress) });
    expect((await result()).equals(model)).toBe(true);
    expect(seen.findLast(({ phase }) => phase === "download")?.bytesDone).toBe(model.length);
  });

  it("reports both phases, from nothing to all", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    const seen: DownloadProgress[] = [];
    await fetchOne(server, { sha256: sha256(model), onProgress: (progress) => seen.push(progress) });
    for (const phase of ["download", "verify"] as const) {
      const own = seen.filter((progress) => progress.phase === phase);
      expect(own[0]).toMatchObject({ bytesDone: 0, bytesTotal: model.length, etaSeconds: null });
      expect(own.at(-1)).toMatchObject({ bytesDone: model.length, bytesTotal: model.length, etaSeconds: 0 });
    }
  });

  it("reports about ten times a second, whatever comes", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    const { promise: until, resolve } = Promise.withResolvers<void>();
    server.fail(1, { kind: "hold", until }, isRange);
    const seen: number[] = [];
    // The server holds one range back until five reports have come without a byte.
    await fetchOne(server, {
      onProgress: () => {
        if (seen.push(performance.now()) === 6) resolve();
      },
    });
    const gaps = seen.slice(1, 6).map((at, index) => at - (seen[index] ?? 0));
    expect(Math.min(...gaps)).toBeGreaterThan(50);
  });
});

describe("broken networks", () => {
  it("goes on inside a range whose stream was cut", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(5, { kind: "cut", afterBytes: 40_000 }, isRange);
    await fetchOne(server, { sha256: sha256(model) });
    expect((await result()).equals(model)).toBe(true);
    // Nothing that had arrived was asked for again, except what the break itself swallowed.
    expect(server.bytesServed).toBeLessThan(model.length + 5 * 40_000);
  });

  it("takes a body that is shorter or longer than promised for a break", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(2, { kind: "wrongLength", extraBytes: 100 }, isRange);
    server.fail(1, { kind: "wrongLength", extraBytes: -100 }, isRange);
    await fetchOne(server, { sha256: sha256(model) });
    expect((await result()).equals(model)).toBe(true);
  });

  it.each([429, 500, 503])("tries again after %i", async (status) => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(6, { kind: "status", status }, isRange);
    await fetchOne(server, { sha256: sha256(model) });
    expect((await result()).equals(model)).toBe(true);
  });

  it("gives up after a bounded number of tries", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(Infinity, { kind: "status", status: 500 }, isRange);
    await expect(fetchOne(server, { limits: { ...limits, connections: 1, attempts: 3 } })).rejects.toMatchObject({
      code: "source_failed",
      message: expect.stringContaining("the server answered 500"),
    });
    expect(server.reads).toHaveLength(3);
    expect(await left()).not.toContain("out");
  });

  it("refuses a server that sends more than it was asked for", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(1, { kind: "overrun", extraBytes: 1 }, isRange);
    await expect(fetchOne(server)).rejects.toMatchObject({
      code: "source_failed",
      message: expect.stringContaining("more bytes of m.gguf than were asked for"),
    });
  });

  it("gives up on a server that lets through a byte at a time", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(Infinity, { kind: "cut", afterBytes: 1 }, isRange);
    await expect(fetchOne(server, { limits: { ...limits, connections: 1, attempts: 4 } })).rejects.toMatchObject({
      code: "source_failed",
    });
    expect(server.reads).toHaveLength(4);
  });

  it("does not try again what waiting cannot cure, and stops the other ranges", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(1, { kind: "status", status: 403 }, ({ range }) => range?.[0] === 2 * rangeBytes);
    server.fail(Infinity, { kind: "stall" }, ({ range }) => range !== null && range[0] > 2 * rangeBytes);
    await expect(fetchOne(server)).rejects.toMatchObject({ code: "source_denied" });
    expect(server.reads.filter(({ range }) => range?.[0] === 2 * rangeBytes)).toHaveLength(1);
  });

  it("cuts a connection that has gone silent", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(1, { kind: "stall" }, isRange);
    await fetchOne(server, { sha256: sha256(model), limits: { ...limits, stallTimeoutMs: 200 } });
    expect((await result()).equals(model)).toBe(true);
  });

  it("says that a file was replaced, by ETag and by length, and keeps nothing of it", async () => {
    for (const other of [patternedBytes(model.length, 9), patternedBytes(model.length + 1, 9)]) {
      await using server = await RangeServer.start();
      server.put("/m.gguf", model);
      server.faults.push(({ range }) => {
        if (range?.[0] === 5 * rangeBytes) server.put("/m.gguf", other);
        return undefined;
      });
      await expect(fetchOne(server, { limits: { ...limits, connections: 1 } })).rejects.toMatchObject({
        code: "source_failed",
        retry: "start_over",
        message: expect.stringContaining("replaced during download"),
      });
      expect(await left()).toEqual([]);
    }
  });
});

describe("replaced files", () => {
  const sameLength = patternedBytes(model.length, 9);
  const longer = patternedBytes(model.length + 1, 9);

  it.each([
    ["a server that ignores If-Range", { ifRange: false, other: sameLength, etags: ['"1"', '"2"'] }],
    ["weak ETags, which If-Range may not carry", { ifRange: true, other: sameLength, etags: ['W/"1"', 'W/"2"'] }],
    ["no ETag, by the length", { ifRange: true, other: longer, etags: ["", ""] }],
  ])("are noticed with %s", async (_, { ifRange, other, etags: [before, after] }) => {
    await using server = await RangeServer.start({ ifRange });
    server.put("/m.gguf", model, before);
    server.faults.push(({ range }) => {
      if (range?.[0] === 5 * rangeBytes) server.put("/m.gguf", other, after);
      return undefined;
    });
    await expect(fetchOne(server)).rejects.toMatchObject({ code: "source_failed", retry: "start_over" });
    expect(await left()).toEqual([]);
  });
});

describe("checksums", () => {
  it("refuses bytes that do not hash to what was expected, and keeps nothing of them", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    const wrong = "0".repeat(64);
    await expect(fetchOne(server, { sha256: wrong })).rejects.toMatchObject({
      code: "checksum_mismatch",
      message: expect.stringContaining(sha256(model)),
    });
    expect(await left()).toEqual([]);
  });
});

describe("abort and resume", () => {
  /** Downloads until `ranges` ranges are done, then aborts. */
  async function interrupt(server: RangeServer, ranges: number): Promise<void> {
    const controller = new AbortController();
    const reason = new Error("the agent stops");
    server.faults.push(({ range }) => {
      if (controller.signal.aborted || server.reads.length <= ranges || range === null) return undefined;
      controller.abort(reason);
      return { kind: "stall" };
    });
    const options = { signal: controller.signal, limits: { ...limits, connections: 1 } };
    await expect(fetchOne(server, options)).rejects.toBe(reason);
    server.faults.length = 0;
    expect(await left()).toEqual(["out.part", "out.part.json"]);
  }

  it("shows nothing after an abort, and asks only for missing ranges afterwards", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    await interrupt(server, 5);
    server.requests.length = 0;
    server.bytesServed = 0;
    const seen: DownloadProgress[] = [];
    await fetchOne(server, { sha256: sha256(model), onProgress: (progress) => seen.push(progress) });
    expect((await result()).equals(model)).toBe(true);
    expect(server.bytesServed).toBe(model.length - 5 * rangeBytes + 1);
    expect(seen[0]?.bytesDone).toBe(5 * rangeBytes);
    expect(await left()).toEqual(["out"]);
  });

  it("starts over when the file has changed meanwhile", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    await interrupt(server, 5);
    const other = patternedBytes(model.length, 3);
    server.put("/m.gguf", other);
    server.bytesServed = 0;
    await fetchOne(server, { sha256: sha256(other) });
    expect((await result()).equals(other)).toBe(true);
    expect(server.bytesServed).toBe(other.length + 1);
  });

  it.each([
    ["another length under the same ETag", patternedBytes(model.length + 1, 3), '"1"'],
    ["no ETag at all", model, ""],
  ])("starts over with %s", async (_, body, etag) => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model, etag);
    await interrupt(server, 3);
    server.put("/m.gguf", body, etag);
    server.bytesServed = 0;
    await fetchOne(server);
    expect((await result()).equals(body)).toBe(true);
    expect(server.bytesServed).toBe(body.length + 1);
  });

  it.each([
    ["broken", "{"],
    ["of another kind", '{"version":9}'],
    ["of other ranges", null],
  ])("starts over when the note of finished ranges is %s", async (_, note) => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    await interrupt(server, 3);
    if (note !== null) await writeFile(join(directory, "out.part.json"), note);
    server.bytesServed = 0;
    await fetchOne(server, {
      sha256: sha256(model),
      limits: { ...limits, rangeBytes: note === null ? 100_000 : rangeBytes },
    });
    expect((await result()).equals(model)).toBe(true);
    expect(server.bytesServed).toBe(model.length + 1);
  });

  it("does not trust a note whose partial file is gone or of another length", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    await interrupt(server, 3);
    await writeFile(join(directory, "out.part", "m.gguf"), "short");
    await fetchOne(server, { sha256: sha256(model) });
    expect((await result()).equals(model)).toBe(true);
  });

  it("ends while it verifies, too, and does not transfer again afterwards", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    const controller = new AbortController();
    const reason = new Error("the agent stops");
    const onProgress = ({ phase }: DownloadProgress) => {
      if (phase === "verify") controller.abort(reason);
    };
    await expect(fetchOne(server, { sha256: sha256(model), signal: controller.signal, onProgress })).rejects.toBe(
      reason,
    );
    expect(await left()).not.toContain("out");
    server.bytesServed = 0;
    await fetchOne(server, { sha256: sha256(model) });
    expect(server.bytesServed).toBe(1);
  });
});

describe("hostile names", () => {
  it.each([
    "/etc/passwd",
    "../out.gguf",
    "a/../../b.gguf",
    "a//b.gguf",
    "./a.gguf",
    "",
    "a\0.gguf",
    "a\nb.gguf",
    "a\\..\\b.gguf",
    "C:/x.gguf",
    `${"x".repeat(256)}.gguf`,
    `${"x/".repeat(600)}y.gguf`,
  ])("refuses %j", async (path) => {
    await expect(listing([path])).rejects.toMatchObject({ code: "source_failed", retry: "never" });
    expect(await left()).toEqual([]);
  });

  it.each([[["a.gguf", "A.gguf"]], [["a", "a/b.gguf"]], [["x/y/z", "x/Y"]]])(
    "refuses the doubles %j",
    async (paths) => {
      await expect(listing(paths)).rejects.toMatchObject({ code: "source_failed" });
    },
  );

  it.each([-1, 0.5, Number.NaN, 2 ** 53])("refuses a size of %d", async (sizeBytes) => {
    await expect(listing(["a.gguf"], sizeBytes)).rejects.toMatchObject({ code: "source_failed" });
  });

  it("does not write through a link that lies where a partial file belongs", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    const victim = join(directory, "victim");
    await writeFile(victim, "precious");
    await mkdir(join(directory, "out.part"));
    await symlink(victim, join(directory, "out.part", "m.gguf"));
    await fetchOne(server, { sha256: sha256(model) });
    expect(await readFile(victim, "utf8")).toBe("precious");
    expect((await result()).equals(model)).toBe(true);
  });

  async function listing(paths: readonly string[], sizeBytes = 1): Promise<void> {
    const files = paths.map((path) => ({ path, sizeBytes, etag: null, sha256: null, ranges: true }));
    const source = {
      uri: "test://hostile",
      list: async () => files,
      async *readRange() {
        yield new Uint8Array(1);
      },
    };
    const onProgress = () => undefined;
    await download({ source, files, directory: join(directory, "out"), onProgress, signal: never, limits });
  }
});

describe("full disks", () => {
  it("refuses before the first byte when the free space does not do", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    await expect(fetchOne(server, { freeBytes: async () => 1_000 })).rejects.toMatchObject({
      code: "disk_full",
      message: expect.stringMatching(new RegExp(`needs ${model.length} bytes.*has 1000 bytes`)),
    });
    expect(server.reads).toEqual([]);
    expect(await left()).toEqual([]);
  });

  it("removes the partial file when the disk fills up on the way (a real file system of 1 MiB)", async (context) => {
    await using disk = await smallDisk(context, "size=1m");
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    const out = join(disk.path, "out");
    await expect(fetchOne(server, { directory: out, freeBytes: async () => 2 * MiB })).rejects.toMatchObject({
      code: "disk_full",
      cause: expect.objectContaining({ code: "ENOSPC" }),
    });
    expect(await readdir(disk.path)).toEqual([]);
    await expect(fetchOne(server, { directory: out })).rejects.toMatchObject({ code: "disk_full" });
  });
});

describe("local files", () => {
  it("copies them like any other, and notices the same faults", async () => {
    const path = join(directory, "m.gguf");
    await writeFile(path, model);
    const source = createSource(`file://${path}`);
    const readRange = vi.spyOn(source, "readRange");
    const files = await source.list(never);
    const seen: DownloadProgress[] = [];
    const onProgress = (progress: DownloadProgress) => seen.push(progress);
    await download({ source, files, directory: join(directory, "out"), onProgress, signal: never, limits });
    expect((await result()).equals(model)).toBe(true);
    expect((await stat(join(directory, "out", "m.gguf"))).ino).not.toBe((await stat(path)).ino);
    // Where the file system clones, no range is read; elsewhere all of them are.
    expect([0, Math.ceil(model.length / rangeBytes)]).toContain(readRange.mock.calls.length);
    expect(seen.at(-1)).toMatchObject({ bytesDone: model.length });
  });
});
