import { appendFile, readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as fc from "fast-check";
import { Registry } from "prom-client";
import { describe, expect, test, vi } from "vitest";
import { createLog } from "../../runtime/lib/log.ts";
import { exposeModelTimes, UsageCounters } from "../../runtime/gateway/metering/counters.ts";
import { Metering, type Opening } from "../../runtime/gateway/metering/metering.ts";
import { ModelTimes } from "../../runtime/gateway/metering/model-times.ts";
import { costOf } from "../../runtime/gateway/metering/prices.ts";
import { usageRecord, type UsageRecord } from "../../runtime/gateway/metering/record.ts";
import { UsageTap } from "../../runtime/gateway/metering/tap.ts";
import { noTokens, readUsage } from "../../runtime/gateway/metering/tokens.ts";
import { readUsageFile, UsageFile } from "../../runtime/gateway/metering/usage-file.ts";
import { UsageWriter } from "../../runtime/gateway/metering/writer.ts";
import { temporaryFolder } from "../support/folders.ts";

const sse = { "content-type": "text/event-stream; charset=utf-8" };
const json = { "content-type": "application/json" };

/** Cuts bytes into pieces of these sizes, over and over. */
function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const size = sizes[turn % sizes.length] ?? 1;
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}

interface Run {
  readonly hides?: boolean;
  readonly headers?: Record<string, string>;
  readonly sizes?: readonly number[];
  readonly ends?: boolean;
  readonly status?: number;
}

/** What a tap lets through of a body, and what it has seen. */
function tapped(
  body: string | Buffer,
  { hides = false, headers = sse, sizes = [17], ends = true, status = 200 }: Run = {},
) {
  const tap = new UsageTap(hides);
  tap.begin(status, headers);
  const out = cut(Buffer.from(body), sizes).map((piece) => tap.write(piece));
  if (ends) out.push(tap.end());
  return { out: Buffer.concat(out.filter((piece) => piece !== null)).toString(), ...tap.seen(100) };
}

const usage = { prompt_tokens: 7, completion_tokens: 2, total_tokens: 9, prompt_tokens_details: { cached_tokens: 4 } };
const counts = { prompt: 7, cached: 4, completion: 2, audioSeconds: 0 };
const chunk = (content: string, more = {}) =>
  `data: ${JSON.stringify({ choices: [{ delta: { content } }], ...more })}\n\n`;
const usageEvent = `data: ${JSON.stringify({ choices: [], usage })}\n\n`;
const done = "data: [DONE]\n\n";

describe("usage objects", () => {
  test.each<[string, unknown, object | null]>([
    ["chat", usage, counts],
    [
      "chat without details",
      { prompt_tokens: 7, completion_tokens: 2, prompt_tokens_details: null },
      { prompt: 7, completion: 2, cached: 0 },
    ],
    ["embeddings", { prompt_tokens: 7, total_tokens: 7 }, { prompt: 7, completion: 0 }],
    [
      "responses",
      { input_tokens: 7, output_tokens: 2, input_tokens_details: { cached_tokens: 4 }, total_tokens: 9 },
      counts,
    ],
    [
      "messages",
      { input_tokens: 2, cache_read_input_tokens: 4, cache_creation_input_tokens: 1, output_tokens: 2 },
      counts,
    ],
    ["rerank", { total_tokens: 7 }, { prompt: 7, completion: 0 }],
    ["sound by length", { type: "duration", seconds: 12.5 }, { audioSeconds: 12.5, prompt: 0 }],
    ["nothing", {}, null],
    ["a list", [1], null],
    ["lies", { prompt_tokens: -1, completion_tokens: 1e300 }, null],
    [
      "more from the cache than there is",
      { prompt_tokens: 3, prompt_tokens_details: { cached_tokens: 9 } },
      { prompt: 3, cached: 3 },
    ],
  ])("%s", (_, value, expected) => {
    expect(readUsage(value)).toEqual(expected === null ? null : { ...noTokens, ...expected });
  });

  test("nothing that an engine says makes a count that is none", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom(...Object.keys(usage), "input_tokens", "seconds"), fc.jsonValue()),
        (value) => {
          for (const count of Object.values(readUsage(value) ?? noTokens))
            expect(count >= 0 && count < 1e13).toBe(true);
        },
      ),
    );
  });
});

