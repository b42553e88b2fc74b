import { createHash } from "node:crypto";
import { readdirSync, readlinkSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer as createHttp2Server } from "node:http2";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { getCACertificates, setDefaultCACertificates } from "node:tls";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { download, type DownloadOptions } from "../../runtime/agent/downloads/download.ts";
import { DirectEngine } from "../../runtime/agent/downloads/direct/engine.ts";
import type { DownloadProgress } from "../../runtime/agent/downloads/progress.ts";
import { createSource } from "../../runtime/agent/sources/index.ts";
import type { Checksum, Source, SourceFile } from "../../runtime/agent/sources/source.ts";
import { blobRoute, hubRoute, s3Route } from "../fakes/range-server-stores.ts";
import { patternedBytes, RangeServer, sha256, type SeenRequest } from "../fakes/range-server.ts";
import { makeCertificate } from "../fakes/range-server-tls.ts";
import { smallDisk } from "../support/folders.ts";

const rangeBytes = 64 * 1024;
const limits = {
  rangeBytes,
  connections: 4,
  directFromBytes: 0,
  retryBaseMs: 1,
  retryMaxMs: 5,
  stallTimeoutMs: 5_000,
  noteEveryMs: 0,
};
const never = new AbortController().signal;
const model = patternedBytes(2 ** 20 + 12_345);

let directory = "";
let fallbacks: string[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "penstock-direct-"));
  fallbacks = [];
});
afterEach(() => rm(directory, { recursive: true, force: true }));

type Some = Partial<DownloadOptions> & { sha256?: string; checksum?: Checksum };

/** Lists and downloads one file of the server to `<directory>/out`; `fallbacks` tells whether it left the fast path. */
async function fetchOne(server: { url: string }, { sha256: sum, checksum, ...options }: Some = {}): Promise<void> {
  const source = options.source ?? createSource(`${server.url}/m.gguf`);
  const files = (await source.list(never)).map((file) => ({
    ...file,
    sha256: sum ?? null,
    ...(checksum === undefined ? {} : { checksum }),
  }));
  await download({
    source,
    files,
    directory: join(directory, "out"),
    onProgress: () => undefined,
    onFallback: (_, reason) => fallbacks.push(reason),
    signal: never,
    limits,
    ...options,
  });
}

const result = () => readFile(join(directory, "out", "m.gguf"));
const left = async () => (await readdir(directory)).toSorted();
const isRange = ({ range }: SeenRequest) => range !== null && range[1] > 1;
/** Requests of the fast path: undici's say that their connection shall be kept. */
const isDirect = (request: SeenRequest) => isRange(request) && request.headers.connection === undefined;
const sums = (body: Buffer) => ({
  sha256: { algorithm: "sha256", value: sha256(body) } as const,
  md5: { algorithm: "md5", value: createHash("md5").update(body).digest("hex") } as const,
});
/** Files and sockets that this process has open, by what they are. */
const openFiles = () =>
  readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return /^(socket|\/)/.test(target) ? [target] : [];
    } catch {
      return [];
    }
  });

