import { exchange, type Exchange, type Weighted } from "./dialogue.ts";
import type { Random } from "./random.ts";
import { anyCity, anyName, likes, madeUpWord } from "./words.ts";

/** Something that a user tells of themselves, asks for later, and is told again. */
interface Memory {
  readonly kind: string;
  readonly value: (random: Random) => string;
  /** Patterns with `@` in the place of the value. */
  readonly tell: string;
  readonly ask: string;
  readonly recall: string;
  readonly unknown: string;
}

const notTold = `You have not told me that yet.`;

const name: Memory = {
  kind: "name",
  value: anyName,
  tell: `{My name is @|I am @|I'm @|Call me @|Please call me @|You can call me @|Hello, my name is @|Hi, I am @|Hi, I'm @|
    Hello! I am called @|My name's @|I am called @|Hello, this is @|The name is @|People call me @|
    Just so you know, my name is @|Hey, it is @ here|Remember that my name is @|Hi! My name is @. How are you}{.|!|}`,
  ask: `{What is my name|What's my name|Do you remember my name|Who am I|Do you know my name|Can you tell me my name|
    What was my name|Say my name|Do you still know my name|Tell me my name|How am I called|What did I say my name was|
    Which name did I tell you|What am I called|And my name|Can you remember what I am called|
    So what is my name again}?`,
  recall: `Your name is @.`,
  unknown: `I do not know your name. {What is your name?|Please tell me.}`,
};

const home: Memory = {
  kind: "home",
  value: anyCity,
  tell: `{I live in @|I am from @|My home is in @|I come from @|I live in a house in @|My city is @|I moved to @}{.|!|}`,
  ask: `{Where do I live|Where am I from|Where is my home|Do you know where I live|In which city do I live|
    Do you remember where I live|Which city do I come from}?`,
  recall: `You live in @.`,
  unknown: notTold,
};

const pet: Memory = {
  kind: "pet",
  value: anyName,
  tell: `{My dog is called @|My dog's name is @|I have a dog called @|I have a dog named @|The name of my dog is @}{.|!|}`,
  ask: `{What is my dog called|What is the name of my dog|What's my dog's name|Do you remember my dog's name|
    How is my dog called|Do you know my dog's name}?`,
  recall: `Your dog is called @.`,
  unknown: notTold,
};

const favourite: Memory = {
  kind: "favourite",
  value: (random) => (random.chance(0.6) ? random.pick(likes) : madeUpWord(random)),
  tell: `{My favourite thing is @|My favorite thing is @|What I like most is @|The thing I like best is @}{.|!|}`,
  ask: `{What is my favourite thing|What do I like most|What is my favorite thing|What do I like best|
    Do you remember my favourite thing}?`,
  recall: `Your favourite thing is @.`,
  unknown: notTold,
};

const code: Memory = {
  kind: "code",
  value: (random) => (random.chance(0.5) ? String(random.int(10, 9999)) : madeUpWord(random)),
  tell: `{The code is @|Remember the code @|The password is @|Please remember this code: @|The secret word is @|
    Remember this word: @}{.|}`,
  ask: `{What is the code|What was the code|What is the password|What is the secret word|Tell me the code|
    Which word did I tell you|Do you remember the code}?`,
  recall: `{It is @.}`,
  unknown: notTold,
};

function tellExchange({ kind, value, tell, recall }: Memory): Exchange {
  return ({ random, told }) => {
    const it = value(random);
    told.set(kind, recall.replaceAll("@", it));
    const answer =
      kind === "name"
        ? `{Nice to meet you, ${it}!|Hello, ${it}! How can I help you?|Nice to meet you, ${it}! What can I do for you?}`
        : `{I will remember that.|Thank you, I will remember that.}`;
    return exchange(random, tell.replaceAll("@", it), answer);
  };
}

function askExchange({ kind, ask, unknown }: Memory): Exchange {
  return ({ random, told }) => exchange(random, ask, told.get(kind) ?? unknown);
}

/** Asks for something that was told, when something was; otherwise for the name. */
const askKnown: Exchange = (scene) => {
  const known = memories.filter(({ kind }) => scene.told.has(kind));
  return askExchange(known.length === 0 ? name : scene.random.pick(known))(scene);
};

const memories = [name, home, pet, favourite, code] as const;

/** Exchanges in which the user tells something or asks for it. */
export const memory: Weighted = [
  [tellExchange(name), 8],
  [askExchange(name), 6],
  [askKnown, 9],
  [tellExchange(home), 2],
  [tellExchange(pet), 1.5],
  [tellExchange(favourite), 1.5],
  [tellExchange(code), 3],
  [askExchange(home), 0.5],
  [askExchange(code), 0.5],
];
