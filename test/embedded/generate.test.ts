import { join } from "node:path";
import type { LlamaContextSequence } from "node-llama-cpp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Contexts } from "../../runtime/embedded/contexts.ts";
import { generate, type GenerationEvent, type ToolWriting } from "../../runtime/embedded/generate.ts";
import { jsonGrammar } from "../../runtime/embedded/grammar.ts";
import { loadModel, type LoadedModel } from "../../runtime/embedded/load-model.ts";
import { parseCommand } from "../../runtime/embedded/options.ts";
import { readSampling } from "../../runtime/embedded/sampling.ts";
import { Slot } from "../../runtime/embedded/slots.ts";
import { callSchema, detectToolFormat } from "../../runtime/embedded/tool-calls.ts";
import type { Token } from "../../runtime/embedded/vocabulary.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { specialIds, tinyModel, writeModel } from "./tiny-gguf.ts";
import { temporaryFolder } from "../support/folders.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let loaded: LoadedModel;
let sequence: LlamaContextSequence;
let tools: ToolWriting;

beforeAll(async () => {
  folder = await temporaryFolder();
  const path = await writeModel(join(folder.path, "tiny.gguf"), tinyModel());
  const command = parseCommand(["--model-path", path, "--threads", "1"]);
  if (command.kind !== "serve") throw new Error("not a command to serve");
  loaded = await loadModel(command.options, createLog("test", "silent"));
  const contexts = await Contexts.create(loaded, 1);
  ({ sequence } = (await contexts.acquire(undefined, [1 as Token], new AbortController().signal)).slot);
  const format = detectToolFormat("<tool_call>");
  if (format === undefined) throw new Error("no format");
  const tool = { type: "function" as const, function: { name: "get_time" } };
  const plan = { tools: [tool], callable: [tool], forced: false, parallel: false };
  const grammar = await jsonGrammar(loaded.llama, callSchema(plan, format), format.close);
  tools = { format, grammar, forced: false, parallel: false };
});

afterAll(async () => {
  await loaded.llama.dispose();
  await folder[Symbol.asyncDispose]();
});

const bytes = (text: string) => [...Buffer.from(text)] as Token[];
/** The vocabulary's token for `>x`. */
const closeAndX = 262 as Token;

/** A slot whose first generation says `script`, and whose later ones are the model's own. */
function scripted(script: readonly Token[]): Slot {
  let isFirst = true;
  async function* say() {
    for (const token of script) yield await Promise.resolve({ token });
  }
  return new Slot(
    new Proxy(sequence, {
      get(target, key) {
        if (key === "evaluateWithMetadata" && isFirst) {
          isFirst = false;
          return say;
        }
        const value: unknown = Reflect.get(target, key);
        return typeof value === "function" ? (value.bind(target) as unknown) : value;
      },
    }),
  );
}

async function eventsOf(script: readonly Token[], job: { stop?: string[]; tools?: ToolWriting; maxTokens?: number }) {
  const events: GenerationEvent[] = [];
  const { vocabulary, model } = loaded;
  const generation = generate(
    {
      prompt: bytes("What time is it?"),
      maxTokens: job.maxTokens ?? 300,
      stop: job.stop ?? [],
      sampling: readSampling({ seed: 4 }, vocabulary, undefined),
      grammar: undefined,
      tools: job.tools,
    },
    { model, vocabulary, slot: scripted(script), signal: new AbortController().signal },
  );
  for await (const event of generation) events.push(event);
  const text = events.map((event) => (event.type === "text" ? event.text : "")).join("");
  const calls = events.flatMap((event) => (event.type === "tool_call" ? [event.call] : []));
  return { text, calls, last: events.at(-1) };
}

const call = { id: expect.stringMatching(/^call_/), name: "get_time", arguments: "{}" };

describe("a generation with tools", () => {
  test("takes back a token that reaches behind the marker, and forces the call", async () => {
    const script = [...bytes("Let me see. <tool_call"), closeAndX, ...bytes("never read")];
    expect(await eventsOf(script, { tools })).toEqual({
      text: "Let me see. ",
      calls: [call],
      last: { type: "end", reason: "tool_calls" },
    });
  });

  test("leaves a marker that is never finished as text", async () => {
    const script = [...bytes("a <tool_"), specialIds.imEnd as Token];
    expect(await eventsOf(script, { tools })).toMatchObject({ text: "a <tool_", calls: [], last: { reason: "stop" } });
  });

  test("reads a call and ends with it", async () => {
    const script = [...bytes("<tool_call>\n"), ...bytes('{"name": "get_time", "arguments": {}}</tool_call> and more')];
    expect(await eventsOf(script, { tools })).toMatchObject({
      text: "",
      calls: [call],
      last: { reason: "tool_calls" },
    });
  });

  test("reads several calls, and ends where the model talks again", async () => {
    const one = '<tool_call>{"name": "get_time", "arguments": {}}</tool_call>';
    const script = bytes(`${one}\n${one}\nDone.`);
    const result = await eventsOf(script, { tools: { ...tools, parallel: true } });
    expect(result).toMatchObject({ text: "", calls: [call, call], last: { reason: "tool_calls" } });
  });

  test("a closing marker among the arguments does not end the call", async () => {
    const script = bytes('<tool_call>{"name": "get_time", "arguments": {"a": "</tool_call>"}}</tool_call>');
    const result = await eventsOf(script, { tools });
    expect(result.calls).toMatchObject([{ name: "get_time", arguments: '{"a":"</tool_call>"}' }]);
  });

  test("a call cut off by max_tokens is no call", async () => {
    const script = bytes('<tool_call>{"name": "get_time", "argum');
    const result = await eventsOf(script, { tools, maxTokens: script.length });
    expect(result).toMatchObject({ text: "", calls: [], last: { reason: "length" } });
  });
});

describe("a generation without tools", () => {
  test("drops a stop sequence and all behind it", async () => {
    expect(await eventsOf(bytes("one two three"), { stop: [" tw"] })).toMatchObject({
      text: "one",
      last: { reason: "stop" },
    });
  });

  test("ends at max_tokens with what was held back, without half a character", async () => {
    const script = [...bytes("ab ST"), 0xe2 as Token, 0x82 as Token];
    const result = await eventsOf(script, { stop: ["STOP"], maxTokens: script.length });
    expect(result).toMatchObject({ text: "ab ST", last: { reason: "length" } });
  });

  test("a marker is ordinary text", async () => {
    const script = [...bytes("<tool_call>x"), specialIds.imEnd as Token];
    expect(await eventsOf(script, {})).toMatchObject({ text: "<tool_call>x", last: { reason: "stop" } });
  });
});
