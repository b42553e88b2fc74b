import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { startPenstock, type RunningStart } from "../support/penstock.ts";
import { clientPackage, collect, installTimeoutMs } from "./support.ts";

/** What is used of `@langchain/openai`. */
interface LangChain {
  readonly ChatOpenAI: new (options: object) => Chat;
  readonly OpenAIEmbeddings: new (options: object) => { embedDocuments(texts: string[]): Promise<number[][]> };
}
interface Message {
  readonly content: unknown;
  readonly tool_calls?: readonly { readonly name: string; readonly args: unknown }[];
  readonly usage_metadata?: { readonly output_tokens: number };
}
interface Chat {
  invoke(input: string): Promise<Message>;
  stream(input: string): Promise<AsyncIterable<Message>>;
  bindTools(tools: readonly object[], options: object): Chat;
  withStructuredOutput(schema: object, options: object): { invoke(input: string): Promise<unknown> };
}

let langchain: LangChain;
let penstock: RunningStart;
beforeAll(async () => {
  langchain = (await clientPackage("@langchain/openai")) as LangChain; // what its documentation says
  penstock = await startPenstock();
}, installTimeoutMs);
afterAll(() => penstock[Symbol.asyncDispose]());

const model = "penstock-demo";

function access(): object {
  return { model, apiKey: penstock.key, maxRetries: 0, configuration: { baseURL: `${penstock.url}/v1` } };
}

function chat(maxTokens: number): Chat {
  return new langchain.ChatOpenAI({ ...access(), temperature: 0, maxTokens });
}

test("an answer, whole and streamed alike", async () => {
  const whole = await chat(24).invoke("Hello!");
  const chunks = await collect(await chat(24).stream("Hello!"));
  expect(chunks.map(({ content }) => content).join("")).toBe(whole.content);
  expect(whole.usage_metadata?.output_tokens).toBeGreaterThan(0);
});

test("a tool call", async () => {
  const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const tool = { type: "function", function: { name: "get_weather", parameters } };
  const { tool_calls: calls } = await chat(100)
    .bindTools([tool], { tool_choice: "required" })
    .invoke("What is the weather in Oslo?");
  expect(calls?.[0]?.name).toBe("get_weather");
  expect(calls?.[0]?.args).toHaveProperty("city");
});

test("an answer by a schema", async () => {
  // A closed value: a small model may write a free text without an end.
  const schema = z.object({ sky: z.enum(["clear", "cloudy"]) });
  const structured = chat(200).withStructuredOutput(schema, { name: "place", method: "jsonSchema" });
  expect(schema.safeParse(await structured.invoke("How is the sky?")).success).toBe(true);
});

test("embeddings", async () => {
  const vectors = await new langchain.OpenAIEmbeddings(access()).embedDocuments(["a fox", "a bear"]);
  expect(vectors.map((vector) => Math.round(Math.hypot(...vector)))).toEqual([1, 1]);
});
