import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { startPenstock, type RunningStart } from "../support/penstock.ts";
import { clientPackage, collect, installTimeoutMs } from "./support.ts";

/** What is used of `ai` and `@ai-sdk/openai-compatible`. */
interface Ai {
  generateText(
    options: object,
  ): Promise<{ text: string; usage: Usage; toolCalls: { toolName: string; input: unknown }[] }>;
  streamText(options: object): { textStream: AsyncIterable<string>; usage: PromiseLike<Usage> };
  generateObject(options: object): Promise<{ object: unknown }>;
  embed(options: object): Promise<{ embedding: number[] }>;
  tool(options: object): unknown;
}
interface Usage {
  readonly outputTokens?: number;
}
interface Provider {
  (model: string): unknown;
  embeddingModel(model: string): unknown;
}
interface Compatible {
  createOpenAICompatible(options: object): Provider;
}

let ai: Ai;
let provider: Provider;
let penstock: RunningStart;
beforeAll(async () => {
  ai = (await clientPackage("ai")) as Ai; // what its documentation says
  const compatible = (await clientPackage("@ai-sdk/openai-compatible")) as Compatible; // the same
  penstock = await startPenstock();
  provider = compatible.createOpenAICompatible({
    name: "penstock",
    baseURL: `${penstock.url}/v1`,
    apiKey: penstock.key,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
}, installTimeoutMs);
afterAll(() => penstock[Symbol.asyncDispose]());

const model = "penstock-demo";
const shared = { prompt: "Hello!", temperature: 0, maxRetries: 0, maxOutputTokens: 24 };

test("text, whole and streamed alike", async () => {
  const whole = await ai.generateText({ model: provider(model), ...shared });
  expect(whole.text).toMatch(/\w/);
  const stream = ai.streamText({ model: provider(model), ...shared });
  expect((await collect(stream.textStream)).join("")).toBe(whole.text);
  expect((await stream.usage).outputTokens).toBe(whole.usage.outputTokens);
});

test("a tool call", async () => {
  const weather = ai.tool({ description: "Tells the weather.", inputSchema: z.object({ city: z.string() }) });
  const { toolCalls } = await ai.generateText({
    model: provider(model),
    ...shared,
    prompt: "What is the weather in Oslo?",
    tools: { get_weather: weather },
    toolChoice: "required",
    maxOutputTokens: 100,
  });
  expect(toolCalls[0]?.toolName).toBe("get_weather");
  expect(z.object({ city: z.string() }).safeParse(toolCalls[0]?.input).success).toBe(true);
});

test("an object by a schema", async () => {
  // A closed value: a small model may write a free text without an end.
  const schema = z.object({ sky: z.enum(["clear", "cloudy"]) });
  const asked = { model: provider(model), ...shared, schema, prompt: "How is the sky?", maxOutputTokens: 200 };
  const { object } = await ai.generateObject(asked);
  expect(schema.safeParse(object).success).toBe(true);
});

test("an embedding", async () => {
  const { embedding } = await ai.embed({ model: provider.embeddingModel(model), value: "a fox", maxRetries: 0 });
  expect(Math.hypot(...embedding)).toBeCloseTo(1, 3);
});
