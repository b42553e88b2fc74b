import { describe, expect, test } from "vitest";
import { toGrammarSchema } from "../../runtime/embedded/json-schema.ts";

const refuse = { param: "schema", unsupported: "refuse" } as const;

describe("toGrammarSchema", () => {
  test.each([
    ["scalars", { type: "integer", title: "Age", description: "years" }, { type: "integer" }],
    [
      "a nullable text",
      { type: ["string", "null"], maxLength: 3 },
      { oneOf: [{ type: "string", maxLength: 3 }, { type: "null" }] },
    ],
    ["enum with a type", { type: "string", enum: ["a", "b"] }, { enum: ["a", "b"] }],
    ["const", { const: 3 }, { enum: [3] }],
    ["a date", { type: "string", format: "date" }, { type: "string", format: "date" }],
    ["anyOf", { anyOf: [{ type: "null" }, { const: "x" }] }, { oneOf: [{ type: "null" }, { enum: ["x"] }] }],
    ["allOf of one", { allOf: [{ type: "boolean" }] }, { type: "boolean" }],
    [
      "declared properties close an object",
      { type: "object", properties: { a: { type: "null" } }, required: ["a"], additionalProperties: true },
      { type: "object", properties: { a: { type: "null" } } },
    ],
    ["an object without properties is open", { type: "object" }, { type: "object", additionalProperties: true }],
    ["additionalProperties false", { type: "object", additionalProperties: false }, { type: "object", properties: {} }],
    [
      "a map",
      { type: "object", additionalProperties: { type: "number" }, maxProperties: 2 },
      { type: "object", additionalProperties: { type: "number" }, maxProperties: 2 },
    ],
    [
      "a list",
      { type: "array", items: { type: "null" }, minItems: 1, maxItems: 2, uniqueItems: false },
      { type: "array", items: { type: "null" }, minItems: 1, maxItems: 2 },
    ],
    ["a type told by its keywords", { maxItems: 1 }, { type: "array", maxItems: 1 }],
    ["no property at all", { type: "object", properties: {} }, { type: "object", properties: {} }],
    [
      "definitions, old and new",
      { $ref: "#/definitions/a", definitions: { a: { type: "null" } } },
      { $ref: "#/$defs/a", $defs: { a: { type: "null" } } },
    ],
  ])("%s", (_, schema, expected) => {
    expect(toGrammarSchema(schema, refuse)).toEqual(expected);
  });

  test("an optional property that would never end is left out, a list of it stays", () => {
    const node = {
      type: "object",
      properties: {
        value: { type: "integer" },
        next: { $ref: "#/$defs/node" },
        children: { type: "array", items: { $ref: "#/$defs/node" } },
      },
    };
    const { $defs } = toGrammarSchema({ $ref: "#/$defs/node", $defs: { node } }, refuse) as unknown as {
      $defs: { node: { properties: object } };
    };
    expect(Object.keys($defs.node.properties)).toEqual(["value", "children"]);
  });

  test.each([
    ["pattern", { type: "string", pattern: "^a" }, "schema"],
    ["minimum", { type: "object", properties: { n: { type: "number", minimum: 1 } } }, "schema.properties.n"],
    ["format", { type: "string", format: "email" }, "schema"],
    ["uniqueItems", { type: "array", uniqueItems: true }, "schema"],
    ["allOf", { allOf: [{ type: "object" }, { type: "object" }] }, "schema"],
    ["not", { not: { type: "null" } }, "schema"],
    ["patternProperties", { type: "object", patternProperties: {} }, "schema"],
    ["minProperties", { type: "object", minProperties: 2 }, "schema"],
    ["enum", { enum: [{ a: 1 }] }, "schema"],
    ["required", { type: "object", properties: {}, required: ["a"] }, "schema"],
    ["$ref", { $ref: "#" }, "schema"],
    ["$ref", { $ref: "#/$defs/gone", $defs: {} }, "schema"],
    ["type", { type: "decimal" }, "schema"],
    ["items", { type: "string", items: {} }, "schema"],
  ])("%s that no grammar can force is refused by name", (keyword, schema, param) => {
    expect(() => toGrammarSchema(schema, refuse)).toThrow(
      expect.objectContaining({ code: "unsupported", param, message: expect.stringContaining(keyword) }),
    );
  });

  test("tools that are not strict may carry keywords that are only advice", () => {
    const schema = {
      type: "object",
      properties: { n: { type: "integer", minimum: 1 }, e: { type: "string", format: "email" } },
    };
    expect(toGrammarSchema(schema, { param: "p", unsupported: "ignore" })).toEqual({
      type: "object",
      properties: { n: { type: "integer" }, e: { type: "string" } },
    });
  });
});
