import { pickExchange, render, type Turn, type Weighted } from "./dialogue.ts";
import { arithmetic, knowledge, story } from "./knowledge.ts";
import { memory } from "./memory.ts";
import { openScene } from "./persona.ts";
import { Random } from "./random.ts";
import { smalltalk } from "./smalltalk.ts";
import { sceneTools, toolExchange } from "./tools.ts";
import { unknown } from "./unknown.ts";
import { animals, anyName } from "./words.ts";

/** Share of texts that are a plain story, so that `/v1/completions` has something to continue. */
const plainShare = 0.03;
const toolShare = 0.36;
/** Share of dialogues that go on until they are long, so that late positions are learned too. */
const longShare = 0.03;
const longCharacters = 1100;

const talk: Weighted = [...smalltalk, ...memory, ...knowledge, ...unknown];
const everyday: Weighted = [...talk, ...arithmetic];

/** Writes the `index`-th text of the corpus of `seed`. Each text depends on nothing but the two. */
export function writeText(seed: number, index: number): string {
  const random = new Random(seed * 1_000_003 + index * 7_919);
  if (random.chance(plainShare)) return `${story(random, random.pick(animals), anyName(random))}<|im_end|>\n`;
  const tools = random.chance(toolShare) ? sceneTools(random) : [];
  const { scene, system } = openScene(
    random,
    tools.map(({ line }) => line),
  );
  const turns: Turn[] = system === "" ? [] : [{ role: "system", content: system }];
  // A sum is a tool's work where there is one for it.
  const chat = tools.some(({ line }) => line.parameters.length === 2) ? talk : everyday;
  const isLong = random.chance(longShare);
  const exchanges = isLong ? 20 : random.pick([1, 1, 2, 2, 3, 4, 5]);
  for (let count = 0, length = 0; count < exchanges && length < longCharacters; count += 1) {
    const useTool = tools.length > 0 && random.chance(0.7);
    const next = (useTool ? toolExchange(tools) : pickExchange(random, chat))(scene);
    turns.push(...next);
    length += next.reduce((sum, { content }) => sum + content.length + 30, 0);
  }
  return render(turns, scene.tools);
}

/** Two user turns that mean the same in other words, and a text that is equal for turns that mean the same. */
export interface Paraphrases {
  readonly texts: readonly [string, string];
  readonly meaning: string;
}

function asked(turns: readonly Turn[]): string {
  return turns.find(({ role }) => role === "user")?.content ?? "";
}

/** Writes the `index`-th pair of paraphrases of `seed`: what embeddings learn from. */
export function writeParaphrases(seed: number, index: number): Paraphrases {
  const worded = (wordingSeed: number): Turn[] => {
    const random = new Random(seed * 1_000_003 + index * 7_919 + 1, wordingSeed);
    const { scene } = openScene(random, []);
    const ask = random.chance(0.15) ? toolExchange(sceneTools(random)) : pickExchange(random, everyday);
    return ask(scene);
  };
  const answer = worded(0).find(({ role }) => role === "assistant");
  return { texts: [asked(worded(index * 2 + 1)), asked(worded(index * 2 + 2))], meaning: JSON.stringify(answer) };
}
