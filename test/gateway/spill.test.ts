import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { tenant } from "../../runtime/contracts/tenant.ts";
import type { UsageRecord } from "../../runtime/gateway/metering/record.ts";
import { readUsageFile } from "../../runtime/gateway/metering/usage-file.ts";
import type { GatewayOptions } from "../../runtime/gateway/options.ts";
import type { ProviderOptions } from "../../runtime/gateway/providers/options.ts";
import { LoadFailure, type FakeAgentBehaviour } from "../fakes/agent.ts";
import { temporaryFolder } from "../support/folders.ts";
import {
  error,
  json,
  provider,
  rule,
  startProvider,
  usage,
  warm,
  type Answer,
  type FakeProvider,
} from "./providers-support.ts";
import { answers, apiKey, chat, gatewayUnderTest, servedModel, type GatewayUnderTest } from "./support.ts";

// Real gateways over sockets, with fake agents and fake providers behind them.

/** A load that never ends, so that only a provider can answer. */
const never = new Promise<void>(() => undefined);
const cold: FakeAgentBehaviour = { onLoad: () => never, onInfer: answers({ from: "home" }) };
const broken: FakeAgentBehaviour = {
  onLoad: () => Promise.reject(new LoadFailure(error("no weights", "source_not_found"))),
};

interface Spilling {
  readonly under: GatewayUnderTest;
  readonly cloud: FakeProvider;
}

/** A gateway whose requests go to one fake provider. */
async function spilling(
  behaviour: FakeAgentBehaviour,
  {
    answer,
    more = {},
    ...options
  }: Partial<GatewayOptions> & { answer?: Answer; more?: Partial<ProviderOptions> } = {},
): Promise<Spilling> {
  const cloud = await another(answer);
  const under = await gatewayUnderTest(behaviour, {
    providers: [provider(cloud.url, more)],
    spill: [rule()],
    ...options,
  });
  onTestFinished(() => under[Symbol.asyncDispose]());
  return { under, cloud };
}

async function another(answer?: Answer): Promise<FakeProvider> {
  const made = await startProvider(answer);
  onTestFinished(() => made[Symbol.asyncDispose]());
  return made;
}

const post = (under: GatewayUnderTest, body: unknown = chat, init?: RequestInit) =>
  under.post("/v1/chat/completions", body, init);

const metric = async (under: GatewayUnderTest, line: string): Promise<number> =>
  Number(
    new RegExp(`^${line.replaceAll(/[{}]/g, "\\$&")} (\\d+)`, "m").exec(
      await (await under.get("/metrics")).text(),
    )?.[1],
  );

