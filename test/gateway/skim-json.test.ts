import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseJson } from "../../runtime/contracts/validate.ts";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { readJsonCall, type JsonCall } from "../../runtime/gateway/api/call.ts";
import { applied } from "../../runtime/gateway/api/edit-body.ts";
import { isCut, skimJson } from "../../runtime/gateway/api/skim-json.ts";
import { readRequest } from "../../runtime/gateway/stages/read.ts";

/** Long enough that a body with it is skimmed. */
const padding = "p".repeat(20_000);

/** Counts the strings that were cut. Throws when `skimmed` does not say what `whole` says, as far as it goes. */
function cutsIn(skimmed: unknown, whole: unknown): number {
  if (typeof skimmed === "string" && isCut(skimmed)) {
    if (typeof whole === "string" && whole.startsWith(skimmed.slice(0, -1))) return 1;
    throw new Error(`${skimmed} is not how ${String(whole)} begins`);
  }
  if (typeof skimmed !== "object" || skimmed === null || typeof whole !== "object" || whole === null) {
    if (Object.is(skimmed, whole)) return 0;
    throw new Error(`${String(skimmed)} is not ${String(whole)}`);
  }
  const [some, all] = [Object.entries(skimmed), Object.entries(whole)];
  if (some.length !== all.length) throw new Error(`${Object.keys(skimmed).join()} are not the fields`);
  // Names are in the same order, and a long one is cut as well.
  return some.reduce(
    (sum, [name, value], at) => sum + cutsIn(name, all[at]?.[0] ?? "") + cutsIn(value, all[at]?.[1]),
    0,
  );
}

/** Texts whose escapes and characters stand wherever a string may be cut. */
const pieces = fc.constantFrom('"', "\\", "\\u0041", "\n", "\u0001", "ä", "€", "😀", "\ud83d", "a", "data:", "word ");
const text = fc
  .tuple(fc.array(pieces, { maxLength: 40 }), fc.nat({ max: 60 }))
  .map(([some, times]) => some.join("").repeat(times));
const value = fc.letrec((tie) => ({
  any: fc.oneof({ maxDepth: 3 }, text, fc.integer(), fc.constant(null), tie("list"), tie("object")),
  list: fc.array(tie("any"), { maxLength: 4 }),
  object: fc.dictionary(fc.string(), tie("any"), { maxKeys: 4, noNullPrototype: true }),
})).any;

test("a long body says the same when it is skimmed, but for the ends of long strings", () => {
  const space = fc.constantFrom(undefined, 1, "\t");
  const escaped = fc.boolean();
  fc.assert(
    fc.property(value, space, escaped, (inner, indent, asEscapes) => {
      const json = JSON.stringify({ padding, inner, after: 1 }, null, indent);
      // As Python's encoder writes it.
      const ascii = json.replace(/[\u0080-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
      const bytes = Buffer.from(asEscapes ? ascii : json);
      expect(cutsIn(skimJson(bytes).value, JSON.parse(bytes.toString()))).toBeGreaterThanOrEqual(1);
    }),
    { numRuns: 500 },
  );
});

test("where a string is cut, no character and no escape is broken", () => {
  for (const unit of ["\\u20ac", "\\n", "\\\\", '\\"', "€", "😀", "\\ud83d\\ude00", "\\\\\\u0041"]) {
    for (let shift = 0; shift < 16; shift += 1) {
      const bytes = Buffer.from(`{"a":"${"x".repeat(shift)}${unit.repeat(9_000)}","b":1}`);
      const { value: skimmed } = skimJson(bytes);
      expect(cutsIn(skimmed, JSON.parse(bytes.toString()))).toBe(1);
    }
  }
});

test.each<[string, string]>([
  ["not ended", `{"a":"${padding}`],
  ["not ended behind an escape", `{"a":"${padding}\\"`],
  ["wrong between strings", `{"a":"${padding}" "b":1}`],
  ["wrong behind them", `{"a":"${padding}"}}`],
  ["a bad escape in a short string", `{"a":"${padding}","b":"\\x"}`],
])("a long body that is no JSON is refused as a short one is: %s", (_, body) => {
  const bytes = Buffer.from(body);
  const refusal = (read: () => unknown): string => {
    try {
      read();
    } catch (error) {
      if (error instanceof PenstockError) return error.message;
    }
    return "none";
  };
  expect(refusal(() => skimJson(bytes))).toBe(refusal(() => parseJson(bytes)));
  expect(refusal(() => skimJson(bytes))).toContain("not JSON");
});

test("what is no UTF-8 is refused, also where nobody looks", () => {
  const bytes = Buffer.from(`{"a":"${padding}"}`);
  bytes[10_000] = 0xff;
  expect(() => skimJson(bytes)).toThrow("not JSON");
});

describe("a request with long strings", () => {
  const chat = (content: unknown, more: object = {}): Buffer =>
    Buffer.from(
      JSON.stringify({
        model: "m",
        messages: [
          { role: "user", content: padding },
          { role: "user", content },
        ],
        ...more,
      }),
    );
  const call = (bytes: Buffer, whole = false): JsonCall =>
    readJsonCall("/v1/chat/completions", bytes, { allowedHosts: ["ok.example", ".ok.example"], whole });
  const image = (url: string) => [{ type: "image_url", image_url: { url } }];

  test("is whole for those who ask for it", () => {
    expect(call(chat("x"), true).fields["messages"]).toEqual([
      { role: "user", content: padding },
      { role: "user", content: "x" },
    ]);
  });

  test("goes to its engine whole where it is written anew", () => {
    const body = chat("x", { stream: true, stream_options: { include_usage: false } });
    const sent: unknown = JSON.parse(applied(call(body).body).toString());
    expect(sent).toEqual({ ...JSON.parse(body.toString()), stream_options: { include_usage: true } });
  });

  test("an address as long as signed ones are is looked at whole", () => {
    const signature = "s".repeat(2_000);
    expect(call(chat(image(`https://ok.example/a.png?${signature}`))).model).toBe("m");
    expect(() => call(chat(image(`https://bad.example/a.png?${signature}`)))).toThrow("nothing is fetched from there");
  });

  test.each([310, 319, 320, 321, 330, 8_000, 9_000])("no host hides behind %i characters", (length) => {
    const user = "ok.example".padStart(length, "a.");
    for (const scheme of ["https", "HTTPS", "\\u0068ttps"]) {
      const body = chat(image(`X://${user}${"@".padStart(9_000, "a")}bad.example/`)).toString();
      expect(() => call(Buffer.from(body.replace("X:", `${scheme}:`)))).toThrow("nothing is fetched from there");
    }
  });

  test("the name of a model that is too long is told so", () => {
    expect(() => call(chat("x", { model: padding }))).toThrow(expect.objectContaining({ param: "model" }));
  });

  test("a picture counts for as many tokens as when all is read", async () => {
    const body = chat(image(`data:image/png;base64,${"A".repeat(50_000)}`));
    const tokens = async (keepsFields: boolean): Promise<number> => {
      const incoming = Readable.from([body]) as IncomingMessage;
      incoming.headers = {};
      const bounds = { maxBodyBytes: 1e6, allowedHosts: [] };
      const request = await readRequest("/v1/chat/completions", { incoming, bounds, keepsFields });
      request.release();
      return request.promptTokens;
    };
    const [skimmed, whole] = [await tokens(false), await tokens(true)];
    // The padding is 5,000 tokens, a picture 1,500, and its 50,000 characters none.
    expect(whole).toBeLessThan(7_000);
    expect(Math.abs(skimmed - whole)).toBeLessThanOrEqual(1);
  });
});
