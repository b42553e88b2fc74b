import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { startFakeAgent, type FakeAgent } from "../../fakes/agent.ts";
import { temporaryFolder, type TemporaryFolder } from "../../support/folders.ts";
import { startProgram, type Program } from "../../support/program.ts";
import { lackingPostgres, postgres, type PostgresServer } from "../../support/servers/postgres.ts";
import { redis, type RedisServer } from "../../support/servers/redis.ts";
import { lacking } from "../../support/servers/tools.ts";

// Two gateways as operators run them, on one Redis and one PostgreSQL, in front of one agent.

const reason = lackingPostgres() ?? lacking("redis-server");
const adminKey = "the-key-of-the-configuration";
const answer = { id: "x", choices: [], usage: { prompt_tokens: 10, completion_tokens: 20, total_tokens: 30 } };

describe.skipIf(reason !== undefined)(`two gateways${reason === undefined ? "" : ` (skipped: ${reason})`}`, () => {
  let folder: TemporaryFolder;
  let store: RedisServer;
  let records: PostgresServer;
  let agent: FakeAgent;
  let database: string;
  const gateways: Program[] = [];

  beforeAll(async () => {
    [folder, store, records, agent] = await Promise.all([temporaryFolder(), redis(), postgres(), startFakeAgent()]);
    agent.behaviour = {
      onLoad: () => delay(300),
      onInfer: (_, outgoing) =>
        void outgoing.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer)),
    };
    database = await records.newDatabase();
    for (let each = 0; each < 2; each += 1) gateways.push(await start());
  });
  afterAll(async () => {
    for (const each of gateways) await each[Symbol.asyncDispose]();
    await agent[Symbol.asyncDispose]();
    await Promise.all([store, records, folder].map((each) => each[Symbol.asyncDispose]()));
  });

  async function start(): Promise<Program> {
    const config = {
      port: 0,
      fleets: [{ name: "f", agents: { kind: "static", urls: [agent.url] } }],
      models: [{ id: "m", source: "file:///m.gguf", fleet: "f", engine: { kind: "embedded" } }],
      responseCache: { models: ["m"], seconds: 60 },
      tenants: [{ id: "acme", limits: { requestsPerMinute: 30 } }, { id: "other" }],
      stores: { directory: join(folder.path, "stores") },
    };
    const path = join(folder.path, "gateway.yaml");
    await writeFile(path, JSON.stringify(config));
    return startProgram("gateway", {
      args: ["--config", path],
      env: {
        PENSTOCK_AGENT_TOKEN: agent.token,
        PENSTOCK_API_KEY: adminKey,
        PENSTOCK_REDIS_URL: store.url,
        PENSTOCK_POSTGRES_URL: database,
      },
    });
  }

  function post(gateway: number, path: string, { body, key = adminKey }: { body: object; key?: string }) {
    return fetch(`${gateways[gateway]?.url}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  const ask = (gateway: number, key: string) =>
    post(gateway, "/v1/chat/completions", { body: { model: "m", messages: [{ role: "user", content: "hi" }] }, key });

  test("share keys, limits and loads: what one allows, the other counts", async () => {
    const created = await post(0, "/admin/keys", { body: { tenant: "acme", name: "shared" } });
    const { key } = z.object({ key: z.string() }).parse(await created.json());
    const answers = await Promise.all(Array.from({ length: 80 }, (_, at) => ask(at % 2, key)));
    const served = answers.filter(({ status }) => status === 200);
    expect(served).toHaveLength(30);
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 429]));
    await Promise.all(served.map((each) => each.text()));
    expect(agent.loads).toBe(1);
  });

  test("share answers: what one was told, the other tells again, and to no other tenant", async () => {
    const created = await post(0, "/admin/keys", { body: { tenant: "other", name: "one" } });
    const { key } = z.object({ key: z.string() }).parse(await created.json());
    const body = { model: "m", temperature: 0, messages: [{ role: "user", content: "Is it kept?" }] };
    const hitOf = async (gateway: number, who: string): Promise<string | null> => {
      const response = await post(gateway, "/v1/chat/completions", { body, key: who });
      expect(await response.json()).toEqual(answer);
      return response.headers.get("x-penstock-cache");
    };
    expect(await hitOf(0, adminKey)).toBeNull();
    await expect.poll(() => hitOf(1, adminKey)).toBe("hit");
    expect(await hitOf(1, key)).toBeNull();
  });

  test("SIGTERM lets open requests end, and writes the ledger", async () => {
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    let inFlight = 0;
    agent.behaviour = {
      async onInfer(_, outgoing) {
        inFlight += 1;
        await released;
        outgoing.end(JSON.stringify(answer));
      },
    };
    const open = ask(0, adminKey);
    await expect.poll(() => inFlight).toBe(1);
    gateways[0]?.kill("SIGTERM");
    await expect.poll(() => gateways[0]?.output()).toContain("draining");
    const late = await ask(0, adminKey).catch(() => undefined);
    expect([503, undefined]).toContain(late?.status);
    release();
    expect((await open).status).toBe(200);
    expect(await gateways[0]?.exited).toBe(0);
    expect(gateways[0]?.output()).not.toContain("usage records are lost");
  });

  test("Redis goes away: requests go on with the limits that this gateway knows", async () => {
    agent.behaviour = { onInfer: (_, outgoing) => void outgoing.end(JSON.stringify(answer)) };
    process.kill(store.pid, "SIGKILL");
    const statuses: number[] = [];
    for (let request = 0; request < 10; request += 1) statuses.push((await ask(1, adminKey)).status);
    expect(new Set(statuses)).toEqual(new Set([200]));
    const stats = () => fetch(`${gateways[1]?.url}/stats`, { headers: { authorization: `Bearer ${adminKey}` } });
    // Only requests with limits ask the store; these ask it.
    expect(await (await stats()).json()).toMatchObject({ store: { dropped: 0 } });
  });

  test("a config that is wrong is not taken, and a right one is, without an end", async () => {
    const path = join(folder.path, "gateway.yaml");
    const [, second] = gateways;
    await writeFile(path, "models: 7");
    second?.kill("SIGHUP");
    await expect.poll(() => second?.output()).toContain("the new config is not used");
    expect((await ask(1, adminKey)).status).toBe(200);
  });
});
