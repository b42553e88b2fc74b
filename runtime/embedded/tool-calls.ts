import { randomBytes } from "node:crypto";
import type { GbnfJsonSchema } from "node-llama-cpp";
import { PenstockError } from "../contracts/errors.ts";
import type { ChatCompletionRequest, ChatTool } from "../contracts/openai.ts";
import { toGrammarSchema } from "./json-schema.ts";

/** How a family of models writes a tool call: a JSON object between two markers. */
export interface ToolFormat {
  readonly name: string;
  readonly open: string;
  readonly close: string;
  /** The members of the object that hold the function's name and its arguments. */
  readonly members: { readonly name: string; readonly arguments: string };
}

/** Known formats. Another one is another entry: its opening marker in a chat template tells which is meant. */
const toolFormats: readonly ToolFormat[] = [
  { name: "hermes", open: "<tool_call>", close: "</tool_call>", members: { name: "name", arguments: "arguments" } },
];

/** The format that a chat template writes tool calls in; undefined when it is none of the known ones. */
export function detectToolFormat(template: string): ToolFormat | undefined {
  return toolFormats.find(({ open }) => template.includes(open));
}

/** A call as OpenAI's API has it; `arguments` is JSON text. */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  readonly arguments: string;
}

/** What a request wants of its tools. */
export interface ToolPlan {
  /** Tools that the model is told about. */
  readonly tools: readonly ChatTool[];
  /** Functions that it may call: all of them, or the named one. */
  readonly callable: readonly ChatTool[];
  /** Whether the answer must be a call. */
  readonly forced: boolean;
  readonly parallel: boolean;
}

/** The plan of a request; undefined when no tool takes part. Throws for a `tool_choice` without its tool. */
export function planTools(request: ChatCompletionRequest): ToolPlan | undefined {
  const tools = request.tools ?? [];
  const choice = request.tool_choice ?? "auto";
  if (tools.length === 0) {
    if (choice === "auto" || choice === "none") return undefined;
    throw new PenstockError("invalid_value", "`tool_choice` needs `tools`.", { param: "tool_choice" });
  }
  if (choice === "none") return undefined;
  const parallel = request.parallel_tool_calls ?? true;
  if (typeof choice === "string") return { tools, callable: tools, forced: choice === "required", parallel };
  const named = tools.filter((tool) => tool.function.name === choice.function.name);
  if (named.length === 0) {
    throw new PenstockError("invalid_value", `\`tools\` has no function \`${choice.function.name}\`.`, {
      param: "tool_choice.function.name",
    });
  }
  return { tools, callable: named, forced: true, parallel: false };
}

/** Schema of one call to any of `callable`. Keywords that a grammar cannot force count only for strict tools. */
export function callSchema(plan: ToolPlan, { members }: ToolFormat): GbnfJsonSchema {
  const calls = plan.callable.map((tool): GbnfJsonSchema => {
    const { name, parameters, strict } = tool.function;
    const index = plan.tools.indexOf(tool);
    const converted = toGrammarSchema(parameters ?? { type: "object", properties: {} }, {
      param: `tools[${index}].function.parameters`,
      unsupported: strict === true ? "refuse" : "ignore",
    });
    const { $defs, ...body } = converted as { readonly $defs?: Record<string, GbnfJsonSchema> };
    return {
      type: "object",
      properties: { [members.name]: { const: name }, [members.arguments]: body as GbnfJsonSchema },
      ...($defs === undefined ? {} : { $defs }),
    };
  });
  return { oneOf: calls };
}

/** The call in `text`, which follows the opening marker; undefined until it is complete with its closing marker. */
export function readToolCall(text: string, { members, close }: ToolFormat): ToolCall | undefined {
  const end = text.lastIndexOf(close);
  // A marker may also stand in a text among the arguments: then what is in front of it is no whole JSON.
  const written = end < 0 ? undefined : parsedObject(text.slice(0, end));
  if (written === undefined) return undefined;
  return {
    id: `call_${randomBytes(12).toString("hex")}`,
    name: String(written[members.name]),
    arguments: JSON.stringify(written[members.arguments] ?? {}),
  };
}

function parsedObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    return JSON.parse(text) as Readonly<Record<string, unknown>>; // the grammar forces an object
  } catch {
    return undefined;
  }
}
