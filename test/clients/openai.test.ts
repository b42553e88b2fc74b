import OpenAI, { BadRequestError, toFile } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { apiKey, gatewayUnderTest, type GatewayUnderTest } from "../gateway/support.ts";
import { startPenstock, type RunningStart } from "../support/penstock.ts";
import { gatewayOverSimulator, type Endpoint } from "./support.ts";

// What `test/e2e/openai.test.ts` does not ask of OpenAI's own client.

function clientOf({ gateway }: GatewayUnderTest): OpenAI {
  return new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey, maxRetries: 0 });
}

describe("with the embedded engine", () => {
  let penstock: RunningStart;
  beforeAll(async () => {
    penstock = await startPenstock();
  });
  afterAll(() => penstock[Symbol.asyncDispose]());

  test("an answer by a schema", async () => {
    // Closed values: a small model may write a free text without an end.
    const schema = z.object({ sky: z.enum(["clear", "cloudy"]), rain: z.boolean() });
    const answer = await penstock.client.chat.completions.parse({
      model: "penstock-demo",
      messages: [{ role: "user", content: "Weather in Oslo?" }],
      response_format: zodResponseFormat(schema, "weather"),
      max_tokens: 200,
      temperature: 0,
    });
    expect(schema.safeParse(answer.choices[0]?.message.parsed).success).toBe(true);
  });

  test("a streamed tool call", async () => {
    const stream = penstock.client.chat.completions.stream({
      model: "penstock-demo",
      messages: [{ role: "user", content: "What is the weather in Oslo?" }],
      tools: [
        {
          type: "function",
          function: {
            name: "get_weather",
            parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
          },
        },
      ],
      tool_choice: "required",
      temperature: 0,
      max_tokens: 100,
    });
    const call = (await stream.finalChatCompletion()).choices[0]?.message.tool_calls?.[0];
    expect(call?.type === "function" && call.function.name).toBe("get_weather");
  });
});

describe("with a simulated vLLM", () => {
  let endpoint: Endpoint;
  let client: OpenAI;
  beforeAll(async () => {
    endpoint = await gatewayOverSimulator();
    client = clientOf(endpoint.under);
  });
  afterAll(() => endpoint[Symbol.asyncDispose]());

  test("responses", async () => {
    const answer = await client.responses.create({ model: "m", input: "Hello!", max_output_tokens: 8 });
    expect(answer.output_text.length).toBeGreaterThan(0);
    expect(answer.usage?.output_tokens).toBe(8);
  });

  test("several answers with the likelihood of their tokens", async () => {
    const { choices } = await client.chat.completions.create({
      model: "m",
      messages: [{ role: "user", content: "Hi" }],
      n: 2,
      logprobs: true,
      top_logprobs: 2,
      max_tokens: 3,
    });
    expect(choices.map(({ logprobs }) => logprobs?.content?.length)).toEqual([3, 3]);
  });

  test("a stream has no usage that nobody asked for, and the gateway knows it all the same", async () => {
    const stream = await client.chat.completions.create({
      model: "m",
      messages: [{ role: "user", content: "Count." }],
      max_tokens: 23,
      stream: true,
    });
    const before = await completionTokens(endpoint.under);
    for await (const chunk of stream) {
      expect(chunk.choices).toHaveLength(1);
      expect(chunk.usage ?? null).toBeNull();
    }
    await expect.poll(() => completionTokens(endpoint.under)).toBe(before + 23);
  });

  test("embeddings in base64, as the client asks for them", async () => {
    const { data, usage } = await client.embeddings.create({ model: "m", input: ["a fox", "a bear"] });
    expect(data.map(({ embedding }) => embedding.length)).toEqual([64, 64]);
    expect(usage.total_tokens).toBeGreaterThan(0);
  });

  test("a picture from the web is refused with the place where it stands", async () => {
    const content = [{ type: "image_url", image_url: { url: "http://169.254.169.254/latest" } }] as const;
    const asked = client.chat.completions.create({ model: "m", messages: [{ role: "user", content: [...content] }] });
    const error: unknown = await asked.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(BadRequestError);
    expect(error).toMatchObject({ code: "invalid_value", param: "messages[0].content[0].image_url.url" });
  });
});

