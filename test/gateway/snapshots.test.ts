import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import type { Heartbeat } from "../../runtime/contracts/agent.ts";
import { AgentClient } from "../../runtime/gateway/fleet/agent-client.ts";
import { FleetSnapshots, type Observed } from "../../runtime/gateway/fleet/snapshots.ts";
import { FileHotStore } from "../../runtime/gateway/stores/hot-file.ts";
import { MemoryHotStore } from "../../runtime/gateway/stores/hot-memory.ts";
import { openHotStore, type HotStoreOptions } from "../../runtime/gateway/stores/index.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { startFakeAgent } from "../fakes/agent.ts";
import { temporaryFolder } from "../support/folders.ts";
import { startProgram, type Program } from "../support/program.ts";
import { redis } from "../support/servers/redis.ts";
import { lacking } from "../support/servers/tools.ts";
import { HeldBack } from "./held-back.ts";
import { answers, apiKey, chat, gatewayUnderTest } from "./support.ts";

const log = createLog("test", "silent");
const fail = (error: unknown) => {
  throw error;
};

const listing = z.object({ data: z.array(z.object({ id: z.string(), penstock: z.looseObject({}) })) });
const stats = z.object({ agents: z.array(z.looseObject({ url: z.string(), stale: z.boolean() })) });

const get = (program: Program, path: string) =>
  fetch(program.url + path, { headers: { authorization: `Bearer ${apiKey}` } });

const staleOf = async (program: Program) =>
  stats.parse(await (await get(program, "/stats")).json()).agents.map(({ stale }) => stale);

describe.each(["a file", "Redis"])("a gateway that was killed, with its hot store in %s", (kind) => {
  const reason = kind === "Redis" ? lacking("redis-server") : undefined;

  test.skipIf(reason !== undefined)("knows its fleet at once, before any agent has answered", async () => {
    await using folder = await temporaryFolder();
    await using server = kind === "Redis" ? await redis() : { url: "", [Symbol.asyncDispose]: async () => undefined };
    await using agent = await startFakeAgent({ onInfer: answers({ ok: true }) });
    agent.state = "READY";
    await using way = new HeldBack(agent.url, "/heartbeat");
    const agentUrl = await way.start();
    const config = join(folder.path, "gateway.yaml");
    const model = { id: "m", source: "file:///m.gguf", fleet: "f", engine: { kind: "embedded" } };
    await writeFile(
      config,
      JSON.stringify({
        port: 0,
        fleets: [{ name: "f", agents: { kind: "static", urls: [agentUrl] } }],
        models: [model],
        stores: { directory: folder.path },
      }),
    );
    const env = {
      PENSTOCK_AGENT_TOKEN: agent.token,
      PENSTOCK_API_KEY: apiKey,
      ...(kind === "Redis" ? { PENSTOCK_REDIS_URL: server.url } : {}),
    };
    const start = () => startProgram("gateway", { args: ["--config", config], env });
    const ask = (program: Program) =>
      fetch(`${program.url}/v1/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${apiKey}` },
        body: JSON.stringify(chat),
      });
    const hot: HotStoreOptions =
      kind === "Redis"
        ? { kind: "redis", url: server.url, onStoreFailure: "deny", onChange: () => undefined, timeoutMs: 30_000 }
        : { kind: "memory", file: join(folder.path, "limits.sqlite") };
    const isWritten = async (): Promise<boolean> => {
      await using store = await openHotStore(hot, fail);
      return (await new FleetSnapshots(store, log).read(agentUrl, "f")) !== null;
    };
    {
      await using first = await start();
      expect((await ask(first)).status).toBe(200);
      expect(await staleOf(first)).toEqual([false]);
      await expect.poll(isWritten, { timeout: 15_000, interval: 200 }).toBe(true);
      first.kill("SIGKILL");
      await first.exited;
    }
    way.isHolding = true;
    way.answered = 0;
    await using second = await start();
    expect((await get(second, "/ready")).status).toBe(200);
    expect((await ask(second)).status).toBe(200);
    const { data } = listing.parse(await (await get(second, "/v1/models")).json());
    expect(data).toMatchObject([{ id: "m", penstock: { state: "READY", stale: true } }]);
    expect(await staleOf(second)).toEqual([true]);
    expect({ answered: way.answered, loads: agent.loads }).toEqual({ answered: 0, loads: 0 });
    expect(way.asked).toBeGreaterThan(0);
    way.release();
    await expect.poll(() => staleOf(second), { timeout: 10_000 }).toEqual([false]);
  });
});

