import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { engineSpec } from "../../runtime/contracts/engine.ts";
import { tenant } from "../../runtime/contracts/tenant.ts";
import { startGateway } from "../../runtime/gateway/gateway.ts";
import type { GatewayOptions, Reloadable, ServedModel } from "../../runtime/gateway/options.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { simAgent, simModel } from "../agent/sim-agent.ts";
import { temporaryFolder } from "../support/folders.ts";
import { lackingPostgres, postgres } from "../support/servers/postgres.ts";
import { proxy } from "../support/servers/proxy.ts";
import { answers, chat, gatewayUnderTest, servedModel, type GatewayUnderTest } from "./support.ts";

const usage = { prompt_tokens: 0, completion_tokens: 10, total_tokens: 10 };

/** The same config, anew: another model beside, more requests, another price. */
const changed: Reloadable = {
  models: [servedModel, { ...servedModel, spec: { ...servedModel.spec, id: "n" } }],
  aliases: { chat: [{ model: "m", weight: 1 }] },
  tenants: [
    tenant.parse({ id: "acme", limits: { requestsPerMinute: 100 } }),
    tenant.parse({ id: "default", models: ["another"] }),
  ],
  prices: { m: { perMillionCompletionTokens: 100_000 } },
  routing: "round_robin",
};

/** What of `changed` holds in a gateway. */
async function holding(under: GatewayUnderTest, key: string): Promise<Record<string, boolean>> {
  const { catalog } = under.gateway.registry;
  const as = { headers: { authorization: `Bearer ${key}` } };
  const limited = [
    await under.post("/v1/chat/completions", chat, as),
    await under.post("/v1/chat/completions", chat, as),
  ];
  const stats = z.object({ policy: z.string() }).parse(await (await under.get("/stats")).json());
  return {
    model: catalog.get("n") !== undefined,
    alias: Object.hasOwn(catalog.aliases, "chat"),
    limit: limited.some(({ headers }) => headers.get("x-ratelimit-limit-requests") === "100"),
    owner: (await under.post("/v1/chat/completions", chat)).status === 404,
    policy: stats.policy === "round_robin",
  };
}

const nothing = { model: false, alias: false, limit: false, owner: false, policy: false };
const everything = { model: true, alias: true, limit: true, owner: true, policy: true };

describe.skipIf(lackingPostgres() !== undefined)("a reload while PostgreSQL is away", () => {
  test("changes nothing, says so, and is taken whole when it is back", async () => {
    await using server = await postgres();
    const database = await server.newDatabase();
    await using way = await proxy(database);
    const url = new URL(database);
    url.port = new URL(way.url).port;
    const options: Partial<GatewayOptions> = {
      stores: { hot: { kind: "memory" }, record: { kind: "postgres", url: url.href } },
      tenants: [tenant.parse({ id: "acme", limits: { requestsPerMinute: 50 } })],
    };
    await using under = await gatewayUnderTest({ onInfer: answers({ id: "x", choices: [], usage }) }, options);
    const created = await under.post("/admin/keys", { tenant: "acme", name: "test" });
    const { key } = z.object({ key: z.string() }).parse(await created.json());
    expect(await holding(under, key)).toEqual(nothing);
    way.cutAfter(0);
    await expect(under.gateway.reload(changed)).rejects.toMatchObject({
      code: "upstream_failed",
      message: expect.stringContaining("nothing of the config is used"),
    });
    way.heal();
    expect(await holding(under, key)).toEqual(nothing);
    await under.gateway.reload(changed);
    expect(await holding(under, key)).toEqual(everything);
  });
});

test("of several tenants none is written when one cannot be", async () => {
  await using folder = await temporaryFolder();
  const record = { kind: "sqlite", file: join(folder.path, "records.sqlite") } as const;
  await using under = await gatewayUnderTest(
    { onInfer: answers({ id: "x", choices: [], usage }) },
    { stores: { hot: { kind: "memory" }, record }, tenants: [tenant.parse({ id: "acme", priority: 1 })] },
  );
  // What no config holds, and no database takes.
  const broken = { ...tenant.parse({ id: "zeta" }), id: Symbol("no text") as unknown as string };
  const tenants = [tenant.parse({ id: "acme", priority: 2 }), broken];
  await expect(under.gateway.reload({ ...changed, tenants })).rejects.toMatchObject({ code: "upstream_failed" });
  const { data: listed } = z
    .object({ data: z.array(z.looseObject({ id: z.string(), priority: z.number() })) })
    .parse(await (await under.get("/admin/tenants")).json());
  expect(listed.map(({ id, priority }) => [id, priority])).toEqual([["acme", 1]]);
  expect(under.gateway.registry.catalog.get("n")).toBeUndefined();
});

test("of two reloads at once the later one holds", async () => {
  await using under = await gatewayUnderTest();
  const named = (id: string): Reloadable => ({
    models: [servedModel],
    aliases: { [id]: [{ model: "m", weight: 1 }] },
  });
  await Promise.all([under.gateway.reload(named("first")), under.gateway.reload(named("second"))]);
  expect(Object.keys(under.gateway.registry.catalog.aliases)).toEqual(["second"]);
});

test("a version that was warmed for a config that is not used is taken down again", async () => {
  const token = randomBytes(16).toString("hex");
  await using sim = await simAgent({ token });
  const engine = engineSpec.parse({ kind: "vllm", gpuMemoryUtilization: 0.2 });
  const model = async (id: string, version: string, settings = {}): Promise<ServedModel> => {
    const source = await simModel(sim.folder, version, settings);
    return { spec: { id, source, format: "safetensors", adapters: [] }, engine, fleet: "f", warm: false };
  };
  const before = [await model("a", "a1"), await model("b", "b1")];
  const gateway = await startGateway(
    {
      listen: { host: "127.0.0.1", port: 0 },
      apiKey: "key",
      fleets: [{ name: "f", agents: { kind: "static", urls: [sim.agent.url] } }],
      agentToken: token,
      models: before,
      hold: { maxRequests: 100, maxBytes: 2 ** 20, maxSeconds: 30 },
      maxBodyBytes: 2 ** 20,
      firstByteTimeoutMs: 10_000,
      betweenBytesTimeoutMs: 10_000,
      drainTimeoutMs: 5_000,
    },
    createLog("gateway", "silent"),
  );
  await using _ = { [Symbol.asyncDispose]: () => gateway.stop() };
  const { registry } = gateway;
  for (const each of registry.catalog.all) await registry.load(each).done;
  const next = [await model("a", "a2"), await model("b", "b2", { die_at_load: true })];
  await expect(gateway.reload({ models: next })).rejects.toThrow("out of memory");
  expect(registry.catalog.all.map(({ spec }) => spec.source)).toEqual(before.map(({ spec }) => spec.source));
  const engines = async () => (await sim.beat()).engines.map(({ model_id }) => model_id).toSorted();
  await expect.poll(engines, { timeout: 10_000 }).toEqual(["a", "b"]);
});
