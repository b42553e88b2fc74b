import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, stat, writeFile } from "node:fs/promises";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { download, type DownloadOptions } from "../../runtime/agent/downloads/download.ts";
import { createSource } from "../../runtime/agent/sources/index.ts";
import { patternedBytes, RangeServer, sha256, type Fault } from "../fakes/range-server.ts";
import { temporaryFolder } from "../support/folders.ts";
import { repository } from "../support/repository.ts";

const never = new AbortController().signal;
const kib = 1024;

async function fetchOne(
  url: string,
  { sum, ...options }: Partial<DownloadOptions> & { directory: string; sum?: string },
) {
  const source = createSource(url);
  const files = (await source.list(never)).map((file) => ({ ...file, sha256: sum ?? null }));
  const fallbacks: string[] = [];
  const onFallback = (_: unknown, reason: string): void => void fallbacks.push(reason);
  await download({ source, files, onProgress: () => undefined, signal: never, onFallback, ...options });
  return fallbacks;
}

describe("any size, range and fault", () => {
  const fault: fc.Arbitrary<Fault> = fc.oneof(
    fc.record({ kind: fc.constant("cut" as const), afterBytes: fc.integer({ min: 0, max: 100_000 }) }),
    fc.record({ kind: fc.constant("status" as const), status: fc.constantFrom(429, 500, 502, 503) }),
    fc.record({ kind: fc.constant("wrongLength" as const), extraBytes: fc.constantFrom(-5, 7) }),
    fc.record({ kind: fc.constant("chunked" as const) }),
    fc.constant({ kind: "stall" as const }),
  );
  const size = fc.oneof(
    fc.integer({ min: 0, max: 3_000_000 }),
    fc.integer({ min: 0, max: 300 }).map((pages) => pages * 4096),
  );

  it("give the same bytes", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          size,
          rangeBytes: fc.constantFrom(4096, 64 * kib, 100_000, 1024 * kib, 5000 * kib).filter((bytes) => bytes >= 4096),
          connections: fc.integer({ min: 1, max: 8 }),
          faults: fc.array(fc.tuple(fc.nat(40), fault), { maxLength: 4 }),
        }),
        async ({ size: length, rangeBytes, connections, faults }) => {
          await using folder = await temporaryFolder();
          await using server = await RangeServer.start();
          const body = patternedBytes(length, length + 1);
          server.put("/m.gguf", body);
          const left = new Map(faults);
          server.faults.push(({ range }) => {
            if (range === null || range[1] === 1) return undefined;
            const hit = left.get(server.reads.length);
            left.delete(server.reads.length);
            return hit;
          });
          await fetchOne(`${server.url}/m.gguf`, {
            directory: join(folder.path, "out"),
            sum: sha256(body),
            limits: {
              rangeBytes: Math.max(rangeBytes, Math.ceil(length / 50)),
              connections,
              directFromBytes: 0,
              attempts: 8,
              retryBaseMs: 1,
              retryMaxMs: 3,
              stallTimeoutMs: 300,
              noteEveryMs: 0,
            },
          });
          expect((await readFile(join(folder.path, "out", "m.gguf"))).equals(body)).toBe(true);
        },
      ),
      { numRuns: 12 },
    );
  }, 180_000);
});

describe("more than its memory holds", () => {
  it("hashes what came too early from disk", async () => {
    await using folder = await temporaryFolder();
    const size = 160 * 2 ** 20;
    const body = Buffer.alloc(size);
    const seed = patternedBytes(4099);
    for (let at = 0; at < size; at += seed.length) seed.copy(body, at);
    await using server = await RangeServer.start();
    server.put("/m.gguf", body, '"big"');
    // The first range waits until all others are there, which is more than all blocks.
    const { promise: until, resolve } = Promise.withResolvers<void>();
    server.fail(1, { kind: "hold", until }, ({ range }) => range?.[0] === 0 && range[1] > 1);
    const seen = new Set<number>();
    await fetchOne(`${server.url}/m.gguf`, {
      directory: join(folder.path, "out"),
      sum: sha256(body),
      limits: { connections: 4, rangeBytes: 8 * 2 ** 20 },
      onProgress: ({ bytesDone }) => {
        seen.add(bytesDone);
        if (bytesDone >= size - 8 * 2 ** 20) resolve();
      },
    });
    expect(seen.has(size - 8 * 2 ** 20)).toBe(true);
    expect(sha256(await readFile(join(folder.path, "out", "m.gguf")))).toBe(sha256(body));
  });
});