/** A heartbeat of a fake agent whose model is READY. */
async function readyBeat(): Promise<Heartbeat> {
  await using agent = await startFakeAgent();
  agent.state = "READY";
  return await new AgentClient(agent.url, agent.token).heartbeat();
}

/** An entry as another gateway, or a liar, wrote it. */
function entry(url: string, beat: unknown, about: object = {}): Buffer {
  return Buffer.from(JSON.stringify({ url, fleet: "test", atMs: Date.now(), pausedMs: 0, beat, ...about }));
}

describe("a snapshot that is wrong", () => {
  test.each([
    ["names a model that the agent has not", {}],
    ["says that the only agent is to be left alone", { pausedMs: 30_000 }],
    ["leads elsewhere", { elsewhere: true }],
  ] as [string, { pausedMs?: number; elsewhere?: boolean }][])(
    "and %s costs one refused attempt, and no request",
    async (_, { elsewhere = false, ...about }) => {
      await using folder = await temporaryFolder();
      await using stranger = await startFakeAgent({ onInfer: () => fail(new Error("nobody may come here")) });
      const beat = await readyBeat();
      if (elsewhere) for (const model of beat.models) model.inference_endpoint_url = `${stranger.url}/unload_model?`;
      const file = join(folder.path, "hot.sqlite");
      let refused = 0;
      await using agent = await startFakeAgent({
        onInfer(incoming, outgoing, body) {
          expect(incoming.url).toBe("/infer/m/v1/chat/completions");
          if (agent.loads > 0) return answers({ ok: true })(incoming, outgoing, body);
          refused += 1;
          way.release();
          const error = { message: "not loaded", type: "server_error", code: "model_not_ready", param: null };
          outgoing.writeHead(503).end(JSON.stringify({ error }));
        },
      });
      // Until the first request is refused, nothing but the snapshot tells of the agent.
      await using way = new HeldBack(agent.url, "/heartbeat");
      way.isHolding = true;
      const url = await way.start();
      {
        await using store = new FileHotStore(file, fail);
        expect(await store.remember(`agent:${url}`, entry(url, beat, about), 60_000)).toBe(true);
      }
      await using under = await gatewayUnderTest(
        {},
        {
          fleets: [{ name: "test", agents: { kind: "static", urls: [url] } }],
          stores: { hot: { kind: "memory", file }, record: { kind: "sqlite", file: ":memory:" } },
        },
      );
      expect((await under.post("/v1/chat/completions", chat)).status).toBe(200);
      expect({ refused, loads: agent.loads }).toEqual({ refused: 1, loads: 1 });
    },
  );

  test("of one agent sends requests to the others, and to it when they are gone", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "hot.sqlite");
    const beat = await readyBeat();
    const asked = { paused: 0, good: 0 };
    const counted = (which: keyof typeof asked) =>
      startFakeAgent({
        onInfer(incoming, outgoing, body) {
          asked[which] += 1;
          return answers({ ok: true })(incoming, outgoing, body);
        },
      });
    await using paused = await counted("paused");
    await using good = await counted("good");
    paused.state = "READY";
    good.state = "READY";
    {
      await using store = new FileHotStore(file, fail);
      await store.remember(`agent:${paused.url}`, entry(paused.url, beat, { pausedMs: 30_000 }), 60_000);
      await store.remember(`agent:${good.url}`, entry(good.url, beat), 60_000);
    }
    await using under = await gatewayUnderTest(
      {},
      {
        fleets: [{ name: "test", agents: { kind: "static", urls: [paused.url, good.url] } }],
        stores: { hot: { kind: "memory", file }, record: { kind: "sqlite", file: ":memory:" } },
      },
    );
    for (let at = 0; at < 10; at += 1) await (await under.post("/v1/chat/completions", chat)).text();
    expect(asked).toEqual({ paused: 0, good: 10 });
    await good.close();
    expect((await under.post("/v1/chat/completions", chat)).status).toBe(200);
    expect(asked.paused).toBe(1);
  });

  test("is not used when it is old, of tomorrow, of another agent or fleet, or too large", async () => {
    const store = new MemoryHotStore();
    const snapshots = new FleetSnapshots(store, log);
    const beat = await readyBeat();
    const url = "http://10.0.0.1:8081";
    const read = async (bytes: Uint8Array) => {
      await store.remember(`agent:${url}`, bytes, 60_000);
      return snapshots.read(url, "test");
    };
    expect(await read(entry(url, beat))).toMatchObject({ pausedMs: 0, beat: { models: [{ cache_state: "READY" }] } });
    const minuteMs = 60_000;
    const wrong = [
      entry(url, beat, { atMs: Date.now() - 16 * minuteMs }),
      entry(url, beat, { atMs: Date.now() + 2 * minuteMs }),
      entry(url, beat, { url: "http://10.0.0.2:8081" }),
      entry(url, beat, { fleet: "other" }),
      entry(url, beat, { pausedMs: 1e9 }),
      entry(url, { ...beat, models: [{ ...beat.models[0], model_id: "../../etc" }] }),
      entry(url, beat, { ballast: "x".repeat(2 ** 20) }),
      entry(url, beat).subarray(0, 200),
      Buffer.alloc(0),
      Buffer.from("null"),
    ];
    for (const bytes of wrong) expect(await read(bytes)).toBeNull();
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map((text) => Buffer.from(text)),
        ),
        async (bytes) => {
          expect(await read(bytes)).toBeNull();
        },
      ),
    );
  });
});