describe("a request for a model that is not there", () => {
  test("goes to the provider under its name of the model, with its key, and with nothing of ours", async () => {
    const { under, cloud } = await spilling(cold);
    const response = await post(
      under,
      { ...chat, top_k: 3 },
      {
        headers: {
          authorization: `Bearer ${apiKey}`,
          "content-type": "application/json",
          cookie: "session=ours",
          "x-penstock-debug": "route",
          "x-session-id": "s",
          "openai-organization": "ours",
        },
      },
    );
    expect([response.status, await response.json()]).toMatchObject([200, { from: "provider" }]);
    expect(response.headers.get("x-penstock-provider")).toBe("cloud");
    const [asked] = cloud.asked;
    expect(asked?.path).toBe("/v1/chat/completions");
    expect(JSON.parse(asked?.body ?? "")).toEqual({ ...chat, top_k: 3, model: "big/model" });
    const { host: _, connection: __, ...headers } = asked?.headers ?? {};
    expect(headers).toEqual({
      authorization: "Bearer provider-key",
      "content-type": "application/json",
      accept: "*/*",
      "content-length": String(asked?.body.length),
      "x-penstock-hop": "1",
    });
    expect(
      await metric(
        under,
        'penstock_gateway_spilled_total{model="m",provider="cloud",reason="no_replica",result="complete"}',
      ),
    ).toBe(1);
  });

  test("only so long: the model is loaded at home meanwhile, and later requests stay", async () => {
    const { promise: loaded, resolve: finish } = Promise.withResolvers<void>();
    const { under, cloud } = await spilling({ ...cold, onLoad: () => loaded });
    expect(await (await post(under)).json()).toMatchObject({ from: "provider" });
    expect(under.agent.loads).toBe(1);
    finish();
    await expect.poll(async () => (await post(under)).json()).toEqual({ from: "home" });
    expect((await post(under)).headers.has("x-penstock-provider")).toBe(false);
    expect(under.agent.loads).toBe(1);
    expect(cloud.asked.length).toBeGreaterThan(0);
  });

  test("loads nothing at home where the rule says so", async () => {
    const { under } = await spilling(cold, { spill: [rule(["cloud"], { loadsAtHome: false })] });
    expect((await post(under)).status).toBe(200);
    expect(under.agent.loads).toBe(0);
  });

  test("is held when home will be ready in time", async () => {
    const { under, cloud } = await spilling(
      { onInfer: answers({ from: "home" }) },
      { spill: [rule(["cloud"], { when: { expectedWaitSecondsAbove: 3_600 } })] },
    );
    expect(await (await post(under)).json()).toEqual({ from: "home" });
    expect(cloud.asked).toEqual([]);
  });

  test("streams byte for byte, without the usage that only metering asked for", async () => {
    const event = (value: object) => `data: ${JSON.stringify(value)}\n\n`;
    const [first, second] = [event({ choices: [{ delta: { content: "é" } }] }), event({ choices: [{ delta: {} }] })];
    const { under } = await spilling(cold, {
      answer: (_, outgoing) => {
        outgoing.writeHead(200, { "content-type": "text/event-stream", "set-cookie": "a=b", "x-request-id": "theirs" });
        outgoing.write(first);
        outgoing.end(`${second}${event({ choices: [], usage })}data: [DONE]\n\n`);
      },
    });
    const response = await post(under, { ...chat, stream: true });
    expect(await response.text()).toBe(`${first}${second}data: [DONE]\n\n`);
    expect(response.headers.get("set-cookie")).toBeNull();
    expect(response.headers.get("x-request-id")).not.toBe("theirs");
  });

  test("frees the provider when the client leaves", async () => {
    const { under, cloud } = await spilling(cold, { answer: () => never });
    const leaving = new AbortController();
    const pending = post(under, chat, { signal: leaving.signal });
    await expect.poll(() => cloud.asked.length).toBe(1);
    leaving.abort();
    await expect(pending).rejects.toThrow();
    await expect.poll(() => cloud.left).toBe(1);
  });

  test.each(["/v1/responses", "/tokenize"])(
    "stays at home on %s, which such a provider does not share",
    async (path) => {
      const { under, cloud } = await spilling({ onInfer: answers({ from: "home" }) });
      const body = path === "/tokenize" ? { model: "m", prompt: "hi" } : { model: "m", input: "hi" };
      expect(await (await under.post(path, body)).json()).toEqual({ from: "home" });
      expect(cloud.asked).toEqual([]);
    },
  );

  test("for an adapter leaves only where the provider has that adapter", async () => {
    const { under, cloud } = await spilling(cold, {
      more: { models: { m: "big/model", "m:pirate": "big/pirate" } },
      hold: { maxRequests: 10, maxBytes: 1e6, maxSeconds: 0.2 },
    });
    expect((await post(under, { ...chat, model: "m:pirate" })).status).toBe(200);
    expect(JSON.parse(cloud.asked[0]?.body ?? "")).toMatchObject({ model: "big/pirate" });
    await under.gateway.reload({ models: [servedModel], providers: [provider(cloud.url)], spill: [rule()] });
    expect((await post(under, { ...chat, model: "m:pirate" })).status).toBe(503);
  });
});