describe("streams", () => {
  test("pass unchanged and are counted, wherever the chunks are cut and whatever the text says", () => {
    const content = fc.string({
      unit: fc.constantFrom("a", "é", '"', "\n", "data:", '"usage":{"prompt_tokens":999}', "[DONE]"),
    });
    const end = fc.constantFrom("\n\n", "\r\n\r\n");
    fc.assert(
      fc.property(
        fc.array(content),
        fc.array(fc.integer({ min: 1, max: 99 }), { minLength: 1 }),
        end,
        (texts, sizes, blank) => {
          const events = texts.map((text) => chunk(text, { usage: null }));
          const body = [": held\n\n", ...events, usageEvent, done].join("").replaceAll("\n\n", blank);
          expect(tapped(body, { sizes })).toMatchObject({ out: body, tokens: counts, estimated: false });
          const without = [": held\n\n", ...events, done].join("").replaceAll("\n\n", blank);
          expect(tapped(body, { sizes, hides: true })).toMatchObject({
            out: without,
            tokens: counts,
            estimated: false,
          });
          const told = { tokens: { prompt: 100, completion: texts.length }, estimated: true };
          expect(tapped(without, { sizes })).toMatchObject({ out: without, ...told });
        },
      ),
    );
  });

  test("a field whose name only ends in usage is none", () => {
    const body = `${chunk("a", { last_usage: { prompt_tokens: 1 } })}${usageEvent}${done}`;
    expect(tapped(body)).toMatchObject({ out: body, tokens: counts, estimated: false });
  });

  test("usage beside an answer is read, and never hidden", () => {
    const body = `${chunk("a")}${chunk("b", { usage })}${done}`;
    expect(tapped(body, { hides: true })).toMatchObject({ out: body, tokens: counts });
  });

  test("of Anthropic tell the prompt first and the answer last", () => {
    const body = [
      `event: message_start\ndata: {"type":"message_start","message":{"content":[],"usage":{"input_tokens":5,"output_tokens":1}}}\n\n`,
      `event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"hi"}}\n\n`,
      `event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":12}}\n\n`,
      `event: message_stop\ndata: {"type":"message_stop"}\n\n`,
    ].join("");
    expect(tapped(body)).toMatchObject({ out: body, tokens: { prompt: 5, completion: 12 }, estimated: false });
  });

  test("of Responses tell it in the answer, and a tool's arguments cannot pass for it", () => {
    const forged = `data: {"type":"response.x","item":{"arguments":{"usage":{"input_tokens":1,"output_tokens":1}}}}\n\n`;
    const end = `data: {"type":"response.completed","response":{"output":[],"usage":{"input_tokens":5,"output_tokens":3}}}\n\n`;
    expect(tapped(end + forged)).toMatchObject({ tokens: { prompt: 5, completion: 3 }, estimated: false });
  });

  test("that break off cost what was counted", () => {
    expect(tapped(chunk("a") + chunk("b"), { ends: false })).toMatchObject({
      tokens: { prompt: 100, completion: 2 },
      estimated: true,
    });
  });

  test("with an event that never ends pass, and keep little", () => {
    const body = `${chunk("a")}data: ${"x".repeat(3_000_000)}\n\n${usageEvent}${done}`;
    const seen = tapped(body, { hides: true, sizes: [65_536] });
    expect(seen.tokens).toEqual(counts);
    expect(seen.out.length).toBe(body.length - usageEvent.length);
  });
});

describe("whole answers", () => {
  test.each<[string, string, object]>([
    ["a chat", JSON.stringify({ choices: [{ message: { content: '{"usage":{"prompt_tokens":1}}' } }], usage }), counts],
    [
      "embeddings with usage behind",
      JSON.stringify({ data: Array.from({ length: 20_000 }, () => 0.125), usage }),
      counts,
    ],
    [
      "embeddings with usage before",
      JSON.stringify({ usage, data: Array.from({ length: 20_000 }, () => 0.125) }),
      counts,
    ],
  ])("%s", (_, body, tokens) => {
    expect(tapped(body, { headers: json, sizes: [1_000] })).toMatchObject({ out: body, tokens, estimated: false });
  });

  test.each<[string, string, Run]>([
    ["no usage", '{"choices":[]}', {}],
    ["half a body", '{"usage":{"prompt_tokens":1', {}],
    ["usage that a model only wrote of", JSON.stringify({ choices: [{ text: '"usage":{"prompt_tokens":1}' }] }), {}],
    ["the word as a token", '{"choices":[{"token":"usage","logprob":-1}]}', {}],
    ["compressed", '{"usage":{"prompt_tokens":1}}', { headers: { ...json, "content-encoding": "gzip" } }],
    ["sound", "RIFF", { headers: { "content-type": "audio/wav" } }],
  ])("with %s are estimated", (_, body, run) => {
    expect(tapped(body, { headers: json, ...run })).toMatchObject({
      out: body,
      tokens: { prompt: 100, completion: 0 },
      estimated: true,
    });
  });

  test("that are errors cost nothing", () => {
    expect(tapped('{"error":{}}', { headers: json, status: 400 })).toMatchObject({
      tokens: noTokens,
      estimated: false,
    });
  });
});

