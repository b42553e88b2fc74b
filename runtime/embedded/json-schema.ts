import type { GbnfJsonSchema } from "node-llama-cpp";
import { PenstockError } from "../contracts/errors.ts";

type Json = Readonly<Record<string, unknown>>;
type Converted = Record<string, unknown>;

/** Keywords that describe and do not constrain. */
const annotations = new Set([
  "title",
  "description",
  "default",
  "examples",
  "$schema",
  "$id",
  "$comment",
  "deprecated",
  "readOnly",
  "writeOnly",
  "strict",
]);

const scalarTypes = ["string", "number", "integer", "boolean", "null"] as const;

/** Keywords that the grammar honours, per type. */
const keywords: Readonly<Record<string, readonly string[]>> = {
  object: ["properties", "required", "additionalProperties", "minProperties", "maxProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems", "uniqueItems"],
  string: ["minLength", "maxLength", "format"],
  number: [],
  integer: [],
  boolean: [],
  null: [],
};
const anyTypeKeyword = new Set(Object.values(keywords).flat());

const anyValue: Converted = {
  oneOf: [{ type: [...scalarTypes] }, { type: "object", additionalProperties: true }, { type: "array" }],
};

/** How to treat a keyword that no grammar can honour. */
export interface SchemaRules {
  /** Path of the schema in the request, for the error. */
  readonly param: string;
  /** `refuse`: 400. `ignore`: the value may break that keyword, as OpenAI allows for tools that are not strict. */
  readonly unsupported: "refuse" | "ignore";
}

/**
 * A JSON Schema in the subset that llama.cpp's grammar can force. What comes out is never looser than what came in:
 * every declared property is written, others are not, unless the schema declares none.
 * Throws `unsupported` that names the keyword.
 */
export function toGrammarSchema(schema: unknown, rules: SchemaRules): GbnfJsonSchema {
  return new Converter(schema, rules).convertRoot() as GbnfJsonSchema; // the converter emits only its keywords
}

class Converter {
  readonly #rules: SchemaRules;
  readonly #root: unknown;
  readonly #definitions: Json;
  /** Definitions that are being written: an optional property that leads back into one is left out. */
  readonly #open = new Set<string>();

  constructor(root: unknown, rules: SchemaRules) {
    this.#rules = rules;
    this.#root = root;
    this.#definitions = isObject(root) ? asObject(root["$defs"] ?? root["definitions"]) : {};
  }

  convertRoot(): Converted {
    const { $defs: _defs, definitions: _definitions, ...root } = asObject(this.#root);
    const converted = this.#root === true ? anyValue : this.#convert(root, "");
    const definitions = Object.entries(this.#definitions).map(([name, schema]) => {
      this.#open.add(name);
      const definition = this.#convert(schema, `$defs.${name}`);
      this.#open.delete(name);
      return [name, definition] as const;
    });
    return definitions.length === 0 ? converted : { ...converted, $defs: Object.fromEntries(definitions) };
  }

  #refuse(keyword: string, at: string, why = "cannot be forced by a grammar"): void {
    if (this.#rules.unsupported === "ignore") return;
    const path = at === "" ? this.#rules.param : `${this.#rules.param}.${at}`;
    throw new PenstockError("unsupported", `\`${keyword}\` in the JSON schema ${why}; leave it out.`, { param: path });
  }