describe("what it costs", () => {
  test("is what the provider counted, at its price, in the usage record and in the tenant's budget", async () => {
    await using folder = await temporaryFolder();
    const usageFile = join(folder.path, "usage.jsonl");
    const { under } = await spilling(cold, {
      usageFile,
      tenants: [tenant.parse({ id: "default", limits: { budget: { usd: 0.4 } } })],
    });
    // 100 prompt tokens at 1,000 USD a million and 20 of the answer at 10,000.
    expect((await post(under)).status).toBe(200);
    expect((await post(under)).status).toBe(200);
    const refused = await post(under);
    expect([refused.status, await refused.json()]).toMatchObject([429, { error: { code: "budget_exceeded" } }]);
    await under.gateway.stop();
    const records: UsageRecord[] = [];
    for await (const each of readUsageFile(usageFile)) records.push(each);
    const [record] = records;
    expect(record).toMatchObject({ provider: "cloud", replica: null, promptTokens: 100, completionTokens: 20 });
    expect(record?.costUsd).toBeCloseTo(0.3, 9);
  });

  test("is paid each time: another's answer is not kept and given again", async () => {
    const { under, cloud } = await spilling(cold, { responseCache: { models: ["m"], seconds: 60 } });
    for (let n = 1; n <= 2; n += 1) {
      const response = await post(under, { ...chat, temperature: 0 });
      expect([await response.json(), response.headers.get("x-penstock-cache")]).toMatchObject([
        { from: "provider" },
        null,
      ]);
      expect(cloud.asked).toHaveLength(n);
    }
  });

  test("leaves the choice to speed where it is the same", async () => {
    const [slow, fast] = [await another(), await another(json({ from: "fast" }))];
    slow.answer = async (incoming, outgoing) => {
      await new Promise((resolve) => setTimeout(resolve, 200));
      await json({ from: "slow" })(incoming, outgoing);
    };
    const { under } = await spilling(cold, {
      providers: [provider(slow.url, { name: "slow" }), provider(fast.url, { name: "fast" })],
      spill: [rule(["slow", "fast"])],
    });
    // Each is measured once.
    for (let n = 0; n < 5; n += 1) await post(under);
    expect([slow.asked.length, fast.asked.length]).toEqual([1, 4]);
  });

  test("decides who answers: the cheapest for this request, and whoever has room", async () => {
    const [a, b, c] = [
      await another(json({ from: "a" })),
      await another(json({ from: "b" })),
      await another(json({ from: "c" })),
    ];
    const priced = (name: string, { url }: FakeProvider, [prompt, completion]: readonly [number, number]) =>
      provider(url, {
        name,
        maxConcurrent: 1,
        prices: { m: { perMillionPromptTokens: prompt, perMillionCompletionTokens: completion } },
      });
    const { under } = await spilling(cold, {
      providers: [priced("a", a, [1, 100]), priced("b", b, [100, 1]), priced("c", c, [1_000, 1_000])],
      spill: [rule(["a", "b", "c"])],
    });
    const from = async (body: object) => ((await (await post(under, body)).json()) as { from: string }).from;
    expect(await from({ ...chat, max_tokens: 1_000 })).toBe("b");
    expect(
      await from({ messages: [{ role: "user", content: "long ".repeat(1_000) }], model: "m", max_tokens: 1 }),
    ).toBe("a");
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    b.answer = async (incoming, outgoing) => {
      await released;
      await json({ from: "b" })(incoming, outgoing);
    };
    const busy = from({ ...chat, max_tokens: 1_000 });
    await expect.poll(() => b.asked.length).toBe(2);
    expect(await from({ ...chat, max_tokens: 1_000 })).toBe("a");
    release();
    expect(await busy).toBe("b");
  });
});