const opening: Opening = {
  requestId: "r1",
  tenant: "acme",
  credentialId: "k1",
  model: "m",
  adapter: null,
  endpoint: "/v1/chat/completions",
  class: "interactive",
  arrivedMs: 0,
  estimatedPromptTokens: 100,
  hidesUsage: false,
};
const prices = new Map([
  ["m", { perMillionPromptTokens: 2, perMillionCachedTokens: 1, perMillionCompletionTokens: 10, perAudioMinute: 6 }],
  ["m:a", { perMillionCompletionTokens: 100 }],
]);
const log = createLog("test", "silent");

function metering(registry = new Registry(), maxTenants = 2) {
  const records: UsageRecord[] = [];
  const counters = new UsageCounters(registry, maxTenants);
  return {
    records,
    metering: new Metering({ prices: () => prices, counters, outlets: [{ write: (one) => void records.push(one) }] }),
  };
}

function recordOf(requestId: string): UsageRecord {
  return metering()
    .metering.open({ ...opening, requestId })
    .settle({ outcome: "complete", status: 200 });
}

test("prices", () => {
  const tokens = { prompt: 1e6, cached: 5e5, completion: 1e5, audioSeconds: 30 };
  expect(costOf(prices, { model: "m", adapter: null }, tokens)).toBeCloseTo(1 + 0.5 + 1 + 3);
  expect(costOf(prices, { model: "m", adapter: "a" }, tokens)).toBeCloseTo(10);
  expect(costOf(prices, { model: "other", adapter: null }, tokens)).toBe(0);
});

test("an account is settled once, also when nobody settles it", () => {
  const { records, metering: under } = metering();
  const account = under.open({ ...opening, arrivedMs: performance.now() });
  account.tap.begin(200, sse);
  account.tap.write(Buffer.from(usageEvent));
  account.tap.end();
  account.replica = "http://agent";
  const record = account.settle({ outcome: "complete", status: 200 });
  expect(account.settle({ outcome: "cut", status: 502 })).toBe(record);
  account[Symbol.dispose]();
  {
    using _forgotten = under.open({ ...opening, requestId: "r2" });
  }
  expect(records.map(({ requestId, outcome, status }) => [requestId, outcome, status])).toEqual([
    ["r1", "complete", 200],
    ["r2", "refused", 500],
  ]);
  expect(usageRecord.parse(record)).toMatchObject({
    promptTokens: 7,
    cachedTokens: 4,
    completionTokens: 2,
    replica: "http://agent",
  });
  expect(record.costUsd).toBeCloseTo((3 * 2 + 4 * 1 + 2 * 10) / 1e6, 12);
  expect(records[1]).toMatchObject({ costUsd: 0, ttftMs: null, promptTokens: 0 });
});

test("tenants beyond the bound share one series", async () => {
  const registry = new Registry();
  const { metering: under } = metering(registry);
  for (const tenant of ["a", "b", "c", "d", "a"]) {
    const account = under.open({ ...opening, tenant });
    account.tap.begin(200, json);
    account.tap.write(Buffer.from(JSON.stringify({ usage })));
    account.tap.end();
    account.settle({ outcome: "complete", status: 200 });
  }
  const text = await registry.metrics();
  const lines = text
    .split("\n")
    .filter((line) => line.startsWith("penstock_gateway_tokens_total") && line.includes("completion"));
  expect(lines).toEqual([
    'penstock_gateway_tokens_total{model="m",tenant="a",kind="completion"} 4',
    'penstock_gateway_tokens_total{model="m",tenant="b",kind="completion"} 2',
    'penstock_gateway_tokens_total{model="m",tenant="other",kind="completion"} 4',
  ]);
});

