import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { chunksOf, EngineProcess, textOf, type Completion, type ErrorAnswer } from "./engine-process.ts";
import { asciiOnly, specialIds, tinyModel, writeModel } from "./tiny-gguf.ts";
import { temporaryFolder } from "../support/folders.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let engine: EngineProcess;

beforeAll(async () => {
  folder = await temporaryFolder();
  const path = await writeModel(join(folder.path, "tiny.gguf"), tinyModel());
  engine = await EngineProcess.start("--model-path", path, "--n-ctx", "512");
});

afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

const complete = (body: object) =>
  engine.json<Completion>("/v1/completions", {
    model: "tiny",
    prompt: "hello the",
    max_tokens: 40,
    seed: 11,
    logit_bias: asciiOnly,
    ignore_eos: true,
    ...body,
  });

const firstText = async (body: object = {}) => (await complete(body)).choices[0]?.text ?? "";

async function refusal(body: object | string, path = "/v1/completions") {
  const response = await engine.post(path, body);
  const { error } = (await response.json()) as ErrorAnswer; // a refusal is OpenAI's error body
  return { status: response.status, code: error.code, param: error.param, message: error.message };
}

describe("completions", () => {
  test("answers in OpenAI's shape with usage", async () => {
    const answer = await complete({});
    expect(answer).toMatchObject({
      id: expect.stringMatching(/^cmpl-/),
      object: "text_completion",
      model: "tiny",
      choices: [{ index: 0, logprobs: null, finish_reason: "length" }],
      usage: { prompt_tokens: 2, completion_tokens: 40, total_tokens: 42 },
    });
    expect(answer.choices[0]?.text.length).toBeGreaterThanOrEqual(40);
  });

  test("without max_tokens it writes 16 tokens, as OpenAI does", async () => {
    const { usage } = await complete({ max_tokens: undefined });
    expect(usage.completion_tokens).toBe(16);
  });

  test("the model's name may be left out", async () => {
    expect(await complete({ model: undefined })).toMatchObject({ model: "tiny" });
  });

  test("the same seed gives the same text, another seed another", async () => {
    const [first, again, other] = [await firstText(), await firstText(), await firstText({ seed: 12 })];
    expect(again).toBe(first);
    expect(other).not.toBe(first);
  });

  test("n choices differ, and are told apart by their index", async () => {
    const { choices, usage } = await complete({ n: 3 });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(new Set(choices.map(({ text }) => text)).size).toBe(3);
    expect(usage).toMatchObject({ prompt_tokens: 2, completion_tokens: 120 });
  });

  test("several prompts, as texts and as token ids", async () => {
    const { choices, usage } = await complete({ prompt: ["hello the", "ab"], temperature: 0 });
    expect(choices).toHaveLength(2);
    expect(usage.prompt_tokens).toBe(4);
    const ids = await complete({
      prompt: [
        [259, 261],
        [97, 98],
      ],
      temperature: 0,
    });
    expect(ids.choices.map(({ text }) => text)).toEqual(choices.map(({ text }) => text));
  });

  test("a stream carries the same text, in chunks, and usage at its end", async () => {
    const whole = await firstText();
    const response = await engine.post("/v1/completions", {
      model: "tiny",
      prompt: "hello the",
      max_tokens: 40,
      seed: 11,
      logit_bias: asciiOnly,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true },
    });
    expect(response.headers.get("content-type")).toContain("text/event-stream");
    const chunks = await chunksOf(response);
    expect(textOf(chunks)).toBe(whole);
    expect(chunks.length).toBeGreaterThan(20);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: 2, completion_tokens: 40 } });
    expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe("length");
    expect(chunks[0]).toMatchObject({ object: "text_completion", usage: null });
  });

  test("echo puts the prompt in front, also of a stream, and max_tokens 0 writes nothing else", async () => {
    expect(await firstText({ echo: true })).toBe(`hello the${await firstText()}`);
    const { choices } = await complete({ echo: true, max_tokens: 0 });
    expect(choices).toMatchObject([{ text: "hello the", finish_reason: "length" }]);
    const request = { model: "tiny", prompt: [104, 105], max_tokens: 1, echo: true, stream: true };
    expect(textOf(await chunksOf(await engine.post("/v1/completions", request)))).toMatch(/^hi/);
  });
});