describe("plain sockets", () => {
  it.each([0, 1, 4095, 4096, 4097, rangeBytes - 1, rangeBytes, rangeBytes + 1, 3 * rangeBytes + 4097, 5_000_001])(
    "bring %i bytes, each to its place",
    async (size) => {
      await using server = await RangeServer.start();
      const body = patternedBytes(size);
      server.put("/m.gguf", body);
      await fetchOne(server, { sha256: sha256(body) });
      expect((await result()).equals(body)).toBe(true);
      expect(fallbacks).toEqual([]);
      expect(await left()).toEqual(["out"]);
    },
  );

  it("bring ranges that do not begin at a page", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    await fetchOne(server, { sha256: sha256(model), limits: { ...limits, rangeBytes: 100_001 } });
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual([]);
  });

  it("bring many files, and ask for each range once, over few connections", async () => {
    await using server = await RangeServer.start();
    const bodies = [0, 1, 70_000, 200_000].map((size, seed) => patternedBytes(size, seed + 1));
    for (const [index, body] of bodies.entries()) server.put(`/models/f${index}`, body);
    const files: SourceFile[] = bodies.map((body, index) => ({
      path: `f${index}`,
      sizeBytes: body.length,
      etag: null,
      sha256: sha256(body),
      ranges: true,
    }));
    const source: Source = {
      uri: "test://folder",
      list: async () => files,
      readRange: () => expect.fail("the fast path should do"),
      direct: async ({ path }) => ({ url: new URL(`${server.url}/models/${path}`), headers: {}, etag: null }),
    };
    await fetchOne(server, { source, files });
    for (const [index, body] of bodies.entries()) {
      expect((await readFile(join(directory, "out", `f${index}`))).equals(body)).toBe(true);
    }
    expect(server.requests).toHaveLength(1 + 2 + 4);
    expect(server.connections).toBeLessThanOrEqual(4);
  });

  it.each([
    ["s3", { route: s3Route, base: "/bucket", uri: "s3://bucket/m.gguf" }],
    ["az", { route: blobRoute, base: "/account/container", uri: "az://account/container/m.gguf" }],
    ["hf", { route: hubRoute, base: "/org/repo", uri: "hf://org/repo/m.gguf" }],
  ] as const)("bring what %s:// has", async (_, { route, base, uri }) => {
    vi.stubEnv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
    vi.stubEnv("AWS_SECRET_ACCESS_KEY", "secret");
    vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
    await using server = await RangeServer.start({ route });
    server.put(`${base}/m.gguf`, model);
    const source = createSource(uri, {
      hubEndpoint: server.url,
      s3: { endpoint: server.url, pathStyle: true },
      azure: { endpoint: `${server.url}/account`, sasToken: "sv=2026-01-01&sig=secret" },
    });
    await fetchOne(server, { source, sha256: sha256(model) });
    vi.unstubAllEnvs();
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual([]);
    expect(server.reads.filter(isDirect)).toHaveLength(Math.ceil(model.length / rangeBytes));
  });

  it("write to a file system without O_DIRECT all the same", async (context) => {
    await using disk = await smallDisk(context, "size=8m");
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    await fetchOne(server, { sha256: sha256(model), directory: join(disk.path, "out") });
    expect((await readFile(join(disk.path, "out", "m.gguf"))).equals(model)).toBe(true);
    expect(fallbacks).toEqual([]);
  });

  it("say disk_full when the disk fills up, and leave nothing", async (context) => {
    await using disk = await smallDisk(context, "size=1m");
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    const options = { directory: join(disk.path, "out"), freeBytes: async () => 2 ** 30 };
    await expect(fetchOne(server, options)).rejects.toMatchObject({ code: "disk_full" });
    expect(await readdir(disk.path)).toEqual([]);
  });

  it("verify the server's certificate", async () => {
    const tls = makeCertificate(directory);
    await using server = await RangeServer.start({ tls });
    server.put("/m.gguf", model);
    const trusted = getCACertificates("default");
    const files = [{ path: "m.gguf", sizeBytes: model.length, etag: null, sha256: sha256(model), ranges: true }];
    const source: Source = {
      uri: "test://tls",
      list: async () => files,
      readRange: () => expect.fail("the fast path should do"),
      direct: async () => ({ url: new URL(`${server.url}/m.gguf`), headers: {}, etag: null }),
    };
    const short = { source, limits: { ...limits, attempts: 2 } };
    await expect(fetchOne(server, short)).rejects.toMatchObject({
      code: "source_failed",
      message: expect.stringContaining("DEPTH_ZERO_SELF_SIGNED_CERT"),
    });
    expect(server.requests).toEqual([]);
    setDefaultCACertificates([...trusted, tls.cert]);
    try {
      await fetchOne(server, { source, sha256: sha256(model) });
      expect((await result()).equals(model)).toBe(true);
      const url = new URL(`${server.url.replace("localhost", "127.0.0.1")}/m.gguf`);
      const byAddress = { ...source, direct: async () => ({ url, headers: {}, etag: null }) };
      const options = { ...short, source: byAddress, directory: join(directory, "other") };
      await expect(fetchOne(server, options)).rejects.toMatchObject({
        message: expect.stringContaining("ERR_TLS_CERT_ALTNAME_INVALID"),
      });
    } finally {
      setDefaultCACertificates(trusted);
    }
  });
});

