import { readFileSync } from "node:fs";
import { Template } from "@huggingface/jinja";
import { describe, expect, test } from "vitest";
import { render, type Turn } from "../../runtime/demo/corpus/dialogue.ts";
import { toolOf } from "../../runtime/demo/score.ts";

const source = readFileSync(new URL("../../runtime/demo/chat-template.jinja", import.meta.url), "utf8").trimEnd();
const template = new Template(source);

function rendered(messages: readonly object[], tools?: readonly object[], addGenerationPrompt = false): string {
  return template.render({ messages, tools, add_generation_prompt: addGenerationPrompt, bos_token: "", eos_token: "" });
}

const asked = { role: "user", content: "What is the weather in Oslo?" };

function call(given: unknown, content: string | null = null): object {
  return {
    role: "assistant",
    content,
    tool_calls: [{ type: "function", function: { name: "get_weather", arguments: given } }],
  };
}

const callText = '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>';

describe("chat template", () => {
  test("is ChatML with a prompt for the answer", () => {
    expect(
      rendered(
        [
          { role: "system", content: "You are Ada." },
          { role: "user", content: "Hi" },
        ],
        undefined,
        true,
      ),
    ).toBe("<|im_start|>system\nYou are Ada.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  });

  test("writes tools as one line, in a system turn of its own or behind the system text", () => {
    const tools = [toolOf("get_weather(city)"), toolOf("add(a, b)")];
    expect(rendered([asked], tools)).toBe(
      "<|im_start|>system\nTools: get_weather(city), add(a, b)<|im_end|>\n" +
        "<|im_start|>user\nWhat is the weather in Oslo?<|im_end|>\n",
    );
    expect(rendered([{ role: "system", content: "You are Ada." }, asked], tools)).toContain(
      "<|im_start|>system\nYou are Ada.\nTools: get_weather(city), add(a, b)<|im_end|>\n",
    );
  });

  test("takes a tool without parameters", () => {
    expect(rendered([asked], [{ type: "function", function: { name: "now" } }])).toContain("Tools: now()<|im_end|>");
  });

  test("writes calls with arguments as an object or as JSON text, and the tool's answer", () => {
    const answer = { role: "tool", tool_call_id: "call_1", content: '{"temperature": 4}' };
    const expected = `<|im_start|>assistant\n${callText}<|im_end|>\n<|im_start|>tool\n{"temperature": 4}<|im_end|>\n`;
    expect(rendered([asked, call({ city: "Oslo" }), answer])).toContain(expected);
    expect(rendered([asked, call('{"city": "Oslo"}', ""), answer])).toContain(expected);
  });

  test("writes several calls of one turn", () => {
    const two = [{ function: { name: "a", arguments: {} } }, { function: { name: "b", arguments: { x: 1 } } }];
    expect(rendered([{ role: "assistant", content: "", tool_calls: two }])).toBe(
      '<|im_start|>assistant\n<tool_call>{"name": "a", "arguments": {}}</tool_call>' +
        '<tool_call>{"name": "b", "arguments": {"x": 1}}</tool_call><|im_end|>\n',
    );
  });

  test("writes what the corpus writes", () => {
    const turns: Turn[] = [
      { role: "system", content: "You are Ada." },
      { role: "user", content: "What is the weather in Oslo?" },
      { role: "assistant", content: "", call: { name: "get_weather", arguments: { city: "Oslo", days: 2 } } },
      { role: "tool", content: "4 degrees" },
      { role: "assistant", content: "It is 4 degrees in Oslo." },
    ];
    const messages = turns.map((turn) =>
      turn.role === "assistant" && turn.call !== undefined
        ? { role: turn.role, content: turn.content, tool_calls: [{ function: turn.call }] }
        : turn,
    );
    const line = { name: "get_weather", parameters: ["city", "days"] };
    expect(rendered(messages, [toolOf("get_weather(city, days)")])).toBe(render(turns, [line]));
    expect(rendered(messages.slice(1))).toBe(render(turns.slice(1), []));
  });
});