describe("stop sequences", () => {
  test("end the text in front of them, wherever tokens divide it, and leave nothing of themselves in a stream", async () => {
    const whole = await firstText();
    const stop = whole.slice(20, 24);
    const expected = whole.slice(0, whole.indexOf(stop));
    const { choices } = await complete({ stop });
    expect(choices).toMatchObject([{ text: expected, finish_reason: "stop" }]);
    const response = await engine.post("/v1/completions", {
      model: "tiny",
      prompt: "hello the",
      max_tokens: 40,
      seed: 11,
      logit_bias: asciiOnly,
      ignore_eos: true,
      stop: ["never comes", stop],
      stream: true,
    });
    expect(textOf(await chunksOf(response))).toBe(expected);
  });

  test("what only looks like the begin of one is not lost", async () => {
    const whole = await firstText();
    expect(await firstText({ stop: `${whole.slice(36)}never` })).toBe(whole);
  });
});

describe("sampling", () => {
  test("temperature 0 needs no seed", async () => {
    expect(await firstText({ temperature: 0, seed: 1 })).toBe(await firstText({ temperature: 0, seed: 2 }));
  });

  test("top_k 1 and a tiny top_p are greedy", async () => {
    const greedy = await firstText({ temperature: 0 });
    expect(await firstText({ top_k: 1 })).toBe(greedy);
    expect(await firstText({ top_p: 0.000001 })).toBe(greedy);
    expect(await firstText({ min_p: 1 })).toBe(greedy);
  });

  test("logit_bias forces and bans tokens", async () => {
    expect(await firstText({ logit_bias: { 120: 100 }, max_tokens: 5 })).toBe("xxxxx");
    const banned = await firstText({ logit_bias: { ...asciiOnly, 120: -100, 262: -100 }, max_tokens: 200 });
    expect(banned).not.toContain("x");
  });

  test.each([{ frequency_penalty: 2 }, { presence_penalty: 2 }, { repetition_penalty: 5 }])(
    "%j changes a greedy text",
    async (penalty) => {
      const settings = { temperature: 0, logit_bias: { 120: 2, 121: 1.5 }, max_tokens: 60 };
      expect(await firstText({ ...settings, ...penalty })).not.toBe(await firstText(settings));
    },
  );

  test("presence_penalty takes its value off a token that was there before", async () => {
    type WithLogprobs = { choices: { logprobs: { tokens: string[]; top_logprobs: Record<string, number>[] } }[] };
    const lead = async (presence_penalty: number) => {
      const settings = {
        temperature: 0,
        logit_bias: { 120: 100, 121: 90 },
        max_tokens: 2,
        logprobs: 2,
        presence_penalty,
      };
      const answer = (await complete(settings)) as unknown as WithLogprobs;
      const { tokens, top_logprobs: top } = answer.choices[0]?.logprobs ?? { tokens: [], top_logprobs: [] };
      expect(tokens[0]).toBe("x");
      return (top[1]?.["x"] ?? 0) - (top[1]?.["y"] ?? 0);
    };
    expect((await lead(0)) - (await lead(1.5))).toBeCloseTo(1.5, 1);
  });

  test("log probabilities belong to the text, most probable first", async () => {
    const answer = await complete({ logprobs: 3, temperature: 0, max_tokens: 6 });
    const { text, logprobs } = answer.choices[0] as unknown as {
      text: string;
      logprobs: {
        tokens: string[];
        token_logprobs: number[];
        top_logprobs: Record<string, number>[];
        text_offset: number[];
      };
    };
    expect(logprobs.tokens.join("")).toBe(text);
    expect(logprobs.text_offset[0]).toBe(0);
    for (const [index, top] of logprobs.top_logprobs.entries()) {
      const values = Object.values(top);
      expect(Math.max(...values)).toBe(logprobs.token_logprobs[index]);
      expect(values.reduce((sum, value) => sum + Math.exp(value), 0)).toBeLessThanOrEqual(1.0001);
    }
  });
});