async function completionTokens(under: GatewayUnderTest): Promise<number> {
  const lines = (await (await under.get("/metrics")).text()).split("\n");
  const line = lines.find((text) => /^penstock_gateway_tokens_total\{.*kind="completion"/.test(text));
  return Number(line?.split(" ").at(-1) ?? 0);
}

describe("with engines for sound", () => {
  const sound = Buffer.alloc(100_000, "RIFF");

  test.each([
    ["the model first", (file: File) => ({ model: "m", file })],
    ["the file first", (file: File) => ({ file, model: "m" })],
  ])("a transcription, %s", async (_, fields) => {
    let body = "";
    await using under = await gatewayUnderTest({
      onInfer(_request, outgoing, seen) {
        body = seen;
        const usage = { type: "duration", seconds: 2 };
        outgoing.writeHead(200, { "content-type": "application/json" });
        outgoing.end(JSON.stringify({ text: "hello", usage }));
      },
    });
    const file = await toFile(sound, "speech.wav", { type: "audio/wav" });
    const answer = await clientOf(under).audio.transcriptions.create(fields(file));
    expect(answer.text).toBe("hello");
    expect(body).toContain(sound.toString());
    expect(body).toContain('filename="speech.wav"');
  });

  test("a file too long to be kept, in front of its model, is refused with what to do", async () => {
    await using under = await gatewayUnderTest({ onInfer: (_, outgoing) => void outgoing.end("{}") });
    const file = await toFile(Buffer.alloc(6_000_000), "speech.wav");
    const asked = clientOf(under).audio.transcriptions.create({ file, model: "m" });
    await expect(asked).rejects.toThrow(/send it before the file/);
  });

  test("a long file behind its model streams through", async () => {
    let length = 0;
    await using under = await gatewayUnderTest({
      onInfer(_, outgoing, body) {
        ({ length } = body);
        outgoing.writeHead(200, { "content-type": "application/json" }).end('{"text":"long"}');
      },
    });
    const file = await toFile(Buffer.alloc(4_000_000, "x"), "speech.wav");
    expect((await clientOf(under).audio.transcriptions.create({ model: "m", file })).text).toBe("long");
    expect(length).toBeGreaterThan(4_000_000);
  });

  test("speech comes back byte for byte", async () => {
    await using under = await gatewayUnderTest({
      onInfer: (_, outgoing) => void outgoing.writeHead(200, { "content-type": "audio/wav" }).end(sound),
    });
    const answer = await clientOf(under).audio.speech.create({ model: "m", input: "Hello!", voice: "alloy" });
    expect(Buffer.from(await answer.arrayBuffer()).equals(sound)).toBe(true);
  });
});

test("a streamed response, from events as vLLM writes them", async () => {
  const response = { id: "resp_1", object: "response", created_at: 1, model: "m", output: [], tools: [] };
  const item = { type: "message", id: "msg_1", role: "assistant", status: "in_progress", content: [] };
  const part = { type: "output_text", text: "", annotations: [] };
  const at = { item_id: "msg_1", output_index: 0, content_index: 0 };
  const usage = { input_tokens: 3, output_tokens: 2, total_tokens: 5 };
  const events = [
    { type: "response.created", response: { ...response, status: "in_progress" } },
    { type: "response.output_item.added", output_index: 0, item },
    { type: "response.content_part.added", ...at, part },
    { type: "response.output_text.delta", ...at, delta: "Hel" },
    { type: "response.output_text.delta", ...at, delta: "lo" },
    { type: "response.completed", response: { ...response, status: "completed", usage } },
  ];
  await using under = await gatewayUnderTest({
    onInfer(_, outgoing) {
      outgoing.writeHead(200, { "content-type": "text/event-stream" });
      for (const [number, event] of events.entries()) {
        outgoing.write(`event: ${event.type}\ndata: ${JSON.stringify({ ...event, sequence_number: number })}\n\n`);
      }
      outgoing.end();
    },
  });
  let text = "";
  const stream = await clientOf(under).responses.create({ model: "m", input: "Hello!", stream: true });
  for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta;
  expect(text).toBe("Hello");
  await expect.poll(() => completionTokens(under)).toBe(2);
});
