import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { readGatewayConfig } from "../../runtime/gateway/config.ts";
import type { GatewayOptions } from "../../runtime/gateway/options.ts";
import type { ProviderOptions } from "../../runtime/gateway/providers/options.ts";
import { LoadFailure, startFakeAgent, type FakeAgentBehaviour } from "../fakes/agent.ts";
import { makeCertificate } from "../fakes/range-server-tls.ts";
import { temporaryFolder } from "../support/folders.ts";
import { startProgram } from "../support/program.ts";
import { error, json, provider, rule, startProvider, warm } from "./providers-support.ts";
import { answers, apiKey, chat, gatewayUnderTest, servedModel, type GatewayUnderTest } from "./support.ts";

// Two real gateways, and gateways as programs.

const never = new Promise<void>(() => undefined);
const cold: FakeAgentBehaviour = { onLoad: () => never };

async function gateway(
  behaviour: FakeAgentBehaviour,
  options: Partial<GatewayOptions> = {},
): Promise<GatewayUnderTest> {
  const under = await gatewayUnderTest(behaviour, options);
  onTestFinished(() => under[Symbol.asyncDispose]());
  return under;
}

/** Another gateway as a provider. Both have the same model and the same key. */
function peer({ gateway: { url } }: GatewayUnderTest, more: Partial<ProviderOptions> = {}): ProviderOptions {
  return provider(url, { kind: "penstock", name: "peer", key: apiKey, models: { m: "m" }, ...more });
}

/** Lets a gateway spill to another. */
function spillTo(from: GatewayUnderTest, providers: readonly ProviderOptions[]): Promise<void> {
  const spill = [rule(providers.map(({ name }) => name))];
  return from.gateway.reload({ models: [servedModel], providers, spill });
}

const post = (under: GatewayUnderTest, path = "/v1/chat/completions", body: unknown = chat) => under.post(path, body);

const stats = z.object({
  providers: z.array(z.object({ healthy: z.boolean(), warm: z.array(z.string()).nullable() })),
});

/** What a gateway knows of its providers. */
async function known(under: GatewayUnderTest) {
  return stats.parse(await (await under.get("/stats")).json()).providers;
}

describe("two gateways", () => {
  test("one answers for the other, on every endpoint, and its own provider header stays inside", async () => {
    const there = await gateway({ onHeartbeat: warm, onInfer: answers({ from: "there" }) });
    const here = await gateway(cold);
    await spillTo(here, [peer(there)]);
    for (const [path, body] of [
      ["/v1/chat/completions", chat],
      ["/v1/messages", { ...chat, max_tokens: 5 }],
      ["/v1/rerank", { model: "m", query: "q", documents: ["d"] }],
      ["/tokenize", { model: "m", prompt: "hi" }],
    ] as const) {
      const response = await post(here, path, body);
      expect([path, response.headers.get("x-penstock-provider"), await response.json()]).toEqual([
        path,
        "peer",
        { from: "there" },
      ]);
    }
  });

  test("keep what the engine of one remembers: responses stay at home", async () => {
    const there = await gateway({ onHeartbeat: warm, onInfer: answers({ from: "there" }) });
    const here = await gateway({ onInfer: answers({ from: "here" }) });
    await spillTo(here, [peer(there)]);
    expect(await (await post(here, "/v1/responses", { model: "m", input: "hi" })).json()).toEqual({ from: "here" });
  });

  test("that spill to each other never pass a request back", async () => {
    const failing: FakeAgentBehaviour = {
      onLoad: () => Promise.reject(new LoadFailure(error("no weights", "source_not_found"))),
    };
    const [a, b] = [await gateway(failing), await gateway(failing)];
    await spillTo(a, [peer(b)]);
    await spillTo(b, [peer(a)]);
    // Until then it would be taken for warm, and home would be tried twice.
    await expect.poll(() => known(a)).toEqual([{ healthy: true, warm: [] }]);
    const response = await post(a);
    expect(response.status).toBe(502);
    // Each has tried once at home, for the one request.
    expect([a.agent.loads, b.agent.loads]).toEqual([1, 1]);
    const seen = async (under: GatewayUnderTest) =>
      /penstock_gateway_requests_total\{endpoint="\/v1\/chat\/completions".*\} (\d+)/.exec(
        await (await under.get("/metrics")).text(),
      )?.[1];
    expect([await seen(a), await seen(b)]).toEqual(["1", "1"]);
  });

  test("do not send from one cold place to another: the request waits at home", async () => {
    const { promise: loaded, resolve: finish } = Promise.withResolvers<void>();
    const there = await gateway(cold);
    const here = await gateway({ onLoad: () => loaded, onInfer: answers({ from: "here" }) });
    await spillTo(here, [peer(there)]);
    await expect.poll(() => known(here)).toEqual([{ healthy: true, warm: [] }]);
    const pending = post(here);
    await expect.poll(() => here.agent.loads).toBe(1);
    finish();
    expect(await (await pending).json()).toEqual({ from: "here" });
    expect(there.agent.loads).toBe(0);
  });

  test("one that has no agents is not used until it has", async () => {
    const there = await gateway({ onHeartbeat: warm, onInfer: answers({ from: "there" }) });
    there.agent.heartbeatFails = true;
    await expect.poll(async () => (await there.get("/ready")).status, { timeout: 10_000 }).toBe(503);
    const here = await gateway({ onInfer: answers({ from: "here" }) });
    await spillTo(here, [peer(there)]);
    await expect.poll(() => known(here)).toMatchObject([{ healthy: false }]);
    expect(await (await post(here)).json()).toEqual({ from: "here" });
    there.agent.heartbeatFails = false;
    await expect.poll(() => known(here), { timeout: 15_000 }).toEqual([{ healthy: true, warm: ["m"] }]);
  }, 30_000);
});

