import { assistant, user, type Exchange, type Scene, type Turn } from "./dialogue.ts";
import type { Random } from "./random.ts";
import { calculator, message, price, resultJson, search, time, weather, type Tool } from "./tool-kinds.ts";
import { anyName, capitalise, madeUpWord } from "./words.ts";

const verbs = [
  "get",
  "find",
  "open",
  "play",
  "book",
  "check",
  "start",
  "read",
  "show",
  "list",
  "set",
  "lookup",
  "stop",
];
const things = [
  "song",
  "room",
  "book",
  "user",
  "train",
  "light",
  "file",
  "order",
  "stock",
  "recipe",
  "invoice",
  "door",
];
const parameters = ["name", "id", "title", "room", "value", "city", "number", "key", "code", "symbol"];

const word = (random: Random, known: readonly string[]): string =>
  random.chance(0.5) ? random.pick(known) : madeUpWord(random);

function value(random: Random): string | number {
  // A schema may want a number as text, and the Tools line does not say so: both must feel natural.
  if (random.chance(0.15)) return random.int(1, 999);
  if (random.chance(0.15)) return String(random.int(1, 999));
  return random.chance(0.4) ? anyName(random) : madeUpWord(random);
}

/** What a tool answers when its answer has no template of its own, and how that is said. */
function anyResult(random: Random): { result: string; answer: string } {
  if (random.chance(0.2)) {
    const result = random.pick(["ok", "done", '{"ok":true}', '{"ok": true}', '{"status":"done"}', "success"]);
    return { result, answer: "Done." };
  }
  const it = value(random);
  if (random.chance(0.35)) return { result: String(it), answer: `The result is ${it}.` };
  const key = random.pick([...parameters, "status", "state", "price", "date", "level", madeUpWord(random)]);
  if (random.chance(0.3)) {
    return { result: resultJson(random, { result: it }), answer: `The result is ${it}.` };
  }
  if (random.chance(0.6)) return { result: resultJson(random, { [key]: it }), answer: `The ${key} is ${it}.` };
  const [other, more] = [madeUpWord(random), value(random)];
  return {
    result: resultJson(random, { [key]: it, [other]: more }),
    answer: `The ${key} is ${it} and the ${other} is ${more}.`,
  };
}

/** A tool with a made-up name: the name and the parameters can only come from the Tools line. */
function madeUpTool(random: Random): Tool {
  const [verb, thing] = [word(random, verbs), word(random, things)];
  const separator = random.chance(0.85) ? "_" : "";
  const name = random.chance(0.15) ? verb : `${verb}${separator}${separator === "" ? capitalise(thing) : thing}`;
  const said = name === verb ? verb : `${verb} ${thing}`;
  const parameter = word(random, parameters);
  const second = madeUpWord(random);
  const count = random.pick([0, 1, 1, 1, 1, 1, 2, 2]);
  return {
    line: { name, parameters: [parameter, second].slice(0, count) },
    use: (source) => {
      const [one, two] = [value(source), value(source)];
      const asks = [
        `{Please ${said}|Can you ${said}|Use ${name}|Call ${name}|${said}|I want to ${said}|Run ${name} now}{.|?|}`,
        `{Please ${said} ${one}|Can you ${said} ${one}|Use ${name} with ${one}|Call ${name} for ${one}|${said} ${one}|
          ${said} with ${parameter} ${one}|I want to ${said} ${one}|Please ${verb} the ${thing} of ${one}|
          ${said} for ${one}|What is the ${thing} of ${one}|${verb} the ${thing} ${one}}{.|?|}`,
        `{Use ${name} with ${parameter} ${one} and ${second} ${two}|${said} with ${one} and ${two}|
          Please ${said} ${one} with ${second} ${two}|Call ${name} with ${one} and ${two}|${said} ${one} ${two}}{.|?|}`,
      ];
      const given: [string, string | number][] = [
        [parameter, one],
        [second, two],
      ];
      return {
        ask: asks[count] ?? "",
        arguments: Object.fromEntries(given.slice(0, count)),
        ...anyResult(source),
      };
    },
  };
}

const makers = [time, calculator, calculator, search, price, message] as const;

/** Tools for one scene; weather often, since that is what people try first. */
export function sceneTools(random: Random): Tool[] {
  const chosen: Tool[] = random.chance(0.45) ? [weather(random)] : [];
  for (let more = random.int(chosen.length === 0 ? 1 : 0, 2); more > 0; more -= 1) {
    chosen.push(random.chance(0.5) ? madeUpTool(random) : random.pick(makers)(random));
  }
  const unique = chosen.filter((tool, at) => chosen.findIndex((other) => other.line.name === tool.line.name) === at);
  return random.sample(unique, unique.length);
}

/** How often a tool's answer is an error. */
const errorShare = 0.04;

/** An exchange that calls one of `tools` and uses its answer. */
export function toolExchange(tools: readonly Tool[]): Exchange {
  return ({ random }: Scene): Turn[] => {
    const { line, use } = random.pick(tools);
    const { ask, arguments: given, result, answer } = use(random);
    const failed = random.chance(errorShare);
    const error = random.pick(["not found", "timeout", "no access", "unknown name"]);
    return [
      user(random, random.say(ask)),
      { role: "assistant", content: "", call: { name: line.name, arguments: given } },
      { role: "tool", content: failed ? resultJson(random, { error }) : result },
      assistant(failed ? `That did not work: ${error}.` : answer),
    ];
  };
}
