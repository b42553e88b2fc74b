import { describe, expect, test } from "vitest";
import { StopText } from "../../runtime/embedded/stop-text.ts";
import { TokenText } from "../../runtime/embedded/token-text.ts";
import type { Token, Vocabulary } from "../../runtime/embedded/vocabulary.ts";

function released(needles: readonly string[], pieces: readonly string[]) {
  const scanner = new StopText(needles);
  const texts: string[] = [];
  for (const piece of pieces) {
    const { text, found, rest } = scanner.push(piece);
    texts.push(text);
    if (found !== undefined) return { texts, found, rest };
  }
  return { texts: [...texts, scanner.end()], found: undefined, rest: "" };
}

describe("StopText", () => {
  test.each([
    [
      "nothing to find",
      { needles: ["x"], pieces: ["ab", "cd"] },
      { texts: ["ab", "cd", ""], found: undefined, rest: "" },
    ],
    ["inside one piece", { needles: ["c"], pieces: ["abcd"] }, { texts: ["ab"], found: "c", rest: "d" }],
    [
      "over three pieces",
      { needles: ["STOP"], pieces: ["a S", "TO", "P b"] },
      { texts: ["a ", "", ""], found: "STOP", rest: " b" },
    ],
    [
      "a start that turns out wrong",
      { needles: ["STOP"], pieces: ["ST", "AR"] },
      { texts: ["", "STAR", ""], found: undefined, rest: "" },
    ],
    [
      "a start at the end",
      { needles: ["STOP"], pieces: ["ok ST"] },
      { texts: ["ok ", "ST"], found: undefined, rest: "" },
    ],
    ["the earliest wins", { needles: ["d", "b"], pieces: ["abcd"] }, { texts: ["a"], found: "b", rest: "cd" }],
    [
      "the longest of two at one place",
      { needles: ["b", "bc"], pieces: ["abcd"] },
      { texts: ["a"], found: "bc", rest: "d" },
    ],
    [
      "repeated first letters",
      { needles: ["aab"], pieces: ["a", "a", "a", "b"] },
      { texts: ["", "", "a", ""], found: "aab", rest: "" },
    ],
    ["an empty needle is none", { needles: [""], pieces: ["ab"] }, { texts: ["ab", ""], found: undefined, rest: "" }],
  ])("%s", (_, { needles, pieces }, expected) => {
    expect(released(needles, pieces)).toEqual(expected);
  });
});

/** A tokenizer whose token ids are bytes; 300 and 301 are special tokens. */
const bytes = {
  text: (tokens: readonly Token[]) => Buffer.from(tokens.filter((token) => token < 256)).toString("utf8"),
  rawText: (token: Token) => ({ 300: "<tool_call>", 301: "<|im_end|>" })[Number(token)] ?? "",
} as unknown as Vocabulary;

function decoded(input: readonly (string | number)[], visible: readonly string[] = []): string[] {
  const decoder = new TokenText(bytes, visible);
  const tokens = input.flatMap((part) => (typeof part === "number" ? [part] : [...Buffer.from(part)])) as Token[];
  return [...tokens.map((token) => decoder.push(token)), decoder.end()].filter((piece) => piece !== "");
}

describe("TokenText", () => {
  test("never splits a character", () => {
    expect(decoded(["a€b"])).toEqual(["a", "€", "b"]);
    expect(decoded(["😀"])).toEqual(["😀"]);
    expect(decoded(["é", "한"])).toEqual(["é", "한"]);
  });

  test("a broken byte does not hide what follows", () => {
    expect(decoded([0xe2, "€"]).join("")).toBe("\uFFFD€");
    expect(decoded([0xff, 0xff, 0xff, 0xff, 0xff, "ok"]).join("")).toMatch(/^\uFFFD+ok$/);
    expect(decoded([0xff, 0xff, 0xff, "😀"]).join("")).toBe("\uFFFD\uFFFD\uFFFD😀");
  });

  test("an incomplete character at the end is dropped", () => {
    expect(decoded(["ab", 0xe2, 0x82])).toEqual(["a", "b"]);
  });

  test("shows markers and no other special token", () => {
    expect(decoded(["a", 300, 301, "b"], ["<tool_call>"])).toEqual(["a", "<tool_call>", "b"]);
    expect(decoded(["a", 300, 301, "b"])).toEqual(["a", "b"]);
  });
});
