import type { ServerResponse } from "node:http";
import type { Context } from "hono";
import type { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import { parseJson, parseRequest } from "../../contracts/validate.ts";
import { readBody } from "../../lib/http.ts";
import type { NodeEnv } from "../../lib/serve.ts";
import type { Engine } from "../engine.ts";
import type { Token, Vocabulary } from "../vocabulary.ts";

/** Far above any text that fits a context, so that a body cannot fill the memory. */
const maxBodyBytes = 16 * 1024 * 1024;

/** Fields of other servers and newer APIs that would change the answer, and that this engine does not have. */
const refusedFields = [
  "add_generation_prompt",
  "audio",
  "best_of",
  "continue_final_message",
  "dry_multiplier",
  "function_call",
  "functions",
  "grammar",
  "guided_choice",
  "guided_grammar",
  "guided_json",
  "guided_regex",
  "length_penalty",
  "min_tokens",
  "mirostat",
  "prediction",
  "prompt_logprobs",
  "reasoning_effort",
  "stop_token_ids",
  "structured_outputs",
  "suffix",
  "typical_p",
  "use_beam_search",
  "web_search_options",
  "xtc_probability",
] as const;

interface RequestRules {
  /** Stand in for absent fields. */
  readonly defaults?: object;
  /** Further fields that this endpoint has not. */
  readonly refused?: readonly string[];
}

/** The checked body of a request. Throws OpenAI's 400 for what is wrong with it, and for settings the engine has not. */
export async function readRequest<Schema extends z.ZodType>(
  c: Context<NodeEnv>,
  schema: Schema,
  { defaults = {}, refused = [] }: RequestRules = {},
): Promise<z.infer<Schema>> {
  const body = parseJson(await readBody(c.env.incoming, maxBodyBytes));
  const isObject = typeof body === "object" && body !== null && !Array.isArray(body);
  const request = parseRequest(schema, isObject ? { ...defaults, ...body } : body);
  for (const param of [...refusedFields, ...refused]) {
    const value = (request as Readonly<Record<string, unknown>>)[param]; // every request schema is an object
    if (value !== undefined && value !== null && value !== false) {
      throw new PenstockError("unsupported", `This engine has no \`${param}\`; leave it out.`, { param });
    }
  }
  return request;
}

/** Aborts when the client leaves before its answer is complete. */
export function clientSignal(outgoing: ServerResponse): AbortSignal {
  const controller = new AbortController();
  const check = (): void => {
    if (!outgoing.writableFinished) controller.abort();
  };
  if (outgoing.destroyed) check();
  else outgoing.once("close", check);
  return controller.signal;
}

/** Tokens of a text, or token ids as they are, checked against the vocabulary. */
export function inputTokens(input: string | readonly number[], vocabulary: Vocabulary, param: string): Token[] {
  const tokens = typeof input === "string" ? vocabulary.promptTokens(input) : vocabulary.checkedTokens(input);
  if (tokens === undefined) {
    throw new PenstockError("invalid_value", `\`${param}\` has a token id that this model does not know.`, { param });
  }
  if (tokens.length === 0) throw new PenstockError("invalid_value", `\`${param}\` must not be empty.`, { param });
  return tokens;
}

/** One input or several, as a list: a list of numbers is one input of token ids. */
export function inputList(
  input: string | readonly string[] | readonly number[] | readonly (readonly number[])[],
): readonly (string | readonly number[])[] {
  if (typeof input === "string") return [input];
  // The schema allows lists of one kind only, so the first member tells.
  return typeof input[0] === "number" ? [input as readonly number[]] : (input as readonly (string | number[])[]);
}

/** How many tokens may follow `promptTokens`. Throws `context_length_exceeded` when not even one. */
export function roomForAnswer(engine: Engine, promptTokens: number, param: string): number {
  const { contextTokens } = engine.serving();
  const room = contextTokens - promptTokens;
  if (room >= 1) return room;
  throw new PenstockError(
    "context_length_exceeded",
    `The prompt has ${promptTokens} tokens; the context has ${contextTokens}, and the answer needs at least one of them.`,
    { param },
  );
}

/** Most texts that one request may ask for. */
const maxChoices = 256;

/** How many choices each of `prompts` gets. Throws `invalid_value` when that is too much for one request. */
export function choiceCount(n: number | null | undefined, prompts: number): number {
  const choices = n ?? 1;
  if (choices * prompts <= maxChoices) return choices;
  throw new PenstockError("invalid_value", `A request may ask for at most ${maxChoices} texts in all.`, { param: "n" });
}

/** Stop sequences of a request as a list. */
export function stopList(stop: string | readonly string[] | null | undefined): readonly string[] {
  return typeof stop === "string" ? [stop] : (stop ?? []);
}