describe("checksums while bytes arrive", () => {
  it.each(["sha256", "md5"] as const)("are compared: %s", async (algorithm) => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    const right = sums(model)[algorithm];
    await fetchOne(server, { checksum: right });
    expect((await result()).equals(model)).toBe(true);
    const wrong = { algorithm, value: right.value.replace(/^./, (first) => (first === "0" ? "1" : "0")) };
    await expect(fetchOne(server, { checksum: wrong, directory: join(directory, "wrong") })).rejects.toMatchObject({
      code: "checksum_mismatch",
      message: expect.stringContaining(right.value),
    });
    expect(await left()).toEqual(["out"]);
  });

  it("are compared: CRC-64/NVME, of ranges in any order", async () => {
    await using server = await RangeServer.start();
    const body = Buffer.alloc(3 * rangeBytes + 5, "123456789");
    server.put("/m.gguf", body);
    const crc = referenceCrc64(body);
    await fetchOne(server, { checksum: { algorithm: "crc64nvme", value: crc } });
    await fetchOne(server, {
      checksum: { algorithm: "crc64nvme", value: crc },
      directory: join(directory, "again"),
      limits: { ...limits, directFromBytes: Infinity },
    });
    await expect(
      fetchOne(server, {
        checksum: { algorithm: "crc64nvme", value: "AAAAAAAAAAA=" },
        directory: join(directory, "wrong"),
      }),
    ).rejects.toMatchObject({ code: "checksum_mismatch", message: expect.stringContaining(crc) });
  });

  it("tell bytes that the network changed", async () => {
    await using server = await RangeServer.start();
    const changed = Buffer.from(model);
    changed[700_000] = 1 + (changed[700_000] ?? 0);
    server.put("/m.gguf", changed, '"same"');
    await expect(fetchOne(server, { sha256: sha256(model) })).rejects.toMatchObject({ code: "checksum_mismatch" });
    expect(await left()).toEqual([]);
  });
});

describe("verification", () => {
  it("reports all bytes once, and ends at once when it is cancelled", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    const seen: DownloadProgress[] = [];
    await fetchOne(server, { sha256: sha256(model), onProgress: (progress) => seen.push(progress) });
    for (const phase of ["download", "verify"] as const) {
      const last = seen.findLast((progress) => progress.phase === phase);
      expect(last).toMatchObject({ bytesDone: model.length, bytesTotal: model.length });
    }
    const controller = new AbortController();
    const reason = new Error("the agent stops");
    const onProgress = ({ phase }: DownloadProgress) => {
      if (phase === "verify") controller.abort(reason);
    };
    const options = { signal: controller.signal, directory: join(directory, "other"), onProgress };
    await expect(fetchOne(server, { sha256: sha256(model), ...options })).rejects.toBe(reason);
    expect(await left()).toEqual(["other.part", "other.part.json", "out"]);
    // All of it is there: it is read once more, not transferred.
    server.requests.length = 0;
    await fetchOne(server, { sha256: sha256(model), directory: join(directory, "other") });
    expect(server.reads).toEqual([]);
    expect((await readFile(join(directory, "other", "m.gguf"))).equals(model)).toBe(true);
  });
});

