import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import type { UsageRecord } from "../../runtime/gateway/metering/record.ts";
import { readUsageFile } from "../../runtime/gateway/metering/usage-file.ts";
import type { GatewayOptions } from "../../runtime/gateway/options.ts";
import { hedgingConfig, type HedgingOptions } from "../../runtime/gateway/stages/hedge.ts";
import { startFakeAgent, type FakeAgent, type FakeAgentBehaviour } from "../fakes/agent.ts";
import { temporaryFolder } from "../support/folders.ts";
import { usage, warm } from "./providers-support.ts";
import { apiKey, chat, gatewayUnderTest, servedModel, type GatewayUnderTest } from "./support.ts";

// A real gateway with two replicas behind it. Which one a request goes to first is round robin's; tests do not rely on it.

type Infer = NonNullable<FakeAgentBehaviour["onInfer"]>;

const never = new Promise<void>(() => undefined);

interface Pair {
  readonly under: GatewayUnderTest;
  readonly agents: readonly [FakeAgent, FakeAgent];
  /** Requests that each has got, and those of them that were given up. */
  readonly got: number[];
  readonly left: number[];
  /** Which one got each request. */
  readonly order: number[];
  /** What the request that came in as this one, over both, is answered with; else at once. */
  readonly answers: Map<number, Infer>;
}

/** Two replicas that answer with their own name. */
async function pair(hedging: Partial<HedgingOptions> | null, more: Partial<GatewayOptions> = {}): Promise<Pair> {
  const answers = new Map<number, Infer>();
  const got = [0, 0];
  const left = [0, 0];
  const order: number[] = [];
  const start = (which: number): Promise<FakeAgent> =>
    startFakeAgent({
      onHeartbeat: warm,
      async onInfer(incoming, outgoing, body) {
        const turn = got.reduce((sum, count) => sum + count, 0);
        got[which] = (got[which] ?? 0) + 1;
        order.push(which);
        outgoing.on("close", () => {
          if (!outgoing.writableFinished) left[which] = (left[which] ?? 0) + 1;
        });
        const answer = answers.get(turn);
        if (answer !== undefined) return answer(incoming, outgoing, body);
        outgoing.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ turn, usage }));
      },
    });
  const agents = [await start(0), await start(1)] as const;
  const under = await gatewayUnderTest(
    {},
    {
      fleets: [{ name: "test", agents: { kind: "static", urls: agents.map(({ url }) => url) } }],
      routing: "round_robin",
      // What is given up is given up at once and not by a time-out.
      firstByteTimeoutMs: 600_000,
      ...(hedging === null ? {} : { hedging: hedgingConfig.parse({ models: ["m"], maxShare: 1, ...hedging }) }),
      ...more,
    },
  );
  onTestFinished(async () => {
    await under[Symbol.asyncDispose]();
    for (const agent of agents) await agent.close();
  });
  return { under, agents, got, left, order, answers };
}