  #convert(schema: unknown, at: string): Converted {
    if (schema === true) return anyValue;
    if (!isObject(schema)) {
      this.#refuse(String(schema), at, "is not a schema that can be forced");
      return anyValue;
    }
    if ("$ref" in schema) return this.#reference(schema, at);
    const union = schema["anyOf"] ?? schema["oneOf"];
    if (union !== undefined) return this.#union(schema, union, at);
    if ("allOf" in schema) return this.#allOf(schema, at);
    if ("const" in schema) return this.#literals(schema, [schema["const"]], at);
    if ("enum" in schema) return this.#literals(schema, schema["enum"], at);
    return this.#typed(schema, at);
  }

  #reference(schema: Json, at: string): Converted {
    this.#onlyKeywords(schema, ["$ref"], at);
    const name = referencedName(schema);
    if (name === undefined || !Object.hasOwn(this.#definitions, name)) {
      this.#refuse("$ref", at, "must point to #/$defs/name");
      return anyValue;
    }
    return { $ref: `#/$defs/${name}` };
  }

  #union(schema: Json, union: unknown, at: string): Converted {
    this.#onlyKeywords(schema, ["anyOf", "oneOf"], at);
    const members = Array.isArray(union) ? union : [];
    if (members.length === 0) this.#refuse("anyOf", at, "is empty");
    return { oneOf: members.map((member, index) => this.#convert(member, join(at, `anyOf[${index}]`))) };
  }

  #allOf(schema: Json, at: string): Converted {
    this.#onlyKeywords(schema, ["allOf"], at);
    const members = Array.isArray(schema["allOf"]) ? schema["allOf"] : [];
    if (members.length === 1) return this.#convert(members[0], join(at, "allOf[0]"));
    this.#refuse("allOf", at);
    return anyValue;
  }

  #literals(schema: Json, values: unknown, at: string): Converted {
    this.#onlyKeywords(schema, ["const", "enum", "type"], at);
    const list = Array.isArray(values) ? values : [];
    const scalars = list.filter((value) => value === null || ["string", "number", "boolean"].includes(typeof value));
    if (scalars.length !== list.length || list.length === 0)
      this.#refuse("enum", at, "may list texts, numbers, booleans and null");
    return scalars.length === 0 ? anyValue : { enum: scalars };
  }

  #typed(schema: Json, at: string): Converted {
    const { type } = schema;
    const types = Array.isArray(type) ? type.map(String) : typeof type === "string" ? [type] : inferredTypes(schema);
    if (types === undefined) {
      this.#onlyKeywords(schema, [], at);
      return anyValue;
    }
    const unknown = types.find((name) => !Object.hasOwn(keywords, name));
    if (unknown !== undefined) {
      this.#refuse(`type: ${unknown}`, at, "is not a type");
      return anyValue;
    }
    this.#onlyKeywords(schema, ["type", ...types.flatMap((name) => keywords[name] ?? [])], at);
    const members = types.map((name) => this.#ofType(name, schema, at));
    return members.length === 1 ? (members[0] ?? anyValue) : { oneOf: members };
  }

  #ofType(type: string, schema: Json, at: string): Converted {
    if (type === "object") return this.#object(schema, at);
    if (type === "array") return this.#array(schema, at);
    if (type === "string") return this.#string(schema, at);
    return { type };
  }

  #object(schema: Json, at: string): Converted {
    const required = Array.isArray(schema["required"]) ? schema["required"].map(String) : [];
    const declared = Object.entries(asObject(schema["properties"]));
    const missing = required.find((name) => !declared.some(([key]) => key === name));
    if (missing !== undefined)
      this.#refuse("required", at, `names \`${missing}\`, which \`properties\` does not declare`);
    const properties: Converted = {};
    for (const [name, property] of declared) {
      const loops = [...this.#open].some((open) => this.#reaches(property, open));
      if (loops && required.includes(name)) this.#refuse("$ref", join(at, name), "never ends");
      if (!loops) properties[name] = this.#convert(property, join(at, `properties.${name}`));
    }
    const closed: Converted = { type: "object", properties };
    if (declared.length > 0) {
      this.#refuseIf(schema, ["minProperties", "maxProperties"], at);
      return closed;
    }
    // `properties: {}` is how people write a function without arguments.
    const additional = schema["additionalProperties"] ?? schema["properties"] === undefined;
    if (additional === false) return closed;
    const values = additional === true ? true : this.#convert(additional, join(at, "additionalProperties"));
    // A grammar cannot see that a key comes twice, and so cannot count distinct keys.
    this.#refuseIf(schema, ["minProperties"], at);
    return { type: "object", additionalProperties: values, ...pick(schema, ["maxProperties"]) };
  }

  /** Whether `schema` always contains a value of the definition `target`: through properties, not lists or choices. */
  #reaches(schema: unknown, target: string, seen: ReadonlySet<string> = new Set()): boolean {
    const name = referencedName(schema);
    if (name === target) return true;
    if (name !== undefined) {
      return !seen.has(name) && this.#reaches(this.#definitions[name], target, new Set([...seen, name]));
    }
    const properties = isObject(schema) ? Object.values(asObject(schema["properties"])) : [];
    return properties.some((property) => this.#reaches(property, target, seen));
  }

  #array(schema: Json, at: string): Converted {
    if (schema["uniqueItems"] === true) this.#refuse("uniqueItems", at);
    const converted: Converted = { type: "array", ...pick(schema, ["minItems", "maxItems"]) };
    if (schema["items"] !== undefined) converted["items"] = this.#convert(schema["items"], join(at, "items"));
    const prefix = schema["prefixItems"];
    if (Array.isArray(prefix)) {
      converted["prefixItems"] = prefix.map((item, index) => this.#convert(item, join(at, `prefixItems[${index}]`)));
    }
    return converted;
  }

  #string(schema: Json, at: string): Converted {
    const { format } = schema;
    if (format === undefined) return { type: "string", ...pick(schema, ["minLength", "maxLength"]) };
    const known = format === "date" || format === "time" || format === "date-time";
    if (known && !("minLength" in schema) && !("maxLength" in schema)) return { type: "string", format };
    this.#refuse(known ? "format" : `format: ${JSON.stringify(format)}`, at);
    return { type: "string" };
  }

  #refuseIf(schema: Json, names: readonly string[], at: string): void {
    const name = names.find((keyword) => keyword in schema);
    if (name !== undefined) this.#refuse(name, at);
  }

  #onlyKeywords(schema: Json, allowed: readonly string[], at: string): void {
    const extra = Object.keys(schema).find((name) => !allowed.includes(name) && !annotations.has(name));
    if (extra !== undefined) this.#refuse(extra, at);
  }
}

/** Types that a schema without `type` means by its other keywords; undefined: any. */
function inferredTypes(schema: Json): string[] | undefined {
  const named = Object.keys(schema).filter((keyword) => anyTypeKeyword.has(keyword));
  if (named.length === 0) return undefined;
  return Object.keys(keywords).filter((type) => named.some((keyword) => keywords[type]?.includes(keyword) === true));
}

function referencedName(schema: unknown): string | undefined {
  const reference = isObject(schema) ? schema["$ref"] : undefined;
  return typeof reference === "string" ? /^#\/(?:\$defs|definitions)\/([^/]+)$/.exec(reference)?.[1] : undefined;
}

function join(at: string, part: string): string {
  return at === "" ? part : `${at}.${part}`;
}

function pick(schema: Json, names: readonly string[]): Converted {
  return Object.fromEntries(names.filter((name) => schema[name] !== undefined).map((name) => [name, schema[name]]));
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function asObject(value: unknown): Json {
  return isObject(value) ? value : {};
}