describe("faults on the fast path", () => {
  it("goes on inside a range whose stream was cut", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(5, { kind: "cut", afterBytes: 40_000 }, isRange);
    await fetchOne(server, { sha256: sha256(model) });
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual([]);
    // What a break loses is at most a page.
    expect(server.bytesServed).toBeLessThan(model.length + 5 * 40_000);
  });

  it.each([429, 500, 503])("tries again after %i", async (status) => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(6, { kind: "status", status }, isRange);
    await fetchOne(server, { sha256: sha256(model) });
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual([]);
  });

  it("asks again for a range that the server took for another", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    const headers = { "content-range": `bytes 1-${rangeBytes}/${model.length}` };
    server.fail(2, { kind: "headers", headers }, isRange);
    await fetchOne(server, { sha256: sha256(model) });
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual([]);
    expect(server.reads).toHaveLength(Math.ceil(model.length / rangeBytes) + 2);
  });

  it("waits as long as Retry-After says", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(
      1,
      { kind: "status", status: 503, headers: { "retry-after": "1" } },
      (request) => isRange(request) && request.range?.[0] === 0,
    );
    const started = performance.now();
    await fetchOne(server, { limits: { ...limits, retryMaxMs: 1_000 } });
    expect(performance.now() - started).toBeGreaterThan(900);
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
  });

  it("cuts a connection that has gone silent", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(2, { kind: "stall" }, isRange);
    await fetchOne(server, { sha256: sha256(model), limits: { ...limits, stallTimeoutMs: 200 } });
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual([]);
  });

  it.each([
    ["by ETag", patternedBytes(model.length, 9)],
    ["by length", patternedBytes(model.length + 1, 9)],
  ])("says that a file was replaced, %s, and keeps nothing of it", async (_, other) => {
    await using server = await RangeServer.start({ ifRange: false });
    server.put("/m.gguf", model);
    server.faults.push(({ range }) => {
      if (range?.[0] === 5 * rangeBytes) server.put("/m.gguf", other);
      return undefined;
    });
    await expect(fetchOne(server)).rejects.toMatchObject({ code: "source_failed", retry: "start_over" });
    expect(await left()).toEqual([]);
    expect(fallbacks).toEqual([]);
  });

  it("asks for a fresh request when a signed link has expired", async () => {
    await using server = await RangeServer.start({
      route: ({ path }, { requests }) =>
        path === "/m.gguf"
          ? { status: 302, headers: { location: `/signed-${requests.filter((r) => r.path === "/m.gguf").length}` } }
          : undefined,
    });
    for (let link = 1; link <= 4; link += 1) server.put(`/signed-${link}`, model, '"v1"');
    // The list takes the first link, the first direct request the second; that one expires on the way.
    server.faults.push(({ path }) =>
      path === "/signed-2" && server.reads.length > 6 ? { kind: "status", status: 403 } : undefined,
    );
    await fetchOne(server, { sha256: sha256(model) });
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual([]);
    expect(server.reads.some(({ path }) => path === "/signed-3")).toBe(true);
  });

  it("frees sockets, files and memory at once when it is cancelled", async () => {
    await using server = await RangeServer.start({ bytesPerSecond: 200_000 });
    server.put("/m.gguf", model);
    const before = openFiles().length;
    const controller = new AbortController();
    const reason = new Error("the agent stops");
    server.faults.push(() => {
      if (server.openConnections >= 4) setTimeout(() => controller.abort(reason), 50);
      return undefined;
    });
    await expect(fetchOne(server, { signal: controller.signal })).rejects.toBe(reason);
    await expect.poll(() => server.openConnections).toBeLessThanOrEqual(1);
    // undici keeps the connection that listed; the server's end of it is in this process too.
    expect(openFiles().length).toBeLessThanOrEqual(before + 2);
    expect(openFiles().filter((target) => target.includes("m.gguf"))).toEqual([]);
    expect(await left()).toEqual(["out.part", "out.part.json"]);
  });
});

describe("several downloads at once", () => {
  it("share the threads, and one that is cancelled does not hurt the other", async () => {
    await using slow = await RangeServer.start({ bytesPerSecond: 300_000 });
    await using fast = await RangeServer.start();
    const controller = new AbortController();
    const reason = new Error("no longer wanted");
    slow.put("/m.gguf", model);
    fast.put("/m.gguf", model);
    const cancelled = fetchOne(slow, { signal: controller.signal, directory: join(directory, "slow") });
    const outcome = cancelled.catch((thrown: unknown) => thrown);
    await expect.poll(() => slow.bytesServed).toBeGreaterThan(50_000);
    const kept = fetchOne(fast, {
      sha256: sha256(model),
      onProgress: ({ bytesDone }) => {
        if (bytesDone > 0) controller.abort(reason);
      },
    });
    expect(await outcome).toBe(reason);
    await kept;
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual([]);
  });
});