describe("the writer", () => {
  const options = { maxBatch: 2, intervalMs: 5, maxWaiting: 4 };

  test("batches, and tries again with what failed", async () => {
    const batches: string[][] = [];
    let fails = 1;
    const sink = {
      async append(records: readonly UsageRecord[]) {
        batches.push(records.map(({ requestId }) => requestId));
        if (fails-- > 0) throw new Error("away");
      },
    };
    const writer = new UsageWriter(sink, log, options);
    for (const id of ["a", "b", "c"]) writer.write(recordOf(id));
    await vi.waitFor(() => expect(writer.waiting).toBe(0));
    expect(batches).toEqual([["a", "b"], ["a", "b"], ["c"]]);
    await writer.close();
    expect(writer.lost).toBe(0);
  });

  test("keeps a bounded number while the sink is away, and close gives up what is left", async () => {
    const sink = { append: () => Promise.reject(new Error("away")) };
    const writer = new UsageWriter(sink, log, options);
    for (let n = 0; n < 10; n += 1) writer.write(recordOf(`r${n}`));
    expect([writer.waiting, writer.lost]).toEqual([4, 6]);
    expect(await writer.flush()).toBe(false);
    await writer.close();
    expect(writer.waiting).toBe(4);
  });

  test("close writes the last record", async () => {
    const seen: string[] = [];
    const writer = new UsageWriter(
      { append: async (records) => void seen.push(...records.map((one) => one.requestId)) },
      log,
      { ...options, intervalMs: 60_000 },
    );
    writer.write(recordOf("last"));
    await writer.close();
    expect(seen).toEqual(["last"]);
  });
});

describe("the usage file", () => {
  async function idsIn(path: string, broken: number[] = []): Promise<string[]> {
    const ids: string[] = [];
    for await (const { requestId } of readUsageFile(path, (line) => broken.push(line))) ids.push(requestId);
    return ids;
  }

  test("is cut at its bound, and the oldest goes", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "usage/usage.jsonl");
    const file = new UsageFile({ path, maxBytes: 1, maxFiles: 3 });
    for (const id of ["a", "b", "c", "d"]) await file.append([recordOf(id)]);
    await file.close();
    expect((await readdir(join(folder.path, "usage"))).toSorted()).toEqual(["usage.jsonl.1", "usage.jsonl.2"]);
    expect([await idsIn(`${path}.1`), await idsIn(`${path}.2`)]).toEqual([["d"], ["c"]]);
  });

  test("a torn line costs that record alone", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "usage.jsonl");
    const options = { path, maxBytes: 1e6, maxFiles: 2 };
    const first = new UsageFile(options);
    await first.append([recordOf("a"), recordOf("torn")]);
    await first.close();
    await truncate(path, (await readFile(path)).length - 20);
    const second = new UsageFile(options);
    await second.append([recordOf("b")]);
    await second.close();
    await appendFile(path, '{"requestId":"half');
    const broken: number[] = [];
    expect(await idsIn(path, broken)).toEqual(["a", "b"]);
    expect(broken).toEqual([2, 4]);
  });

  test("a failure to write is told, and the next call tries anew", async () => {
    await using folder = await temporaryFolder();
    const blocked = join(folder.path, "blocked");
    await writeFile(blocked, "");
    const file = new UsageFile({ path: join(blocked, "usage.jsonl"), maxBytes: 1e6, maxFiles: 2 });
    await expect(file.append([recordOf("a")])).rejects.toThrow();
    await expect(file.append([recordOf("a")])).rejects.toThrow();
  });
});

test("time of replicas is divided into cold starts, idle and busy", async () => {
  const times = new ModelTimes();
  const one = { model: "m", replica: "1" };
  const two = { model: "m", replica: "2" };
  times.observe(one, "cold_start", 0);
  times.observe(one, "idle", 4_000);
  times.observe(two, "busy", 4_000);
  times.observe(one, "busy", 10_000);
  times.observe(one, null, 11_000);
  times.observe(one, "idle", 500_000);
  // Nothing was heard of it for long: it may have been gone.
  times.observe(two, "busy", 900_000);
  expect(times.totals()).toEqual([{ model: "m", coldStartSeconds: 4, idleSeconds: 6, busySeconds: 61 }]);
  const registry = new Registry();
  exposeModelTimes(registry, times);
  expect(await registry.metrics()).toContain('penstock_gateway_model_replica_seconds{model="m",phase="idle"} 6');
});
