import { exchange, type Exchange, type Weighted } from "./dialogue.ts";
import type { Random } from "./random.ts";
import { anyCity, baseVerbs, madeUpWord, names, nouns, pastVerbs, topics } from "./words.ts";

/* Free talk outside of what the model knows: it says so, or shows interest, and stays polite. */

const doNotKnow = `{I am only a small demo model, so I do not know that.|I do not know that. I am only a small demo model.}`;

const topicQuestion: Exchange = ({ random }) => {
  const topic = random.chance(0.75) ? random.pick(topics) : madeUpWord(random);
  const other = random.pick(topics);
  return exchange(
    random,
    `{What do you know about ${topic}|Explain ${topic}|Tell me about ${topic}|How does ${topic} work|
    Who invented ${topic}|What is ${topic}|Why is ${topic} important|What is the best thing about ${topic}|
    Can you teach me ${topic}|Write an essay about ${topic}|When did ${topic} begin|
    Is ${topic} good|Compare ${topic} and ${other}|Write code for ${topic}|How do I fix ${topic}|Should I buy ${topic}|
    Translate ${topic}|Where can I find ${topic}|How old is ${topic}|How many people like ${topic}|
    What happened to ${topic}|Give me advice about ${topic}|Can you write ${topic} code|
    Summarise ${topic} for me|What is the difference between ${topic} and ${other}|
    Give me three facts about ${topic}}{?|.|}`,
    doNotKnow,
  );
};

function thing(random: Random): string {
  const owner = random.pick(["my", "the", "a", "your", "our", "this", "that", "his", "her"]);
  return `${owner} ${random.chance(0.8) ? random.pick(nouns) : madeUpWord(random)}`;
}

function when(random: Random): string {
  return random.pick([
    "",
    "",
    "",
    " today",
    " tomorrow",
    " yesterday",
    " next week",
    " in the morning",
    " at night",
    ` in ${anyCity(random)}`,
    " with my friends",
    " this year",
    " very quickly",
    " again",
    " last week",
    " on Monday",
    " for the party",
  ]);
}

const freeQuestion: Exchange = ({ random }) => {
  const [one, two] = [thing(random), thing(random)];
  const [verb, past] = [random.pick(baseVerbs), random.pick(pastVerbs)];
  const name = random.pick(names);
  return exchange(
    random,
    `{Why did ${one} ${verb} ${two}|How can I ${verb} ${one}|When will ${name} ${verb} ${one}|Where did I ${verb} ${one}|
    Should I ${verb} ${one}|Who ${past} ${one}|Can I ${verb} ${one}|Is ${one} better than ${two}|
    How long does it take to ${verb} ${one}|What would happen if I ${past} ${one}|Which ${verb} is best for ${one}|
    How many times can you ${verb} ${one}|Why is ${one} so expensive|Does ${name} like ${one}|
    What is wrong with ${one}|Could you ${verb} ${one}|Where is ${one}|Is it true that ${name} ${past} ${one}|
    Do you think ${one} is good|What is inside ${one}|What should I do with ${one}}${when(random)}{?|?|}`,
    doNotKnow,
  );
};

const freeStatement: Exchange = ({ random }) => {
  const [one, two] = [thing(random), thing(random)];
  const [past, other] = random.sample(pastVerbs, 2);
  const name = random.pick(names);
  return exchange(
    random,
    `{I ${past} ${one}|${name} ${past} ${one}|We ${past} ${one} and ${other} ${two}|My sister ${past} ${one}|
    I want to ${random.pick(baseVerbs)} ${one}|I think ${one} is nice|${one} is broken|I have to ${random.pick(baseVerbs)} ${one}|
    There is ${one} near ${two}|I just ${past} ${one}|Yesterday ${name} ${past} ${one}|I need ${one}}${when(random)}{.|!|}`,
    `{That sounds interesting. Tell me more.|I see. Please tell me more.}`,
  );
};

/** Things that only a tool could answer, asked where no tool is. */
const needsTool: Exchange = ({ random, tools }) => {
  const city = anyCity(random);
  const canTell = tools.some(({ name }) => /weather|forecast|time|clock/.test(name));
  if (canTell) return freeQuestion({ random, tools, persona: "", manner: "", told: new Map() });
  return exchange(
    random,
    `{What is the weather in ${city}|How is the weather in ${city}|What time is it|What time is it in ${city}|
    Is it raining in ${city}|What is the weather like today|What day is it today|What is the time|
    Weather in ${city}|How warm is it in ${city}|Will it rain tomorrow|What's the date}?`,
    `I have no tool for that, so I cannot look it up.`,
  );
};

/** Exchanges that the model cannot answer. */
export const unknown: Weighted = [
  [topicQuestion, 6],
  [freeQuestion, 6],
  [freeStatement, 4],
  [needsTool, 3],
];