describe("the way around", () => {
  it("is taken for small files, and where a proxy must be used", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    await fetchOne(server, { sha256: sha256(model), limits: { ...limits, directFromBytes: model.length + 1 } });
    const proxied = createSource(`${server.url}/m.gguf`, { proxied: true });
    await fetchOne(server, { sha256: sha256(model), source: proxied, directory: join(directory, "proxied") });
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual(["small", "no_request"]);
    expect(server.reads.some(isDirect)).toBe(false);
  });

  it.each([
    ["chunks", { kind: "chunked" }, "odd_answer"],
    ["an encoding", { kind: "headers", headers: { "content-encoding": "br" } }, "odd_answer"],
    ["no Content-Range", { kind: "headers", headers: { "content-range": "bytes */*" } }, "odd_answer"],
    ["a head without end", { kind: "headers", headers: { "x-long": "x".repeat(20_000) } }, "odd_answer"],
    ["more than was asked for", { kind: "overrun", extraBytes: 1 }, "odd_answer"],
    ["a redirect, twice", { kind: "status", status: 307, headers: { location: "/m.gguf?moved" } }, "refused"],
  ] as const)("is taken for a server that answers with %s", async (_, fault, reason) => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    server.fail(Infinity, fault, (request) => isDirect(request));
    await fetchOne(server, { sha256: sha256(model) });
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual([reason]);
  });

  it("is taken half-way, and what came before is kept", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    let direct = 0;
    server.faults.push((request) => {
      if (!isDirect(request)) return undefined;
      direct += 1;
      return direct > 8 ? { kind: "chunked" } : undefined;
    });
    await fetchOne(server, { sha256: sha256(model) });
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual(["odd_answer"]);
    expect(server.bytesServed).toBeLessThan(model.length + 5 * rangeBytes);
  });

  it("is taken for a server that speaks only HTTP/2", async () => {
    const http2 = createHttp2Server();
    const plain = await RangeServer.start();
    await using _ = plain;
    plain.put("/m.gguf", model);
    await new Promise<void>((resolve) => http2.listen(0, "127.0.0.1", () => resolve()));
    const { port } = http2.address() as AddressInfo; // a TCP server that listens has one
    const source = misled(plain, `http://127.0.0.1:${port}/m.gguf`);
    await fetchOne(plain, { source, sha256: sha256(model) });
    http2.close();
    expect((await result()).equals(model)).toBe(true);
    expect(fallbacks).toEqual(["not_http1"]);
  });

  it("is taken when a header would be two", async () => {
    await using server = await RangeServer.start();
    server.put("/m.gguf", model);
    const source = misled(server, `${server.url}/m.gguf`);
    const url = new URL(`${server.url}/m.gguf`);
    const headers = { authorization: "Bearer a\r\nEvil: 1" };
    const two: Source = { ...source, direct: async () => ({ url, headers, etag: null }) };
    await fetchOne(server, { source: two, sha256: sha256(model) });
    expect(fallbacks).toEqual(["no_request"]);
    expect(server.requests.filter(({ headers: sent }) => "evil" in sent)).toEqual([]);
  });

  it("is taken when the threads die", async () => {
    await using engine = new DirectEngine();
    // Hashing what should be there from an earlier try fails: the thread cannot know why, and ends.
    const absent = {
      path: join(directory, "absent"),
      sizeBytes: 2 ** 20,
      algorithm: "sha256",
      onDisk: [[0, 5]],
    } as const;
    const number = engine.open(absent);
    expect(await engine.digest(number, { signal: never, onBytes: () => undefined })).toBeUndefined();
    const order = { file: number, start: 0, end: 5, url: "http://127.0.0.1:1/", headers: {}, etag: null };
    const landed = await engine.fetch({ ...order, stallTimeoutMs: 1_000 }, { signal: never, onBytes: () => undefined });
    expect(landed).toEqual({ position: 0, outcome: { kind: "unfit", reason: "worker_died" } });
  });

  it("refuses hostile heads without reading them for ever", async () => {
    const plain = await RangeServer.start();
    await using _ = plain;
    plain.put("/m.gguf", model);
    let sent = 0;
    const endless = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.write("HTTP/1.1 206 OK\r\n");
      const more = (): void => {
        sent += 1_000;
        if (socket.write(`x: ${"y".repeat(996)}\r\n`)) setImmediate(more);
        else socket.once("drain", more);
      };
      more();
    });
    await new Promise<void>((resolve) => endless.listen(0, "127.0.0.1", () => resolve()));
    const { port } = endless.address() as AddressInfo; // a TCP server that listens has one
    const source = misled(plain, `http://127.0.0.1:${port}/m.gguf`);
    await fetchOne(plain, { source, sha256: sha256(model) });
    endless.close();
    expect(fallbacks).toEqual(["odd_answer"]);
    expect(sent).toBeGreaterThan(10_000);
  });
});

/** The server's file, but plain requests for it go to `url`. */
function misled(server: RangeServer, url: string): Source {
  const source = createSource(`${server.url}/m.gguf`);
  return {
    uri: source.uri,
    list: (signal) => source.list(signal),
    readRange: (file, range) => source.readRange(file, range),
    direct: async () => ({ url: new URL(url), headers: {}, etag: null }),
  };
}

/** Bit by bit, as the definition has it. */
function referenceCrc64(bytes: Buffer): string {
  let state = 0xffff_ffff_ffff_ffffn;
  for (const byte of bytes) {
    state ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit += 1)
      state = (state & 1n) === 1n ? (state >> 1n) ^ 0x9a6c9329ac4bc9b5n : state >> 1n;
  }
  const sum = Buffer.alloc(8);
  sum.writeBigUInt64BE(state ^ 0xffff_ffff_ffff_ffffn);
  return sum.toString("base64");
}