describe("what is refused", () => {
  const body = { model: "tiny", prompt: "hi" };

  test.each([
    ["no JSON", "{", { status: 400, code: "invalid_json", param: null }],
    ["JSON that is no object", "[]", { status: 400, code: "invalid_value", param: null }],
    ["no prompt", { model: "tiny" }, { status: 400, code: "invalid_value", param: "prompt" }],
    ["a model that is no text", { ...body, model: 5 }, { status: 400, code: "invalid_value", param: "model" }],
    ["a wrong type", { ...body, max_tokens: "many" }, { status: 400, code: "invalid_value", param: "max_tokens" }],
    [
      "a temperature out of range",
      { ...body, temperature: 3 },
      { status: 400, code: "invalid_value", param: "temperature" },
    ],
    ["an unknown model", { ...body, model: "gpt-5" }, { status: 404, code: "model_not_found", param: "model" }],
    ["an unknown adapter", { ...body, model: "tiny:pirate" }, { status: 404, code: "model_not_found", param: "model" }],
    ["an empty prompt", { ...body, prompt: "" }, { status: 400, code: "invalid_value", param: "prompt" }],
    [
      "a token id that is none",
      { ...body, prompt: [1, 99_999] },
      { status: 400, code: "invalid_value", param: "prompt" },
    ],
    [
      "a bias on no token",
      { ...body, logit_bias: { 99_999: 1 } },
      { status: 400, code: "invalid_value", param: "logit_bias.99999" },
    ],
    [
      "a bias on the end",
      { ...body, logit_bias: { [specialIds.imEnd]: 1 } },
      { status: 400, code: "unsupported", param: "logit_bias.265" },
    ],
    ["tools without a chat", { ...body, tools: [] }, { status: 400, code: "unsupported", param: "tools" }],
    [
      "too many texts",
      { ...body, prompt: ["a", "b", "c"], n: 100 },
      { status: 400, code: "invalid_value", param: "n" },
    ],
    ["suffix", { ...body, suffix: "x" }, { status: 400, code: "unsupported", param: "suffix" }],
    ["guided_json", { ...body, guided_json: {} }, { status: 400, code: "unsupported", param: "guided_json" }],
    [
      "echo with logprobs",
      { ...body, echo: true, logprobs: 1 },
      { status: 400, code: "unsupported", param: "logprobs" },
    ],
  ])("%s", async (_, request, expected) => {
    expect(await refusal(request)).toMatchObject(expected);
  });

  test("a prompt longer than the context, with the numbers", async () => {
    expect(await refusal({ ...body, prompt: "x".repeat(512) })).toMatchObject({
      status: 400,
      code: "context_length_exceeded",
      param: "prompt",
      message: expect.stringMatching(/512 tokens.*512/),
    });
    const { usage } = await complete({ prompt: "x".repeat(511), max_tokens: 50 });
    expect(usage.completion_tokens).toBe(1);
  });

  test("a body above the limit", async () => {
    const response = await engine.post("/v1/completions", "x".repeat(17 * 1024 * 1024)).catch(() => undefined);
    // The answer comes while the client still sends, which some clients report as a broken connection.
    expect([413, undefined]).toContain(response?.status);
    expect((await engine.get("/health")).status).toBe(200);
  });

  test("another method, another path", async () => {
    expect((await engine.get("/v1/completions")).status).toBe(405);
    expect(await refusal({}, "/v1/nothing")).toMatchObject({ status: 404, code: "not_found" });
  });
});
