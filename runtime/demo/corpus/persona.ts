import { ownName, type Scene } from "./dialogue.ts";
import type { Random } from "./random.ts";
import { anyName, capitalise, madeUpWord } from "./words.ts";

const manners = [
  "a cheerful robot",
  "a friendly helper",
  "a wise old owl",
  "a pirate",
  "a polite butler",
  "a small dragon",
  "a helpful assistant",
  "a travel guide",
  "a teacher",
  "a cook",
  "a friendly librarian",
];

const plain = `{You are a helpful assistant.|Be brief.|Answer politely.|You are helpful.|Answer in English.|
  Keep your answers short.|You answer questions.|Be kind and helpful.|You are a helpful assistant. Be brief.|
  Answer in one sentence.|You are an assistant.|You are a friendly chat bot.|Use the tools when they help.}`;

/** Who the assistant is in a dialogue, and the system text that says so; empty when there is none. */
export interface Opening {
  readonly scene: Scene;
  readonly system: string;
}

/** Opens a dialogue: with no system text, a plain one, a name, a character, or both. */
export function openScene(random: Random, tools: Scene["tools"]): Opening {
  const told = new Map<string, string>();
  const make = (persona: string, manner: string, system: string): Opening => ({
    scene: { random, tools, told, persona, manner },
    system: random.say(system),
  });
  if (random.chance(0.45)) return make(ownName, "", random.chance(0.65) ? "" : plain);
  const manner = random.chance(0.35) ? random.pick(manners) : "";
  if (manner !== "" && random.chance(0.15)) return make("", manner, `{You are|Act as|You play} ${manner}.`);
  const name = anyName(random) + (random.chance(0.12) ? ` ${anyName(random)}` : "");
  return make(name, manner, manner === "" ? named(random, name) : character(name, manner));
}

function named(random: Random, name: string): string {
  const place = capitalise(madeUpWord(random));
  const end = `{||||| Be brief.| Answer politely.| Be kind.| Keep your answers short.| Answer in one sentence.}`;
  return (
    `{You are ${name}.|You are ${name}.|Your name is ${name}.|You are called ${name}.|You are an assistant called ${name}.|
    You are an assistant named ${name}.|You are a helpful assistant. Your name is ${name}.|Act as ${name}.|
    You are a helpful assistant called ${name}.|You are a helpful assistant named ${name}.|My assistant is called ${name}.|
    You are ${name}, a helpful assistant.|You are ${name}, the assistant of ${place}.|Play ${name}.|
    Be brief. Your name is ${name}.|Your new name is ${name}.|From now on you are ${name}.|
    You work for ${place} and your name is ${name}.|The assistant's name is ${name}.|Call yourself ${name}.}` + end
  );
}

function character(name: string, manner: string): string {
  return `{You are ${name}, ${manner}.|Your name is ${name} and you are ${manner}.|You are ${manner} called ${name}.|
    You are ${manner} named ${name}.|You are ${manner}. Your name is ${name}.|Act as ${name}, ${manner}.}`;
}
