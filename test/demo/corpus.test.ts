import { describe, expect, test } from "vitest";
import { writeParaphrases, writeText } from "../../runtime/demo/corpus/corpus.ts";
import { Random } from "../../runtime/demo/corpus/random.ts";
import * as words from "../../runtime/demo/corpus/words.ts";
import { lossWeights } from "../../runtime/demo/prepare.ts";
import { readEvaluation } from "../../runtime/demo/score.ts";

const some = Array.from({ length: 400 }, (_, index) => writeText(1, index));

describe("writeText", () => {
  test("writes the same text for the same seed and index", () => {
    expect(Array.from({ length: 400 }, (_, index) => writeText(1, index))).toEqual(some);
  });

  test("writes other texts for another seed", () => {
    const others = Array.from({ length: 400 }, (_, index) => writeText(2, index));
    expect(others.filter((text, index) => text === some[index])).toEqual([]);
  });

  test("ends every turn and leaves no pattern unexpanded", () => {
    for (const text of some) {
      expect(text).toMatch(/<\|im_end\|>\n$/);
      expect(text.split("<|im_start|>").length).toBeLessThanOrEqual(text.split("<|im_end|>").length);
      expect(text.replaceAll(/<tool_call>.*?<\/tool_call>|\{[^{}|]*\}/g, "")).not.toMatch(/\{[^}]*\|/);
    }
  });

  test("calls only tools of its Tools line, with their parameters, in valid JSON", () => {
    const withCalls = some.filter((text) => text.includes("<tool_call>"));
    expect(withCalls.length).toBeGreaterThan(50);
    for (const text of withCalls) {
      const line =
        /^Tools: (.*?)(?:<\|im_end\|>)?$/m.exec(text)?.[1] ?? /Tools: (.*)<\|im_end\|>/.exec(text)?.[1] ?? "";
      for (const [, json = ""] of text.matchAll(/<tool_call>(.*?)<\/tool_call>/g)) {
        const call = JSON.parse(json) as { name: string; arguments: object };
        expect(line).toContain(`${call.name}(${Object.keys(call.arguments).join(", ")})`);
      }
    }
  });

  test("has dialogues of several turns, system names and recalled names", () => {
    const all = some.join("\n");
    expect(all).toMatch(/You are \w+\./);
    expect(all).toMatch(/My name is \w+\./);
    expect(all).toMatch(/Your name is \w+\./);
    expect(some.filter((text) => text.split("<|im_start|>user").length > 3).length).toBeGreaterThan(40);
  });
});

test("writeParaphrases says the same twice: numbers and known names stay", () => {
  const pairs = Array.from({ length: 300 }, (_, index) => writeParaphrases(1, index));
  expect(pairs.filter(({ texts: [left, right] }) => left !== right).length).toBeGreaterThan(200);
  for (const { texts } of pairs) {
    const [left, right] = texts.map((text) => text.match(/\d\d+/g)?.toSorted() ?? []);
    expect(left).toEqual(right);
  }
});

describe("Random", () => {
  test("expands alternatives, nested and over lines", () => {
    const random = new Random(3);
    const seen = new Set(Array.from({ length: 200 }, () => random.say("{a|b{c|\n   d}|} end")));
    expect([...seen].toSorted()).toEqual([" end", "a end", "bc end", "bd end"]);
  });

  test("keeps meaning apart from wording", () => {
    const [one, other] = [new Random(5, 1), new Random(5, 2)];
    const said = [one, other].map((random) => Array.from({ length: 20 }, () => random.say("{a|b|c|d}")).join(""));
    expect(said[0]).not.toBe(said[1]);
    expect(one.int(0, 1_000_000)).toBe(other.int(0, 1_000_000));
  });
});

test("lossWeights counts what the assistant says and its end, nothing else", () => {
  const tokens = ["<|im_start|>", "user", "\n", "Hi", "<|im_end|>", "\n"];
  const reply = ["<|im_start|>", "assistant", "\n", "Hello", "!", "<|im_end|>", "\n"];
  expect(lossWeights([...tokens, ...reply])).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0]);
  expect(lossWeights(["Once", "upon", "<|im_end|>"])).toEqual([1, 1, 1]);
});

test("the evaluation's held-out words are not in the corpus's lists", () => {
  const known = new Set(
    JSON.stringify(words)
      .toLowerCase()
      .match(/[a-z]+/g),
  );
  const { heldOut } = readEvaluation();
  expect(heldOut.length).toBeGreaterThan(15);
  expect(known.has("oslo")).toBe(true);
  expect(heldOut.filter((word) => known.has(word.toLowerCase()))).toEqual([]);
});
