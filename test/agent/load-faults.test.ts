import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { RangeServer } from "../fakes/range-server.ts";
import { smallDisk } from "../support/folders.ts";
import { demoModel } from "../support/repository.ts";
import { loadOf, simAgent, simModel } from "./sim-agent.ts";

// What goes wrong between the blob store and the disk, as the caller of `load_model` sees it. The embedded engine is real.

const bytes = await readFile(demoModel);

async function served(): Promise<RangeServer> {
  const server = await RangeServer.start();
  server.put("/demo.gguf", bytes);
  return server;
}

const requestFor = (server: RangeServer, sha256?: string) => ({
  model_id: "demo",
  model: { id: "demo", source: `${server.url}/demo.gguf`, ...(sha256 === undefined ? {} : { sha256 }) },
  engine: { kind: "embedded" },
});

test("a network that is cut three times and comes back ends in a model that serves", async () => {
  await using sim = await simAgent();
  await using server = await served();
  server.fail(3, { kind: "cut", afterBytes: 800_000 }, ({ range }) => range !== null && range[1] > 1);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  expect((await sim.post("/load_model", requestFor(server, sha256))).body).toMatchObject({ cache_state: "READY" });
  expect(server.reads.length).toBeGreaterThan(3);
});

test("a blob that was cut short before it was uploaded is no model, and is said to be none", async () => {
  await using sim = await simAgent();
  await using server = await served();
  server.put("/demo.gguf", bytes.subarray(0, 1_000_000));
  const failed = await sim.post("/load_model", requestFor(server));
  expect(failed).toMatchObject({ status: 503, body: { error: { code: "model_file_invalid" } } });
  expect((await sim.beat()).cache.entries).toEqual([]);
});

test("a blob with other bytes than its checksum is refused, and nothing of it stays", async () => {
  await using sim = await simAgent();
  await using server = await served();
  const failed = await sim.post("/load_model", requestFor(server, "0".repeat(64)));
  expect(failed).toMatchObject({ status: 503, body: { error: { code: "checksum_mismatch" } } });
  expect(await sim.beat()).toMatchObject({ cache: { entries: [] }, disk: { cache_bytes: 0 } });
});

test("a blob that is replaced while it is read: the model that serves is the new one, whole", async () => {
  await using sim = await simAgent();
  await using server = await served();
  server.put("/demo.gguf", Buffer.alloc(bytes.length));
  server.fail(1, { kind: "cut", afterBytes: 500_000 }, ({ range }) => {
    if (range !== null && range[1] > 1) server.put("/demo.gguf", bytes);
    return range !== null && range[1] > 1;
  });
  expect((await sim.post("/load_model", requestFor(server))).body).toMatchObject({ cache_state: "READY" });
});

test("a full disk is an error with the arithmetic, and a model that is not used makes room", async (context) => {
  await using disk = await smallDisk(context, "size=4m");
  await using sim = await simAgent({ cacheDirectory: join(disk.path, "cache"), cache: { reserveFreeBytes: 0 } });
  await using server = await served();
  server.put("/large.gguf", Buffer.alloc(8_000_000));
  const large = {
    ...requestFor(server),
    model_id: "large",
    model: { id: "large", source: `${server.url}/large.gguf` },
  };
  const refused = await sim.post("/load_model", large);
  expect(refused.status).toBe(507);
  expect(refused.body.error.message).toMatch(/8000000|7\.63 MiB|0\.01 GiB/);
  expect((await sim.post("/load_model", requestFor(server))).body).toMatchObject({ cache_state: "READY" });
  // The same bytes under another name do not fit beside the first; in use, they stay, and idle, they go.
  server.put("/second.gguf", bytes);
  const second = {
    ...requestFor(server),
    model_id: "second",
    model: { id: "second", source: `${server.url}/second.gguf` },
  };
  expect((await sim.post("/load_model", second)).status).toBe(507);
  await sim.post("/unload_model", { model_id: "demo" });
  expect((await sim.post("/load_model", second)).body).toMatchObject({ cache_state: "READY" });
  expect((await sim.beat()).cache.entries).toMatchObject([{ model_ids: ["second"] }]);
});

test("a budget holds before bytes are written: pinned and used models stay, the least recently used one goes", async () => {
  await using sim = await simAgent({ cache: { budgetBytes: 2_500 } });
  const load = async (id: string, more: object = {}) =>
    sim.post(
      "/load_model",
      loadOf(id, await simModel(sim.folder, id), { engine: { gpuMemoryUtilization: 0.2 }, ...more }),
    );
  const sizes = async () => (await sim.beat()).cache.entries?.map(({ model_ids }) => model_ids[0]).toSorted();
  expect((await load("pinned", { pinned: true })).status).toBe(200);
  await sim.post("/unload_model", { model_id: "pinned" });
  const { disk } = await sim.beat();
  // As many as fit, then one more.
  const fitting = Math.floor(2_500 / disk.cache_bytes);
  const names = Array.from({ length: fitting }, (_, at) => `m${at}`);
  for (const name of names) {
    expect((await load(name)).status).toBe(200);
    await sim.post("/unload_model", { model_id: name });
  }
  expect(await sizes()).toEqual([...names.slice(1), "pinned"]);
  expect((await sim.beat()).disk).toMatchObject({ cache_budget_bytes: 2_500 });
});