describe("a provider that does not answer", () => {
  const html: Answer = (_, outgoing) =>
    void outgoing.writeHead(200, { "content-type": "text/html" }).end("<p>Sign in</p>");
  const garbage: Answer = ({ socket }) => void socket.end("220 smtp ready\r\n");
  const resets: Answer = ({ socket }) => void socket.resetAndDestroy();
  const headersOnly: Answer = ({ socket }, outgoing) => {
    outgoing.writeHead(200, { "content-type": "application/json", "content-length": "100" });
    outgoing.flushHeaders();
    setImmediate(() => socket.destroy());
  };
  const redirect: Answer = (_, outgoing) => void outgoing.writeHead(302, { location: "http://169.254.169.254/" }).end();
  const slow: Answer = () => never;
  const slowBody: Answer = (_, outgoing) =>
    outgoing.writeHead(200, { "content-type": "application/json" }).flushHeaders();

  const table: readonly [string, Answer, number, string][] = [
    ["401", json(error("Incorrect API key provided: provi*****", "invalid_api_key"), 401), 502, "upstream_failed"],
    ["403", json(error("no"), 403), 502, "upstream_failed"],
    ["404", json(error("no such model", "model_not_found"), 404), 502, "upstream_failed"],
    ["429", json(error("slow down", "rate_limited"), 429, { "retry-after": "30" }), 503, "overloaded"],
    ["500", json(error("oops"), 500), 502, "upstream_failed"],
    ["503 with Retry-After", json(error("busy", "no_replica"), 503, { "retry-after": "30" }), 503, "overloaded"],
    ["a page", html, 502, "upstream_failed"],
    ["no HTTP", garbage, 502, "upstream_failed"],
    ["a reset", resets, 502, "upstream_failed"],
    ["headers alone", headersOnly, 502, "upstream_failed"],
    ["a redirect", redirect, 502, "upstream_failed"],
    ["nothing", slow, 504, "upstream_timeout"],
    ["headers and then nothing", slowBody, 504, "upstream_timeout"],
  ];

  /** So that it is the provider's own bound that ends the waiting. */
  const patient = { firstByteTimeoutMs: 600_000, betweenBytesTimeoutMs: 600_000 };
  const failures = table.map(([name, answer, status, code]) => ({ name, answer, status, code }));

  test.each(failures)("but with $name: another one does", async ({ answer }) => {
    const [bad, good] = [await another(answer), await another()];
    const cheap = provider(bad.url, { name: "cheap", prices: {}, firstByteSeconds: 0.3 });
    const { under } = await spilling(cold, {
      providers: [provider(good.url), cheap],
      spill: [rule(["cheap", "cloud"])],
      ...patient,
    });
    const response = await post(under);
    expect([response.status, response.headers.get("x-penstock-provider")]).toEqual([200, "cloud"]);
    expect([bad.asked.length, good.asked.length]).toEqual([1, 1]);
  });

  test.each(failures)(
    "but with $name: nobody does, and the client gets an error of ours",
    async ({ answer, status, code }) => {
      const { under } = await spilling(broken, { answer, more: { firstByteSeconds: 0.3 }, ...patient });
      const response = await post(under);
      const body = await response.text();
      expect([response.status, JSON.parse(body)]).toMatchObject([status, { error: { code } }]);
      expect(body).not.toMatch(/provi\*|Incorrect|slow down|oops|Sign in/);
      expect(response.headers.has("x-penstock-provider")).toBe(false);
      expect(response.headers.get("retry-after")).toBe(code === "overloaded" ? "30" : null);
    },
  );

  test("because it is down: another one does", async () => {
    const gone = await startProvider();
    await gone[Symbol.asyncDispose]();
    const { under } = await spilling(cold, {
      providers: [provider(gone.url, { name: "gone", prices: {} }), provider((await another()).url)],
      spill: [rule(["gone", "cloud"])],
    });
    const response = await post(under);
    expect([response.status, response.headers.get("x-penstock-provider")]).toEqual([200, "cloud"]);
  });

  test("is left alone until its Retry-After has passed", async () => {
    const limited = json(error("slow down"), 429, { "retry-after": "1" });
    const { under, cloud } = await spilling(broken, { answer: limited });
    expect((await post(under)).status).toBe(503);
    cloud.answer = json({ from: "provider" });
    expect((await post(under)).status).toBe(503);
    expect(cloud.asked).toHaveLength(1);
    await expect.poll(async () => (await post(under)).status, { timeout: 5_000 }).toBe(200);
  });

  test("three times in a row is left alone for a while", async () => {
    const { under, cloud } = await spilling(broken, { answer: json(error("oops"), 500) });
    for (let n = 0; n < 5; n += 1) await post(under);
    expect(cloud.asked).toHaveLength(3);
    cloud.answer = json({ from: "provider" });
    await expect.poll(async () => (await post(under)).status, { timeout: 5_000 }).toBe(200);
  });

  test("leaves the request to home, which has become ready meanwhile", async () => {
    const { promise: loaded, resolve: finish } = Promise.withResolvers<void>();
    const { under } = await spilling({ ...cold, onLoad: () => loaded }, { answer: json(error("oops"), 500) });
    const pending = post(under);
    await expect.poll(() => under.agent.loads).toBe(1);
    finish();
    expect(await (await pending).json()).toEqual({ from: "home" });
  });

  test("to the request's liking says so, as the client's own error", async () => {
    const said = { error: { message: "temperature must be at most 1", param: "temperature", code: null, type: "x" } };
    const { under, cloud } = await spilling(broken, { answer: json(said, 400) });
    for (let n = 0; n < 5; n += 1) {
      const response = await post(under, { ...chat, temperature: 1.5 });
      expect([response.status, await response.json()]).toMatchObject([
        400,
        { error: { code: "invalid_value", message: "temperature must be at most 1", param: "temperature" } },
      ]);
    }
    // It is not the provider that is broken.
    expect(cloud.asked).toHaveLength(5);
  });

  test("to its end: the stream breaks with an error event, and nobody else is asked", async () => {
    const spare = await another();
    const dies: Answer = (incoming, outgoing) => {
      outgoing.writeHead(200, { "content-type": "text/event-stream" });
      outgoing.write('data: {"choices":[{"delta":{"content":"half"}}]}\n\n', () => incoming.socket.destroy());
    };
    const dying = await another(dies);
    const { under } = await spilling(cold, {
      providers: [provider(dying.url, { prices: {} }), provider(spare.url, { name: "spare" })],
      spill: [rule(["cloud", "spare"])],
    });
    const body = await (await post(under, { ...chat, stream: true })).text();
    expect(body).toContain("half");
    expect(body).toContain("event: error");
    expect(body).not.toContain("[DONE]");
    expect(spare.asked).toEqual([]);
  });
});

