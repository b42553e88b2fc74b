import { describe, expect, test } from "vitest";
import { Tokenizer, trainVocabulary } from "../../runtime/demo/tokenizer.ts";

const texts = [
  "<|im_start|>user\nWhat is the weather in Oslo?<|im_end|>\n",
  "the weather is the weather and 1234 is 1234",
  "Zorbin is here, and Zorbin is there",
];
const vocabulary = trainVocabulary([...texts, ...texts], 290);
const tokenizer = new Tokenizer(vocabulary);

function tokens(text: string): (string | undefined)[] {
  return tokenizer.encode(text).map((id) => vocabulary.tokens[id]);
}

describe("trainVocabulary", () => {
  test("learns the words of its texts, up to the size", () => {
    expect(vocabulary.tokens).toHaveLength(290);
    expect(tokens("weather")).toEqual(["weather"]);
  });

  test("joins a space to whole lower-case words only, so that a name has the same tokens everywhere", () => {
    expect(vocabulary.tokens).toContain("Ġis");
    const name = tokens("Zorbin");
    expect(tokens(" Zorbin")).toEqual(["Ġ", ...name]);
    expect(tokens('"Zorbin"')).toEqual(['"', ...name, '"']);
  });

  test("never joins digits", () => {
    expect(tokens("1234")).toEqual(["1", "2", "3", "4"]);
  });

  test("is the same for the same texts", () => {
    expect(trainVocabulary([...texts, ...texts], 290)).toEqual(vocabulary);
  });
});

describe("Tokenizer", () => {
  test.each([...texts, "ünïcode 日本 🎉", "  two  spaces \n\n\t", '{"a": [1, -2]}', "don't"])(
    "round trip: %j",
    (text) => {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    },
  );

  test("reads the markers of a chat as one token each", () => {
    expect(tokens("<|im_start|>x<|im_end|>")).toEqual(["<|im_start|>", "x", "<|im_end|>"]);
    expect(tokens("<tool_call>{}</tool_call>").at(0)).toBe("<tool_call>");
    expect(tokens("<tool_call>{}</tool_call>").at(-1)).toBe("</tool_call>");
  });
});
