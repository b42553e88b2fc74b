import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Hono } from "hono";
import { OpenAI } from "openai";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { createApp } from "../../runtime/embedded/app.ts";
import { Engine } from "../../runtime/embedded/engine.ts";
import { parseCommand } from "../../runtime/embedded/options.ts";
import { respond, type AnswerShape } from "../../runtime/embedded/routes/respond.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { serve, type NodeEnv } from "../../runtime/lib/serve.ts";
import { EngineProcess, sseEvents, type ErrorAnswer } from "./engine-process.ts";
import { tinyEncoder, tinyLora, tinyModel, writeModel } from "./tiny-gguf.ts";
import { temporaryFolder } from "../support/folders.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let engine: EngineProcess;

beforeAll(async () => {
  folder = await temporaryFolder();
  const path = await writeModel(join(folder.path, "tiny.gguf"), tinyModel());
  const lora = await writeModel(join(folder.path, "lora.gguf"), tinyLora());
  engine = await EngineProcess.start("--model-path", path, "--n-ctx", "256", "--lora", `a=${lora}`);
});

afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

interface Embeddings {
  readonly data: readonly { readonly index: number; readonly embedding: number[] | string }[];
  readonly usage: { readonly prompt_tokens: number; readonly total_tokens: number };
}

const embed = (body: object) => engine.json<Embeddings>("/v1/embeddings", { model: "tiny", ...body });
const vectorOf = async (body: object) => (await embed(body)).data[0]?.embedding as number[];
const lengthOf = (vector: readonly number[]) => Math.hypot(...vector);

describe("embeddings", () => {
  test("have unit length, one per input, in order", async () => {
    const { data, usage } = await embed({ input: ["hello", "the sea", "hello"] });
    expect(data.map(({ index }) => index)).toEqual([0, 1, 2]);
    const [first, second, third] = data.map(({ embedding }) => embedding as number[]);
    for (const vector of [first, second, third]) {
      expect(vector).toHaveLength(64);
      expect(lengthOf(vector ?? [])).toBeCloseTo(1, 5);
    }
    expect(third).toEqual(first);
    expect(second).not.toEqual(first);
    expect(usage).toEqual({ prompt_tokens: 8, total_tokens: 8 });
  });

  test("base64 holds the same numbers", async () => {
    const plain = await vectorOf({ input: "hello" });
    const { data } = await embed({ input: "hello", encoding_format: "base64" });
    const bytes = Buffer.from(data[0]?.embedding as string, "base64");
    const decoded = Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readFloatLE(index * 4));
    expect(decoded).toEqual(plain);
  });

  test("dimensions shorten and normalise", async () => {
    const whole = await vectorOf({ input: "hello" });
    const short = await vectorOf({ input: "hello", dimensions: 8 });
    expect(short).toHaveLength(8);
    expect(lengthOf(short)).toBeCloseTo(1, 5);
    expect((short[0] ?? 0) / (short[1] ?? 1)).toBeCloseTo((whole[0] ?? 0) / (whole[1] ?? 1), 4);
  });

  test("token ids are inputs too", async () => {
    expect(await vectorOf({ input: [259] })).toEqual(await vectorOf({ input: "hello" }));
    expect((await embed({ input: [[259], [97]] })).data).toHaveLength(2);
  });

  test.each([
    [
      "an input longer than the context",
      { input: ["ok", "x".repeat(300)] },
      { code: "context_length_exceeded", param: "input" },
    ],
    ["too many dimensions", { input: "a", dimensions: 65 }, { code: "invalid_value", param: "dimensions" }],
    ["an empty input", { input: "" }, { code: "invalid_value", param: "input" }],
    ["an empty list of ids", { input: [] }, { code: "invalid_value", param: "input" }],
    ["an adapter", { input: "a", model: "tiny:a" }, { code: "unsupported", param: "model" }],
    ["another encoding", { input: "a", encoding_format: "hex" }, { code: "invalid_value", param: "encoding_format" }],
  ])("%s is refused", async (_, body, expected) => {
    const response = await engine.post("/v1/embeddings", { model: "tiny", ...body });
    expect(((await response.json()) as ErrorAnswer).error).toMatchObject(expected);
  });
});

test("an encoder model embeds, and says that it cannot write", async () => {
  const path = await writeModel(join(folder.path, "encoder.gguf"), tinyEncoder());
  await using encoder = await EngineProcess.start("--model-path", path);
  const { data } = await encoder.json<Embeddings>("/v1/embeddings", { input: ["a b", "c", "a b"] });
  expect(data[0]?.embedding).toHaveLength(32);
  expect(data[2]?.embedding).toEqual(data[0]?.embedding);
  expect(data[1]?.embedding).not.toEqual(data[0]?.embedding);
  const refused = await encoder.post("/v1/completions", { prompt: "a" });
  expect(((await refused.json()) as ErrorAnswer).error).toMatchObject({ code: "unsupported", param: "model" });
});