function cloudAt(url: string, name = "cloud") {
  return { name, kind: "openai", url, keyEnv: "CLOUD_KEY", residency: "eu", models: { m: "big/model" } };
}

/** The smallest config that spills, and what a test changes of it. */
function configOf(agentUrl: string, cloudUrl: string, more: object = {}) {
  return {
    port: 0,
    fleets: [{ name: "f", agents: { kind: "static", urls: [agentUrl] } }],
    models: [{ id: "m", source: "file:///m.gguf", fleet: "f", engine: { kind: "embedded" } }],
    providers: [cloudAt(cloudUrl)],
    spill: [{ model: "m", to: ["cloud"] }],
    logLevel: "debug",
    ...more,
  };
}

describe("a gateway as a program", () => {
  const secret = "sk-a-secret-that-no-log-holds";

  test("takes a provider's key from the environment, trusts who can prove its name, and reloads its rules", async () => {
    await using folder = await temporaryFolder();
    await using stranger = await temporaryFolder();
    await using agent = await startFakeAgent(cold);
    const certificate = makeCertificate(folder.path);
    await using cloud = await startProvider(undefined, certificate);
    await using impostor = await startProvider(undefined, makeCertificate(stranger.path));
    const path = join(folder.path, "gateway.yaml");
    const stores = { directory: folder.path };
    const providers = [cloudAt(impostor.url, "impostor"), cloudAt(cloud.url)];
    const spill = [{ model: "m", to: ["impostor", "cloud"] }];
    await writeFile(path, JSON.stringify(configOf(agent.url, cloud.url, { stores, providers, spill })));
    const env = {
      PENSTOCK_AGENT_TOKEN: agent.token,
      PENSTOCK_API_KEY: apiKey,
      CLOUD_KEY: secret,
      NODE_EXTRA_CA_CERTS: certificate.certPath,
    };
    await using program = await startProgram("gateway", { args: ["--config", path], env });
    const ask = () =>
      fetch(`${program.url}/v1/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
        body: JSON.stringify(chat),
      });
    const first = await ask();
    expect([first.status, await first.text(), first.headers.get("x-penstock-provider")]).toEqual([
      200,
      expect.anything(),
      "cloud",
    ]);
    expect(cloud.asked[0]?.headers.authorization).toBe(`Bearer ${secret}`);
    expect(impostor.asked).toEqual([]);
    expect(program.output()).toContain('"provider":"impostor","reason":"its connection failed"');
    cloud.answer = json(error("bad key", "invalid_api_key"), 401);
    const late = ask().catch(() => null);
    await expect.poll(() => program.output()).toContain("it refuses our account with 401: check the key");
    const hold = { maxSeconds: 0.1 };
    await writeFile(path, JSON.stringify(configOf(agent.url, cloud.url, { stores, hold, providers: [], spill: [] })));
    program.kill("SIGHUP");
    await expect.poll(() => program.output()).toContain("config was read again");
    const left = await fetch(`${program.url}/stats`, { headers: { authorization: `Bearer ${apiKey}` } });
    expect(await left.json()).toMatchObject({ providers: [] });
    expect(program.output()).not.toContain(secret);
    program.kill("SIGKILL");
    await late;
  });

  test("does not start without the key", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "gateway.yaml");
    await writeFile(path, JSON.stringify(configOf("http://127.0.0.1:1", "http://127.0.0.1:1")));
    const starting = startProgram("gateway", {
      args: ["--config", path],
      env: { PENSTOCK_AGENT_TOKEN: "t".repeat(16) },
    });
    await expect(starting).rejects.toThrow(/ended with 2: .*CLOUD_KEY must be the key of provider `cloud`/);
  });
});

describe("the config", () => {
  const cloud = { name: "cloud", kind: "openai", url: "https://x.example", residency: "eu", models: { m: "big" } };
  const spill = { model: "m", to: ["cloud"] };

  async function problemsOf(more: object): Promise<string[]> {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "gateway.yaml");
    await writeFile(path, JSON.stringify(configOf("http://127.0.0.1:1", "http://127.0.0.1:1", more)));
    try {
      await readGatewayConfig(path);
      return [];
    } catch (thrown) {
      if (thrown instanceof PenstockError && thrown.code === "invalid_config") return thrown.message.split("\n");
      throw thrown;
    }
  }

  test.each<[string, object]>([
    ["https", { providers: [cloud] }],
    ["http to this machine", { providers: [{ ...cloud, url: "http://[::1]:1/base" }] }],
    ["http that was asked for", { providers: [{ ...cloud, url: "http://10.0.0.1", allowHttp: true }] }],
    ["hedging", { hedging: { models: ["m"], afterMs: 800 } }],
  ])("takes %s", async (_, more) => {
    expect(await problemsOf(more)).toEqual([]);
  });

  test.each<[string, object, RegExp]>([
    [
      "http to another machine",
      { providers: [{ ...cloud, url: "http://10.0.0.1" }] },
      /^providers\[0\]\.url: must be https/,
    ],
    [
      "a name that looks like this machine",
      { providers: [{ ...cloud, url: "http://127.0.0.1.example" }] },
      /must be https/,
    ],
    [
      "a key in the address",
      { providers: [{ ...cloud, url: "https://u:p@x.example" }] },
      /^providers\[0\]\.url: .*without user/,
    ],
    [
      "no web address",
      { providers: [{ ...cloud, url: "file:///etc/passwd" }] },
      /^providers\[0\]\.url: must be an http/,
    ],
    ["a key itself", { providers: [{ ...cloud, keyEnv: "sk-1" }] }, /^providers\[0\]\.keyEnv: must be the name/],
    [
      "our own secret as its key",
      { providers: [{ ...cloud, keyEnv: "PENSTOCK_AGENT_TOKEN" }] },
      /^providers\[0\]\.keyEnv: .*secret/,
    ],
    ["two of one name", { providers: [cloud, cloud] }, /^providers\[1\]\.name: is there twice/],
    [
      "a model that there is not",
      { providers: [{ ...cloud, models: { m: "a", x: "b" } }] },
      /^providers\[0\]\.models\.x: no model/,
    ],
    [
      "a price of nothing",
      { providers: [{ ...cloud, prices: { "m:a": {} } }] },
      /^providers\[0\]\.prices\.m:a: is not among/,
    ],
    [
      "a rule to nobody",
      { spill: [{ ...spill, to: ["cloud", "x"] }] },
      /^spill\[0\]\.to\[1\]: no provider named `x`; there are `cloud`/,
    ],
    [
      "a rule that nobody serves",
      { providers: [{ ...cloud, models: {} }] },
      /^spill\[0\]\.to: `cloud` does not serve `m`/,
    ],
    ["two rules of one model", { spill: [spill, spill] }, /^spill\[1\]\.model: is there twice/],
    ["a residency of nobody", { spill: [{ ...spill, residencies: ["ch"] }] }, /^spill\[0\]\.residencies: none/],
    ["an unknown condition", { spill: [{ ...spill, when: { never: true } }] }, /^spill\[0\]\.when.*never/],
    ["hedging of nothing", { hedging: { models: ["x"] } }, /^hedging\.models\[0\]: no model named `x`/],
    ["a share above all", { hedging: { models: ["m"], maxShare: 2 } }, /^hedging\.maxShare: /],
  ])("refuses %s and says where", async (_, more, problem) => {
    const problems = await problemsOf(more);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(problem);
  });

  test("is told everything at once", async () => {
    const problems = await problemsOf({
      providers: [{ ...cloud, url: "http://10.0.0.1", models: { x: "a" } }],
      spill: [{ model: "y", to: ["z"] }],
    });
    expect(problems.map((line) => line.split(":")[0])).toEqual([
      "providers[0].url",
      "providers[0].models.x",
      "spill[0].model",
      "spill[0].to[0]",
    ]);
  });
});
