import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { tenant } from "../../runtime/contracts/tenant.ts";
import { readUsageFile } from "../../runtime/gateway/metering/usage-file.ts";
import type { GatewayOptions } from "../../runtime/gateway/options.ts";
import { temporaryFolder } from "../support/folders.ts";
import { rawConnection, statusesIn } from "../lib/raw-http.ts";
import { answers, apiKey, chat, gatewayUnderTest, servedModel, type GatewayUnderTest } from "./support.ts";

// A real gateway with its stores on disk, one fake agent behind it, and clients over real sockets.

const usage = { prompt_tokens: 12, completion_tokens: 30, total_tokens: 42 };

async function gateway(tenants: readonly object[], more: Partial<GatewayOptions> = {}): Promise<GatewayUnderTest> {
  const folder = await temporaryFolder();
  const stores = {
    hot: { kind: "memory", file: join(folder.path, "limits.sqlite") },
    record: { kind: "sqlite", file: join(folder.path, "records.sqlite") },
  } as const;
  const under = await gatewayUnderTest(
    { onInfer: answers({ id: "x", choices: [], usage }) },
    {
      stores,
      tenants: tenants.map((each) => tenant.parse(each)),
      prices: { m: { perMillionPromptTokens: 1, perMillionCompletionTokens: 2 } },
      ...more,
    },
  );
  onTestFinished(async () => {
    await under[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });
  return under;
}

/** A new key of a tenant, made through the admin API. */
async function keyOf(under: GatewayUnderTest, tenantName: string): Promise<string> {
  const created = await under.post("/admin/keys", { tenant: tenantName, name: "test" });
  expect(created.status).toBe(201);
  return z.object({ key: z.string() }).parse(await created.json()).key;
}

function as(key: string): RequestInit {
  return { headers: { authorization: `Bearer ${key}`, "content-type": "application/json" } };
}

test("a key of a tenant is made, used, limited to its models, and revoked", async () => {
  const under = await gateway([
    { id: "acme", models: ["m"] },
    { id: "other", models: ["another"] },
  ]);
  const key = await keyOf(under, "acme");
  expect((await under.post("/v1/chat/completions", chat, as(key))).status).toBe(200);
  const list = await (await fetch(`${under.gateway.url}/v1/models`, as(key))).json();
  expect(list).toMatchObject({ data: [{ id: "m" }] });
  const stranger = await keyOf(under, "other");
  const refused = await under.post("/v1/chat/completions", chat, as(stranger));
  expect([refused.status, await refused.json()]).toMatchObject([404, { error: { code: "model_not_found" } }]);
  for (const path of ["/stats", "/metrics", "/admin/keys"]) {
    expect((await fetch(under.gateway.url + path, as(key))).status).toBe(403);
  }
  const revoked = await fetch(`${under.gateway.url}/admin/keys/${key.split("-")[1]}`, {
    method: "DELETE",
    ...as(apiKey),
  });
  expect(revoked.ok).toBe(true);
  expect((await under.post("/v1/chat/completions", chat, as(key))).status).toBe(401);
});

test("limits hold under concurrency, say what is left, and when to come back", async () => {
  const under = await gateway([{ id: "acme", limits: { requestsPerMinute: 20 } }]);
  const key = await keyOf(under, "acme");
  const responses = await Promise.all(
    Array.from({ length: 60 }, () => under.post("/v1/chat/completions", chat, as(key))),
  );
  const statuses = responses.map(({ status }) => status);
  expect(statuses.filter((status) => status === 200)).toHaveLength(20);
  expect(new Set(statuses)).toEqual(new Set([200, 429]));
  const refused = responses.find(({ status }) => status === 429);
  expect(Number(refused?.headers.get("retry-after"))).toBeGreaterThan(0);
  expect(refused?.headers.get("x-ratelimit-limit-requests")).toBe("20");
  expect(await refused?.json()).toMatchObject({ error: { code: "rate_limited", type: "rate_limit_error" } });
});

test("tokens are reserved at their worst and settled at what the engine counted", async () => {
  const under = await gateway([{ id: "acme", limits: { tokensPerMinute: 1_000 } }]);
  const key = await keyOf(under, "acme");
  const ask = (max_tokens: number) => under.post("/v1/chat/completions", { ...chat, max_tokens }, as(key));
  const first = await ask(500);
  expect(first.status).toBe(200);
  await first.text();
  // 42 were used of the 500 and more that were reserved.
  const second = await ask(900);
  expect(second.status).toBe(200);
  expect((await ask(950)).status).toBe(429);
});

test("a budget is not overspent, however many ask at once", async () => {
  // A request is reserved at 100 answer tokens and costs 72 millionths of a dollar.
  const under = await gateway([{ id: "acme", limits: { budget: { usd: 0.001, period: "month" } } }]);
  const key = await keyOf(under, "acme");
  const bodies = Array.from({ length: 50 }, () =>
    under.post("/v1/chat/completions", { ...chat, max_tokens: 100 }, as(key)),
  );
  const statuses = (await Promise.all(bodies)).map(({ status }) => status);
  const served = statuses.filter((status) => status === 200).length;
  expect(served).toBeGreaterThan(0);
  expect(served * 0.000072).toBeLessThanOrEqual(0.001);
  expect(statuses).toContain(429);
});

test("a reload changes limits, prices and the routing policy of a gateway that runs", async () => {
  const under = await gateway([{ id: "acme", limits: { requestsPerMinute: 1 } }]);
  const key = await keyOf(under, "acme");
  const ask = () => under.post("/v1/chat/completions", chat, as(key));
  const askAsOwner = async () => (await under.post("/v1/chat/completions", chat)).status;
  expect([(await ask()).status, (await ask()).status, await askAsOwner()]).toEqual([200, 429, 200]);
  const limited = { id: "default", models: ["another"] };
  const tenants = [{ id: "acme", limits: { requestsPerMinute: 100 } }, limited].map((each) => tenant.parse(each));
  const prices = { m: { perMillionCompletionTokens: 100_000 } };
  await under.gateway.reload({ models: [servedModel], tenants, prices, routing: "round_robin" });
  const again = await ask();
  expect(again.status).toBe(200);
  await again.text();
  expect(await askAsOwner()).toBe(404);
  expect(await (await under.get("/stats")).json()).toMatchObject({ policy: "round_robin" });
  await expect
    .poll(async () => (await under.get("/metrics")).text())
    .toMatch(/penstock_gateway_cost_usd_total\{[^}]*tenant="acme"[^}]*\} 3\.0/);
});