describe("connections", () => {
  it("grow in number against a server that limits each, and keep to a few otherwise", async () => {
    await using folder = await temporaryFolder();
    const body = patternedBytes(6_000_000);
    const limits = { rangeBytes: 64 * kib, directFromBytes: 0, firstConnections: 2, connections: 16, probeMs: 150 };
    await using slow = await RangeServer.start({ bytesPerSecond: 300_000 });
    slow.put("/m.gguf", body);
    const directory = join(folder.path, "slow");
    expect(await fetchOne(`${slow.url}/m.gguf`, { directory, sum: sha256(body), limits })).toEqual([]);
    // One more lists, and one finds out where to.
    expect(slow.connections).toBeGreaterThanOrEqual(8);
    expect(slow.connections).toBeLessThanOrEqual(18);
    expect(slow.reads.length).toBe(Math.ceil(body.length / limits.rangeBytes));
  });
});

/** A TCP relay that can be cut. */
async function relay(target: number) {
  const sockets = new Set<Socket>();
  let isCut = false;
  const server = createServer((near) => {
    sockets.add(near);
    near.on("error", () => undefined);
    if (isCut) {
      near.resetAndDestroy();
      return;
    }
    const far = connect(target, "127.0.0.1");
    sockets.add(far);
    far.on("error", () => near.destroy());
    near.pipe(far).pipe(near);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port, // a TCP server that listens has one
    cut(): void {
      isCut = true;
      for (const socket of sockets) socket.resetAndDestroy();
      sockets.clear();
    },
    restore: () => (isCut = false),
    [Symbol.dispose]: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

describe("a network that is cut and restored", () => {
  it("costs only what was on the way", async () => {
    await using folder = await temporaryFolder();
    await using server = await RangeServer.start({ bytesPerSecond: 2_000_000 });
    const body = patternedBytes(4_000_000);
    server.put("/m.gguf", body);
    using wire = await relay(Number(new URL(server.url).port));
    let cuts = 0;
    const fallbacks = await fetchOne(`http://127.0.0.1:${wire.port}/m.gguf`, {
      directory: join(folder.path, "out"),
      sum: sha256(body),
      limits: {
        rangeBytes: 256 * kib,
        directFromBytes: 0,
        connections: 4,
        attempts: 50,
        retryBaseMs: 10,
        retryMaxMs: 50,
        stallTimeoutMs: 2_000,
      },
      onProgress: ({ bytesDone }) => {
        if (cuts === 0 && bytesDone > 1_000_000) {
          cuts += 1;
          wire.cut();
          setTimeout(() => wire.restore(), 300);
        }
      },
    });
    expect(cuts).toBe(1);
    expect(fallbacks).toEqual([]);
    expect((await readFile(join(folder.path, "out", "m.gguf"))).equals(body)).toBe(true);
  });
});

describe("a process that is killed", () => {
  it("leaves what is on disk, and the next one asks only for the rest and hashes all of it", async () => {
    await using folder = await temporaryFolder();
    const body = patternedBytes(3_000_000);
    const sum = sha256(body);
    await using server = await RangeServer.start({ bytesPerSecond: 400_000 });
    server.put("/m.gguf", body);
    const directory = join(folder.path, "out");
    const limits = { rangeBytes: 64 * kib, directFromBytes: 0, connections: 4, noteEveryMs: 0 };
    const script = join(folder.path, "child.ts");
    await writeFile(
      script,
      `import { download } from ${JSON.stringify(join(repository, "runtime/agent/downloads/download.ts"))};
import { createSource } from ${JSON.stringify(join(repository, "runtime/agent/sources/index.ts"))};
const signal = new AbortController().signal;
const source = createSource(${JSON.stringify(`${server.url}/m.gguf`)});
const files = (await source.list(signal)).map((file) => ({ ...file, sha256: "${sum}" }));
const onProgress = (progress) => console.log(progress.bytesDone);
await download({ source, files, directory: ${JSON.stringify(directory)}, onProgress, signal, limits: ${JSON.stringify(limits)} });
`,
    );
    const child = spawn(process.execPath, [script], { stdio: ["ignore", "pipe", "inherit"] });
    for await (const text of child.stdout.setEncoding("utf8")) {
      const state = await readFile(`${directory}.part.json`, "utf8").catch(() => "");
      const noted = (JSON.parse(state === "" ? '{"files":[{"done":[]}]}' : state) as { files: [{ done: number[] }] })
        .files[0]; // our own note
      if (String(text).length > 0 && noted.done.length >= 12) break;
    }
    child.kill("SIGKILL");
    await once(child, "close");
    expect(await stat(directory).catch(() => "none")).toBe("none");
    server.requests.length = 0;
    server.bytesServed = 0;
    expect(await fetchOne(`${server.url}/m.gguf`, { directory, sum, limits })).toEqual([]);
    expect((await readFile(join(directory, "m.gguf"))).equals(body)).toBe(true);
    expect(server.reads.length).toBeLessThanOrEqual(Math.ceil(body.length / limits.rangeBytes) - 12);
    expect(server.reads.length).toBeGreaterThan(0);
  });
});
