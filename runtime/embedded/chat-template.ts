import { Template } from "@huggingface/jinja";
import { PenstockError } from "../contracts/errors.ts";
import type { ChatMessage, ChatTool } from "../contracts/openai.ts";

/** Used when a model file has no template: ChatML, the most common one. Without tools. */
const chatMl = [
  "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor -%}",
  "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif -%}",
].join("");

/**
 * Stands between the two halves of a control token's text that a user wrote. It is a noncharacter, which Unicode
 * reserves for use inside a program, so it never means anything in a text.
 */
const cut = "\uFDD0";

/** What a chat is rendered from. */
export interface ChatInput {
  readonly messages: readonly ChatMessage[];
  /** Undefined: the model is not told about tools. */
  readonly tools: readonly ChatTool[] | undefined;
  /** Further variables of the template, such as `enable_thinking`. */
  readonly variables: Readonly<Record<string, unknown>>;
}

/** A model's chat template with its special tokens. */
export class ChatTemplate {
  readonly source: string;
  /** False when the file had none and ChatML stands in. */
  readonly isOwn: boolean;
  readonly #template: Template;
  readonly #specials: { readonly bos: string; readonly eos: string };
  readonly #protected: RegExp | undefined;

  /**
   * `protectedTexts` may come only from the template itself, never from a message.
   * Throws when the template does not parse.
   */
  constructor(
    source: string | undefined,
    specials: { readonly bos: string; readonly eos: string },
    protectedTexts: readonly string[],
  ) {
    this.source = source ?? chatMl;
    this.isOwn = source !== undefined;
    this.#template = new Template(this.source);
    this.#specials = specials;
    this.#protected = anyOf(protectedTexts);
  }

  /** Texts that end an answer: a model without a template of its own may write ChatML's end as plain text. */
  get stops(): readonly string[] {
    return this.isOwn ? [] : ["<|im_end|>"];
  }

  /** Whether the template can tell the model about tools. */
  get knowsTools(): boolean {
    return /\btools\b/.test(this.source);
  }

  /**
   * The prompt, in pieces to be tokenised one by one: a border of two pieces lies inside each control token's text
   * that a message contains, so that it stays text.
   */
  render(input: ChatInput): string[] {
    const guard = (value: unknown): unknown => mapStrings(value, (text) => this.#guard(text));
    const context: Record<string, unknown> = {
      ...(guard(input.variables) as Record<string, unknown>), // mapStrings keeps the shape
      messages: input.messages.map((message, index) => guard(templateMessage(message, index))),
      add_generation_prompt: true,
      bos_token: this.#specials.bos,
      eos_token: this.#specials.eos,
    };
    if (input.tools !== undefined) context["tools"] = guard(input.tools);
    try {
      return this.#template.render(context).split(cut);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message.replaceAll(cut, "") : String(cause);
      throw new PenstockError("invalid_value", `The model's chat template refuses these messages: ${reason}`, {
        param: "messages",
        cause,
      });
    }
  }

  #guard(text: string): string {
    const clean = text.replaceAll(cut, "");
    // Behind the first character of every occurrence, overlapping ones too, so that none survives whole.
    return this.#protected === undefined ? clean : clean.replaceAll(this.#protected, (first) => first + cut);
  }
}

/** Matches the first character of each occurrence of one of `texts`. */
function anyOf(texts: readonly string[]): RegExp | undefined {
  if (texts.length === 0) return undefined;
  const escaped = texts.map((text) => text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`));
  return new RegExp(`(?=${escaped.join("|")})[^]`, "gu");
}

function mapStrings(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === "string") return change(value);
  if (Array.isArray(value)) return value.map((item) => mapStrings(item, change));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [change(key), mapStrings(item, change)]));
}

/** A message as templates expect it: text content, the role `system`, arguments as an object. */
function templateMessage(message: ChatMessage, index: number): Record<string, unknown> {
  const { content, role, tool_calls: calls, ...rest } = message;
  const result: Record<string, unknown> = {
    ...rest,
    role: role === "developer" ? "system" : role,
    content: contentText(content, `messages[${index}].content`),
  };
  if (calls !== undefined && calls.length > 0) {
    result["tool_calls"] = calls.map(({ id, type, function: { name, arguments: text } }) => ({
      id,
      type,
      function: { name, arguments: parsedArguments(text) },
    }));
  }
  return result;
}

function contentText(content: ChatMessage["content"], param: string): string {
  if (content === null || content === undefined) return "";
  if (typeof content === "string") return content;
  const texts = content.map((part, index) => {
    const text = part["text"];
    if (part.type === "text" && typeof text === "string") return text;
    if (part.type === "text") {
      throw new PenstockError("missing_field", "A text part needs `text`.", { param: `${param}[${index}].text` });
    }
    throw new PenstockError("unsupported", `This engine reads text, not \`${part.type}\` parts.`, {
      param: `${param}[${index}].type`,
    });
  });
  return texts.join("");
}

function parsedArguments(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