test("usage is in the ledger and in Prometheus, once, by tenant and model", async () => {
  const folder = await temporaryFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const usageFile = join(folder.path, "usage.jsonl");
  const under = await gateway([{ id: "acme" }], { usageFile });
  const key = await keyOf(under, "acme");
  for (let request = 0; request < 3; request += 1)
    await (await under.post("/v1/chat/completions", chat, as(key))).text();
  await expect
    .poll(async () =>
      (await (await under.get("/metrics")).text()).includes(
        'penstock_gateway_tokens_total{model="m",tenant="acme",kind="completion"} 90',
      ),
    )
    .toBe(true);
  await expect
    .poll(async () => {
      const records = [];
      for await (const record of readUsageFile(usageFile)) records.push(record);
      return records;
    })
    .toMatchObject(
      Array.from({ length: 3 }, () => ({
        tenant: "acme",
        model: "m",
        promptTokens: 12,
        completionTokens: 30,
        estimated: false,
        outcome: "complete",
        costUsd: 0.000072,
      })),
    );
});

test("no header of a client decides who it is", async () => {
  const under = await gateway([
    { id: "acme", models: ["m"] },
    { id: "poor", models: ["nothing"] },
  ]);
  const key = await keyOf(under, "poor");
  const forged = {
    ...as(key),
    headers: {
      authorization: `Bearer ${key}`,
      "x-tenant": "acme",
      "openai-organization": "acme",
      "x-forwarded-user": "acme",
    },
  };
  expect((await under.post("/v1/chat/completions", chat, forged)).status).toBe(404);
});

test("behind a TCP load balancer the client is whom its PROXY header tells, and others are cut off", async () => {
  const options = { allowedAddresses: ["192.0.2.7"], proxyProtocol: { trusted: ["127.0.0.1"] } };
  await using under = await gatewayUnderTest({}, options);
  const port = Number(new URL(under.gateway.url).port);
  const answerTo = async (header: string): Promise<string> => {
    using client = await rawConnection(port);
    client.send(
      `${header}GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${apiKey}\r\nConnection: close\r\n\r\n`,
    );
    return (await client.closed).received;
  };
  expect(statusesIn(await answerTo("PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n"))).toEqual([200]);
  expect(statusesIn(await answerTo("PROXY TCP4 192.0.2.8 10.0.0.1 4711 443\r\n"))).toEqual([403]);
  expect(await answerTo("")).toBe("");
});