/** A file for usage records, in a folder of its own. */
async function usageOnDisk() {
  const folder = await temporaryFolder();
  const path = join(folder.path, "usage.jsonl");
  return {
    path,
    async records(): Promise<UsageRecord[]> {
      const records: UsageRecord[] = [];
      for await (const each of readUsageFile(path)) records.push(each);
      return records;
    },
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

const silent: Infer = () => never;
const post = (under: GatewayUnderTest, body: unknown = chat, init?: RequestInit) =>
  under.post("/v1/chat/completions", body, init);
const sum = (counts: readonly number[]) => counts.reduce((total, count) => total + count, 0);

/** An engine with a queue that is not of this gateway. */
const busyEngine = { waiting: 5, running: 1, kv_usage: 0.5, kv_hit_rate: null, missing_signals: [] };

/** Queue of an agent's engine, as the gateway has heard of it. */
async function waitingThere(under: GatewayUnderTest, agentUrl: string): Promise<number | null | undefined> {
  const report = z.object({ engine: z.object({ waiting: z.number().nullable() }).nullable() });
  const agent = z.object({ url: z.string(), last: z.object({ models: z.array(report) }) });
  const { agents } = z.object({ agents: z.array(agent) }).parse(await (await under.get("/stats")).json());
  return agents.find(({ url }) => url === agentUrl)?.last.models[0]?.engine?.waiting;
}

async function hedges(under: GatewayUnderTest, won: "first" | "second"): Promise<number> {
  const text = await (await under.get("/metrics")).text();
  return Number(new RegExp(`penstock_gateway_hedges_total\\{model="m",won="${won}"\\} (\\d+)`).exec(text)?.[1] ?? 0);
}

describe("a request without a first byte in time", () => {
  test("goes to the other replica too; its answer counts, the slow one is given up, and usage is settled once", async () => {
    await using usageFile = await usageOnDisk();
    const { under, agents, got, left, answers } = await pair({ afterMs: 30 }, { usageFile: usageFile.path });
    answers.set(0, silent);
    const response = await post(under);
    expect([response.status, await response.json()]).toMatchObject([200, { turn: 1 }]);
    expect(got).toEqual([1, 1]);
    await expect.poll(() => sum(left)).toBe(1);
    expect(await hedges(under, "second")).toBe(1);
    await under.gateway.stop();
    const records = await usageFile.records();
    expect(records).toMatchObject([{ promptTokens: 100, completionTokens: 20, outcome: "complete" }]);
    expect(records[0]?.replica).toBe(agents[left.indexOf(0)]?.url);
  });

  test("keeps the first answer when that comes first after all", async () => {
    await using usageFile = await usageOnDisk();
    const { under, agents, got, left, answers } = await pair({ afterMs: 30 }, { usageFile: usageFile.path });
    const { promise: second, resolve: came } = Promise.withResolvers<void>();
    answers.set(0, async (_, outgoing) => {
      await second;
      outgoing.writeHead(200, { "content-type": "application/json" }).end('{"turn":0}');
    });
    answers.set(1, () => {
      came();
      return never;
    });
    expect(await (await post(under)).json()).toEqual({ turn: 0 });
    expect(got).toEqual([1, 1]);
    await expect.poll(() => sum(left)).toBe(1);
    expect(await hedges(under, "first")).toBe(1);
    await under.gateway.stop();
    expect(await usageFile.records()).toMatchObject([{ replica: agents[left.indexOf(0)]?.url }]);
  });

  test("means the first byte of the body: an engine sends the headers of a stream long before", async () => {
    const { under, answers } = await pair({ afterMs: 30 });
    const event = 'data: {"choices":[{"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n';
    const stream = { "content-type": "text/event-stream" };
    answers.set(0, (_, outgoing) => outgoing.writeHead(200, stream).flushHeaders());
    answers.set(1, (_, outgoing) => void outgoing.writeHead(200, stream).end(event));
    expect(await (await post(under, { ...chat, stream: true })).text()).toBe(event);
  });

  test("is not sent on once a byte has come, however slow the rest is", async () => {
    const { under, got, answers } = await pair({ afterMs: 30 });
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    answers.set(0, async (_, outgoing) => {
      outgoing.writeHead(200, { "content-type": "text/event-stream" }).write("data: 1\n\n");
      await released;
      outgoing.end("data: [DONE]\n\n");
    });
    const slow = post(under, { ...chat, stream: true });
    await expect.poll(() => sum(got)).toBe(1);
    // Meanwhile another one is slow, and is sent on: the first one's time has passed as well.
    answers.set(1, silent);
    expect((await post(under)).status).toBe(200);
    release();
    expect(await (await slow).text()).toBe("data: 1\n\ndata: [DONE]\n\n");
    expect(sum(got)).toBe(3);
  });

  test("frees both replicas when the client leaves", async () => {
    const { under, got, left, answers } = await pair({ afterMs: 30 });
    answers.set(0, silent).set(1, silent);
    const leaving = new AbortController();
    const pending = post(under, chat, { signal: leaving.signal });
    await expect.poll(() => got).toEqual([1, 1]);
    leaving.abort();
    await expect(pending).rejects.toThrow();
    await expect.poll(() => left).toEqual([1, 1]);
  });
});

describe("a replica that fails", () => {
  const refuses: Infer = (_, outgoing) => {
    const error = { message: "gone", type: "server_error", code: "model_not_ready", param: null };
    outgoing.writeHead(503, { "content-type": "application/json" }).end(JSON.stringify({ error }));
  };

  test("before the other one has answered leaves it to that", async () => {
    const { under, answers } = await pair({ afterMs: 30 });
    const { promise: second, resolve: came } = Promise.withResolvers<void>();
    const { promise: failed, resolve: fail } = Promise.withResolvers<void>();
    answers.set(0, async (incoming, outgoing, body) => {
      await second;
      outgoing.on("finish", () => setImmediate(fail));
      await refuses(incoming, outgoing, body);
    });
    answers.set(1, async (_, outgoing) => {
      came();
      await failed;
      outgoing.writeHead(200, { "content-type": "application/json" }).end('{"turn":1}');
    });
    expect(await (await post(under)).json()).toEqual({ turn: 1 });
  });

  test("at once is not waited for: the request is sent again as ever", async () => {
    const { under, answers } = await pair({ afterMs: 60_000 });
    answers.set(0, refuses);
    expect(await (await post(under)).json()).toMatchObject({ turn: 1 });
    expect(await hedges(under, "second")).toBe(0);
  });
});

describe("hedging is not done", () => {
  /** Requests that replicas get for one that is slower than its time. */
  async function sentFor({ under, got, answers }: Pair, path = "/v1/chat/completions", body: unknown = chat) {
    const before = sum(got);
    answers.set(before, (_, outgoing) => {
      setTimeout(() => outgoing.writeHead(200, { "content-type": "application/json" }).end("{}"), 300);
    });
    expect((await under.post(path, body)).status).toBe(200);
    return sum(got) - before;
  }

  test("unless it is configured", async () => {
    expect(await sentFor(await pair(null))).toBe(1);
  });

  test("for another model's sake", async () => {
    expect(await sentFor(await pair({ models: ["other"], afterMs: 20 }))).toBe(1);
  });

  test("for a response that the engine keeps, or an upload", async () => {
    const made = await pair({ afterMs: 20 });
    expect(await sentFor(made, "/v1/responses", { model: "m", input: "hi" })).toBe(1);
    const form = new FormData();
    form.set("model", "m");
    form.set("file", new Blob(["sound"]), "a.wav");
    const before = sum(made.got);
    made.answers.set(before, (_, outgoing) => void setTimeout(() => outgoing.end("{}"), 300));

    const response = await fetch(`${made.under.gateway.url}/v1/audio/transcriptions`, {
      method: "POST",
      headers: { authorization: `Bearer ${apiKey}` },
      body: form,
    });
    expect(response.status).toBe(200);
    expect(sum(made.got)).toBe(before + 1);
  });

  test("beyond its share of the requests", async () => {
    const made = await pair({ afterMs: 20, maxShare: 0.25 });
    const { under, got, answers } = made;
    // Three requests have not earned one.
    for (let n = 0; n < 3; n += 1) expect(await sentFor(made)).toBe(1);
    answers.set(sum(got), silent);
    expect((await post(under)).status).toBe(200);
    expect(sum(got)).toBe(5);
    // That was the one; now it takes four more.
    for (let n = 0; n < 3; n += 1) expect(await sentFor(made)).toBe(1);
  });

  test("to a replica that is busier", async () => {
    const { under, agents, order, answers } = await pair({ afterMs: 20 });
    agents[1].behaviour.onHeartbeat = (truth) => {
      const beat = warm(truth);
      return { ...beat, models: beat.models.map((model) => ({ ...model, engine: busyEngine })) };
    };
    const slow: Infer = (_, outgoing) =>
      void setTimeout(() => outgoing.writeHead(200, { "content-type": "application/json" }).end("{}"), 300);
    await expect.poll(() => waitingThere(under, agents[1].url)).toBe(5);
    const ways = new Set<string>();
    for (let n = 0; n < 6; n += 1) {
      const before = order.length;
      answers.set(before, slow).set(before + 1, slow);
      expect((await post(under)).status).toBe(200);
      ways.add(order.slice(before).join(" then "));
      answers.delete(order.length);
      expect((await post(under)).status).toBe(200);
    }
    // From the idle replica nowhere; from the busy one to the idle one.
    expect(ways).toEqual(new Set(["0", "1 then 0"]));
  });

  test("before p95 is known; then it is what comes after", async () => {
    const made = await pair({ afterMs: "p95" });
    const { under, got, answers } = made;
    expect(await sentFor(made)).toBe(1);
    for (let n = 0; n < 64; n += 1) await post(under);
    // One of these may have been slower than most, and hedged.
    const before = await hedges(under, "second");
    answers.set(sum(got), silent);
    expect((await post(under)).status).toBe(200);
    expect(await hedges(under, "second")).toBe(before + 1);
  });

  test("after a reload that takes it away", async () => {
    const made = await pair({ afterMs: 20 });
    made.answers.set(0, silent);
    expect((await post(made.under)).status).toBe(200);

    await made.under.gateway.reload({ models: [servedModel] });
    expect(await sentFor(made)).toBe(1);
  });
});