test("what changed is written, and only that; nothing of agents that are silent or known from a snapshot", async () => {
  const beat = await readyBeat();
  const store = new MemoryHotStore();
  const keys: string[] = [];
  const values = {
    get: (key: string) => store.get(key),
    remember(key: string, value: Uint8Array, ttlMs: number) {
      keys.push(key);
      return store.remember(key, value, ttlMs);
    },
  };
  const snapshots = new FleetSnapshots(values, log);
  const known = (url: string, about: Partial<Observed> = {}): Observed => ({
    url,
    fleet: "test",
    last: beat,
    reachable: true,
    stale: false,
    breaker: { pausedMs: 0 },
    ...about,
  });
  await snapshots.save([known("a"), known("silent", { reachable: false }), known("old", { stale: true })]);
  expect(keys.splice(0)).toEqual(["agent:a"]);
  const [model] = beat.models;
  if (model === undefined) throw new Error("there is one model");
  // Busy, and nothing else.
  await snapshots.save([known("a", { last: { ...beat, models: [{ ...model, running: 7, idle_seconds: 3 }] } })]);
  expect(keys.splice(0)).toEqual([]);
  await snapshots.save([known("a", { breaker: { pausedMs: 5_000 } })]);
  expect(keys.splice(0)).toEqual(["agent:a"]);
  expect(await snapshots.read("a", "test")).toMatchObject({ pausedMs: expect.closeTo(5_000, -3) });
  const many = Array.from({ length: 1_000 }, () => model);
  await snapshots.save([known("huge", { last: { ...beat, models: many } })]);
  expect(keys).toEqual([]);
});

test("what is to be remembered is in the file, until it is deleted, replaced or over; nothing else is", async () => {
  await using folder = await temporaryFolder();
  const file = join(folder.path, "hot.sqlite");
  const bytes = Buffer.from([0, 1, 255]);
  {
    await using store = new FileHotStore(file, fail);
    for (const key of ["kept", "deleted", "replaced"]) await store.remember(key, bytes, 60_000);
    await store.remember("short", bytes, 1);
    await store.set("plain", bytes, 60_000);
    await store.delete("deleted");
  }
  {
    await using store = new FileHotStore(file, fail);
    const found = await Promise.all(["kept", "deleted", "short", "plain"].map((key) => store.get(key)));
    expect(found).toEqual([bytes, undefined, undefined, undefined]);
    await store.set("replaced", Buffer.from("new"), 60_000);
  }
  await using store = new FileHotStore(file, fail);
  expect(await store.get("replaced")).toBeUndefined();
  expect(await store.get("kept")).toEqual(bytes);
});