describe("home that fails", () => {
  test("before the first byte, on every replica, leaves the request to a provider", async () => {
    const { under, cloud } = await spilling({
      onHeartbeat: warm,
      onLoad: () => Promise.reject(new LoadFailure(error("full", "disk_full"))),
      onInfer: (_, outgoing) => void outgoing.writeHead(503).end(JSON.stringify(error("gone", "model_not_ready"))),
    });
    expect((await post(under)).headers.get("x-penstock-provider")).toBe("cloud");
    expect(cloud.asked).toHaveLength(1);
  });

  test("because of the request itself does not: what kills engines stays here", async () => {
    const { under, cloud } = await spilling({ onHeartbeat: warm, onInfer: ({ socket }) => void socket.destroy() });
    expect(await (await post(under)).json()).toMatchObject({ error: { code: "engine_died" } });
    expect(cloud.asked).toEqual([]);
  });

  test("while a stream is held leaves it to a provider, whose events follow the comments", async () => {
    const { promise: failed, resolve: fail } = Promise.withResolvers<void>();
    const events = 'data: {"choices":[]}\n\ndata: [DONE]\n\n';
    const { under } = await spilling(
      {
        async onLoad() {
          await failed;
          throw new LoadFailure(error("full", "disk_full"));
        },
      },
      {
        spill: [rule(["cloud"], { when: { expectedWaitSecondsAbove: 3_600 } })],
        answer: (_, outgoing) => void outgoing.writeHead(200, { "content-type": "text/event-stream" }).end(events),
      },
    );
    const response = await post(under, { ...chat, stream: true });
    fail();
    const body = await response.text();
    expect(body).toMatch(/^: m: /);
    expect(body.endsWith(events)).toBe(true);
  });

  test("with a full queue, and a provider that fails too: the request does not push in at home", async () => {
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    let running = 0;
    const { under, cloud } = await spilling(
      {
        onHeartbeat: warm,
        async onInfer(_, outgoing) {
          running += 1;
          await released;
          outgoing.writeHead(200, { "content-type": "application/json" }).end("{}");
        },
      },
      { maxRunningPerReplica: 1, queue: { maxRequests: 1 }, answer: json(error("oops"), 500) },
    );
    const first = post(under);
    await expect.poll(() => running).toBe(1);
    // Whichever comes first waits; for the other one there is no room anywhere.
    const [second, third] = [post(under), post(under)];
    expect((await Promise.race([second, third])).status).toBe(502);
    expect(cloud.asked).toHaveLength(1);
    expect(running).toBe(1);
    release();
    expect((await Promise.all([first, second, third])).map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([
      200, 200, 502,
    ]);
  });

  test("with a full queue sends away what has no place, within the tenant's limits", async () => {
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const { under, cloud } = await spilling(
      {
        onHeartbeat: warm,
        async onInfer(_, outgoing) {
          await released;
          outgoing.writeHead(200, { "content-type": "application/json" }).end('{"from":"home"}');
        },
      },
      {
        maxRunningPerReplica: 1,
        queue: { maxRequests: 1 },
        tenants: [tenant.parse({ id: "default", limits: { requestsPerMinute: 4 } })],
      },
    );
    const running = post(under);
    await expect.poll(async () => (await under.get("/stats")).json()).toMatchObject({ open: 1 });
    const waiting = post(under);
    await expect.poll(async () => (await under.get("/stats")).json()).toMatchObject({ open: 2 });
    expect(await (await post(under)).json()).toMatchObject({ from: "provider" });
    expect(await (await post(under)).json()).toMatchObject({ from: "provider" });
    const refused = await post(under);
    expect([refused.status, await refused.json()]).toMatchObject([429, { error: { code: "rate_limited" } }]);
    expect(cloud.asked).toHaveLength(2);
    release();
    expect(await Promise.all([running, waiting].map(async (each) => (await each).json()))).toEqual([
      { from: "home" },
      { from: "home" },
    ]);
  });
});

describe("residency", () => {
  const hold = { maxRequests: 10, maxBytes: 1e6, maxSeconds: 0.2 };
  type Case = readonly [
    name: string,
    rule: readonly string[] | undefined,
    own: readonly string[] | undefined,
    to: string | null,
  ];
  const cases: readonly Case[] = [
    ["nobody minds: the cheapest", undefined, undefined, "us"],
    ["the rule names one", ["eu"], undefined, "eu"],
    ["the tenant names one", undefined, ["eu"], "eu"],
    ["the tenant allows more than the rule", ["eu"], ["eu", "us"], "eu"],
    ["the tenant stays", undefined, [], null],
    ["both allow nothing in common", ["eu"], ["us"], null],
    ["a place where nobody is", undefined, ["ch"], null],
  ];

  test.each(cases.map(([name, residencies, own, expected]) => ({ name, residencies, own, expected })))(
    "$name",
    async (each) => {
      const { residencies, own, expected } = each;
      const [eu, us] = [await another(), await another()];
      const { under } = await spilling(cold, {
        providers: [
          provider(eu.url, { name: "eu", residency: "eu" }),
          provider(us.url, { name: "us", residency: "us", prices: {} }),
        ],
        spill: [rule(["eu", "us"], residencies === undefined ? {} : { residencies })],
        tenants: [tenant.parse({ id: "default", ...(own === undefined ? {} : { residencies: own }) })],
        hold,
      });
      const response = await post(under);
      expect([response.status, response.headers.get("x-penstock-provider")]).toEqual([
        expected === null ? 503 : 200,
        expected,
      ]);
      expect([eu.asked.length, us.asked.length]).toEqual([Number(expected === "eu"), Number(expected === "us")]);
    },
  );

  test("holds when the allowed provider fails: the other is not asked", async () => {
    const [eu, us] = [await another(json(error("oops"), 500)), await another()];
    const { under } = await spilling(broken, {
      providers: [provider(eu.url, { name: "eu" }), provider(us.url, { name: "us", residency: "us" })],
      spill: [rule(["eu", "us"])],
      tenants: [tenant.parse({ id: "default", residencies: ["eu"] })],
    });
    expect((await post(under)).status).toBe(502);
    expect(us.asked).toEqual([]);
  });
});
