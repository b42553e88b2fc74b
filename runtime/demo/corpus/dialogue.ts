import type { Random } from "./random.ts";
import { capitalise } from "./words.ts";

/** Arguments of a call, or a result, as JSON. */
export type Json = Readonly<Record<string, string | number | boolean>>;

/** A call that the assistant makes. */
export interface Call {
  readonly name: string;
  readonly arguments: Json;
}

/** One turn, as the chat template renders it. */
export type Turn =
  | { readonly role: "system" | "user" | "tool"; readonly content: string }
  | { readonly role: "assistant"; readonly content: string; readonly call?: Call };

/** A tool as the Tools line shows it: its name and the names of its parameters. */
export interface ToolLine {
  readonly name: string;
  readonly parameters: readonly string[];
}

/** What a dialogue knows while it is written. */
export interface Scene {
  readonly random: Random;
  /** The assistant's name, from the system turn or its own; empty for a character without a name. */
  readonly persona: string;
  /** What the assistant is, such as "a cheerful robot"; empty when nobody said. */
  readonly manner: string;
  /** What the user has told: sentences such as "Your name is Ben." by kind. */
  readonly told: Map<string, string>;
  readonly tools: readonly ToolLine[];
}

/** The name that the model has when no system turn gives it another. */
export const ownName = "Penstock Demo";

/** One exchange: a few turns that belong together. */
export type Exchange = (scene: Scene) => Turn[];

/** Exchanges and how often each is written. */
export type Weighted = readonly (readonly [Exchange, number])[];

/** One of `exchanges`, by weight. */
export function pickExchange(random: Random, exchanges: Weighted): Exchange {
  let at = random.next() * exchanges.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [one, weight] of exchanges) {
    at -= weight;
    if (at < 0) return one;
  }
  return random.pick(exchanges)[0];
}

/** A user turn in one of the ways people type: capitals, last mark, a word or two in front or behind. */
export function user(random: Random, text: string): Turn {
  const { wording } = random;
  let typed = text;
  if (wording.chance(0.1)) {
    typed =
      wording.pick(["Hi! ", "Hello! ", "Hey, ", "OK, ", "And ", "So, ", "Thanks! ", "Please, ", "Well, "]) + typed;
  }
  if (wording.chance(0.04) && /[.?!]$/.test(typed)) typed = `${typed.slice(0, -1)}, please${typed.slice(-1)}`;
  if (wording.chance(0.2)) typed = typed.replace(/[.?!]+$/, "");
  typed = wording.chance(0.12) ? typed.charAt(0).toLowerCase() + typed.slice(1) : capitalise(typed);
  return { role: "user", content: typed };
}

export function assistant(text: string): Turn {
  return { role: "assistant", content: text };
}

/** A question and its answer, both as patterns. */
export function exchange(random: Random, question: string, answer: string): Turn[] {
  return [user(random, random.say(question)), assistant(random.say(answer))];
}

/** The text of a dialogue, exactly as chat-template.jinja renders it (a test compares the two). */
export function render(turns: readonly Turn[], tools: readonly ToolLine[]): string {
  const lines = tools.map(({ name, parameters }) => `${name}(${parameters.join(", ")})`).join(", ");
  const [first, ...rest] = turns;
  const system = first?.role === "system" ? first.content : "";
  const toolsLine = lines === "" ? "" : `Tools: ${lines}`;
  const head = [system, toolsLine].filter((part) => part !== "").join("\n");
  const body = first?.role === "system" ? rest : turns;
  return (head === "" ? "" : `<|im_start|>system\n${head}<|im_end|>\n`) + body.map(renderTurn).join("");
}

function renderTurn(turn: Turn): string {
  const call =
    turn.role === "assistant" && turn.call !== undefined
      ? `<tool_call>{"name": "${turn.call.name}", "arguments": ${spacedJson(turn.call.arguments)}}</tool_call>`
      : "";
  return `<|im_start|>${turn.role}\n${turn.content}${call}<|im_end|>\n`;
}

/** JSON with a space after `:` and `,`, as Jinja's `tojson` writes it. */
export function spacedJson(value: Json): string {
  return `{${Object.entries(value)
    .map(([key, item]) => `"${key}": ${JSON.stringify(item)}`)
    .join(", ")}}`;
}