describe("OpenAI's own client", () => {
  const client = () => new OpenAI({ baseURL: `${engine.url}/v1`, apiKey: "none", maxRetries: 0 });

  test("lists models, embeds, and completes", async () => {
    expect((await client().models.list()).data.map(({ id }) => id)).toEqual(["tiny", "tiny:a"]);
    const { data } = await client().embeddings.create({ model: "tiny", input: "hello" });
    expect(data[0]?.embedding).toHaveLength(64);
    const completion = await client().completions.create({ model: "tiny", prompt: "hello", max_tokens: 3 });
    expect(completion.usage?.prompt_tokens).toBe(1);
  });

  test("streams a chat with a forced tool call", async () => {
    const parameters = { type: "object", properties: { city: { type: "string", enum: ["Oslo"] } }, required: ["city"] };
    const stream = client().chat.completions.stream({
      model: "tiny",
      messages: [{ role: "user", content: "weather?" }],
      tools: [{ type: "function", function: { name: "get_weather", parameters } }],
      tool_choice: "required",
      parallel_tool_calls: false,
    });
    const { choices } = await stream.finalChatCompletion();
    const call = choices[0]?.message.tool_calls?.[0];
    expect(call).toMatchObject({ function: { name: "get_weather", arguments: '{"city":"Oslo"}' } });
  });

  test("raises its typed errors", async () => {
    const wrong = client().chat.completions.create({ model: "none", messages: [{ role: "user", content: "x" }] });
    await expect(wrong).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  });
});

describe("metrics and stats", () => {
  test("count requests, tokens and times", async () => {
    const before = await (await engine.get("/metrics")).text();
    await engine.json("/v1/completions", { model: "tiny", prompt: "hello the", max_tokens: 7, ignore_eos: true });
    const after = await (await engine.get("/metrics")).text();
    const value = (text: string, name: string) =>
      Number(new RegExp(`^penstock_engine_${name} (\\S+)$`, "m").exec(text)?.[1] ?? 0);
    const grown = (name: string) => value(after, name) - value(before, name);
    expect(grown("generation_tokens_total")).toBe(7);
    expect(grown("prompt_tokens_total")).toBe(2);
    expect(grown("time_to_first_token_seconds_count")).toBe(1);
    expect(grown("inter_token_latency_seconds_count")).toBe(6);
    expect(grown('request_seconds_count{outcome="ok"}'.replaceAll(/[{}]/g, String.raw`\$&`))).toBe(1);
    expect(value(after, "requests_running")).toBe(0);
    expect(value(after, "kv_cache_usage_ratio")).toBeGreaterThan(0);
    expect(value(after, "process_resident_memory_bytes")).toBeGreaterThan(1e7);
    const samples = after.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
    expect(samples.filter((line) => !line.startsWith("penstock_engine_"))).toEqual([]);
  });

  test("stats tell people what runs where", async () => {
    expect(await engine.stats()).toMatchObject({
      state: "ready",
      model: { id: "tiny", parameters: 116_544, context_tokens: 256, adapters: ["a"], tool_format: "hermes" },
      slots: { total: 8 },
      gpu: false,
      gpu_layers: 0,
      threads: 1,
    });
  });
});

const log = createLog("test", "silent");

test("before the model is there, probes and requests get OpenAI's 503", async () => {
  const command = parseCommand(["--model-path", "x.gguf"]);
  if (command.kind !== "serve") throw new Error("not a command to serve");
  const app = createApp(new Engine(command.options, log), log);
  expect((await app.request("/health")).status).toBe(200);
  for (const path of ["/ready", "/v1/models"]) {
    const response = await app.request(path);
    expect([response.status, response.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(((await response.json()) as ErrorAnswer).error).toMatchObject({
      code: "model_not_ready",
      type: "server_error",
    });
  }
});

describe("a failure of a stream", () => {
  const shape: AnswerShape = {
    chunk: (_, event) => ({ event: event.type }),
    usageChunk: () => ({}),
    whole: () => ({}),
  };

  /** Serves one stream that fails after `good` events. */
  async function failing(good: number, failure: Error) {
    const broken = {
      admit: (_: AbortSignal, work: (ticket: object) => Promise<unknown>) => work({}),
      async *generate() {
        for (let sent = 0; sent < good; sent += 1) yield { type: "text", text: "x", logprobs: [] };
        throw failure;
      },
    } as unknown as Engine;
    const job = { prompt: [1], maxTokens: 9 } as never;
    const work = {
      jobs: [job],
      choicesPerPrompt: 1,
      adapter: undefined,

      stream: true,
      includeUsage: false,
      shape,
    };
    const app = new Hono<NodeEnv>();
    app.onError((thrown) => new Response(thrown.message, { status: 500 }));
    app.post("/", (c) => respond(c, { engine: broken, log }, work));
    const server = await serve(app, { host: "127.0.0.1", port: 0 });
    return { url: server.url, [Symbol.asyncDispose]: () => server.close(0) };
  }

  test("after the first byte is an error event and no [DONE]", async () => {
    await using server = await failing(2, new PenstockError("engine_died", "It stopped."));
    const events: { event: string; data: string }[] = [];
    for await (const event of sseEvents(await fetch(server.url, { method: "POST" }))) events.push(event);
    expect(events.map(({ event }) => event)).toEqual(["message", "message", "error"]);
    expect(JSON.parse(events[2]?.data ?? "")).toMatchObject({ error: { code: "engine_died", message: "It stopped." } });
  });

  test("that is a bug keeps its message to itself", async () => {
    await using server = await failing(1, new Error("secret detail"));
    const text = await (await fetch(server.url, { method: "POST" })).text();
    expect(text).toContain("internal_error");
    expect(text).not.toContain("secret detail");
    expect(text).not.toContain("[DONE]");
  });

  test("before the first byte is an ordinary error answer", async () => {
    await using server = await failing(0, new PenstockError("queue_full", "Full."));
    expect((await fetch(server.url, { method: "POST" })).status).toBe(500);
  });
});
