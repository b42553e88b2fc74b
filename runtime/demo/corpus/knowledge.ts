import { assistant, exchange, user, type Exchange, type Turn, type Weighted } from "./dialogue.ts";
import type { Random } from "./random.ts";
import { animals, anyName, capitalise, capitals, colours, kinds, opposites, sounds, withArticle } from "./words.ts";

const capital: Exchange = ({ random }) => {
  const [country, city] = random.pick(capitals);
  if (random.chance(0.12)) {
    const question = random.say(
      `{Answer in JSON|Reply in JSON|As JSON|In JSON}: {what is the capital of ${country}|the capital of ${country}}?`,
    );
    return [user(random, question), assistant(JSON.stringify({ capital: city }))];
  }
  if (random.chance(0.2)) {
    return exchange(
      random,
      `{Which country is ${city} the capital of|${city} is the capital of which country|In which country is ${city}|
      Where is ${city}|${city} is the capital of what}?`,
      `${city} is the capital of ${country}.`,
    );
  }
  return exchange(
    random,
    `{What is the capital of ${country}|What's the capital of ${country}|Capital of ${country}|
    Tell me the capital of ${country}|Name the capital of ${country}|Do you know the capital of ${country}|
    Which city is the capital of ${country}|And the capital of ${country}|What about ${country}'s capital|
    What is the capital city of ${country}|${country}'s capital|Can you tell me the capital of ${country}|
    I want to know the capital of ${country}|What is ${country}'s capital city|${country} capital}?`,
    `The capital of ${country} is ${city}.`,
  );
};

const sum: Exchange = ({ random }) => {
  const [a, b] = [random.int(0, 12), random.int(0, 12)];
  const kind = random.int(0, 4);
  if (kind <= 2) {
    return exchange(
      random,
      `{What is ${a} plus ${b}|What is ${a} + ${b}|${a} + ${b}|${a}+${b}|How much is ${a} plus ${b}|Add ${a} and ${b}|
      Calculate ${a} + ${b}|What do you get if you add ${a} and ${b}|How much is ${a} and ${b}|Can you add ${a} and ${b}|
      What's ${a} + ${b}|What is the sum of ${a} and ${b}|${a} plus ${b}|Sum ${a} and ${b}|What is ${a}+${b}}?`,
      `${a} plus ${b} is ${a + b}.`,
    );
  }
  if (kind === 3) {
    const [high, low] = a >= b ? [a, b] : [b, a];
    return exchange(
      random,
      `{What is ${high} minus ${low}|What is ${high} - ${low}|${high} - ${low}|How much is ${high} minus ${low}|
      Take ${low} from ${high}|Subtract ${low} from ${high}|${high} minus ${low}|What's ${high} - ${low}}?`,
      `${high} minus ${low} is ${high - low}.`,
    );
  }
  const [x, y] = [random.int(0, 10), random.int(0, 10)];
  return exchange(
    random,
    `{What is ${x} times ${y}|What is ${x} * ${y}|${x} * ${y}|How much is ${x} times ${y}|Multiply ${x} by ${y}|
    Multiply ${x} and ${y}|${x} times ${y}|What's ${x} x ${y}|${x} x ${y}}?`,
    `${x} times ${y} is ${x * y}.`,
  );
};

const bigSum: Exchange = ({ random }) => {
  const [a, b] = [random.int(100, 99_999), random.int(30, 9_999)];
  return exchange(
    random,
    `{What is ${a} plus ${b}|What is ${a} + ${b}|${a} + ${b}|How much is ${a} times ${b}|${a} * ${b}|Add ${a} and ${b}|
    Calculate ${a} - ${b}|What is ${a} divided by ${b}}?`,
    `That is too hard for me. I can only work with small numbers.`,
  );
};

const opposite: Exchange = ({ random }) => {
  const pair = random.pick(opposites);
  const [word, other] = random.chance(0.5) ? pair : [pair[1], pair[0]];
  return exchange(
    random,
    `{What is the opposite of ${word}|What's the opposite of ${word}|Opposite of ${word}|Tell me the opposite of ${word}|
    Which word is the opposite of ${word}|Do you know the opposite of ${word}}?`,
    `The opposite of ${word} is ${other}.`,
  );
};

const sound: Exchange = ({ random }) => {
  const [animal, says] = random.pick(sounds);
  const one = withArticle(animal);
  return exchange(
    random,
    `{What does ${one} say|What sound does ${one} make|How does ${one} sound|What noise does ${one} make|
    Which sound does ${one} make|What sound do ${animal}s make|What does the ${animal} say}?`,
    `${capitalise(one)} says ${says}.`,
  );
};

const colour: Exchange = ({ random }) => {
  const [thing, shade] = random.pick(colours);
  return exchange(
    random,
    `{What colour is ${thing}|What color is ${thing}|Which colour does ${thing} have|Tell me the colour of ${thing}|
    What is the colour of ${thing}|Which color is ${thing}|Do you know the color of ${thing}}?`,
    `${capitalise(thing)} is ${shade}.`,
  );
};

const someOf: Exchange = ({ random }) => {
  const [kind, items] = random.pick(kinds);
  const count = random.int(2, 4);
  const word = ["", "", "two", "three", "four"][count] ?? "";
  const amount = random.wording.chance(0.25) ? String(count) : word;
  const chosen = kind === "days" ? items.slice(0, count) : random.sample(items, count);
  return exchange(
    random,
    `{Name ${amount} ${kind}|List ${amount} ${kind}|Tell me ${amount} ${kind}|Give me ${amount} ${kind}|
    Can you name ${amount} ${kind}|Write ${amount} ${kind}|I need ${amount} ${kind}}{.|?|}`,
    capitalise(`${chosen.slice(0, -1).join(", ")} and ${chosen.at(-1) ?? ""}.`),
  );
};

const dayAfter: Exchange = ({ random }) => {
  const days = kinds.at(-1)?.[1] ?? [];
  const at = random.int(0, days.length - 1);
  const [day, next] = [days[at] ?? "", days[(at + 1) % days.length] ?? ""];
  return exchange(
    random,
    `{What day comes after ${day}|Which day is after ${day}|What is the day after ${day}|What comes after ${day}}?`,
    `${next} comes after ${day}.`,
  );
};

/** A story of four or five sentences about an animal with a name. */
export function story(random: Random, animal: string, name: string): string {
  const friend = random.pick(animals.filter((other) => other !== animal));
  const thing = random.pick(["lantern", "key", "red hat", "map", "small bell", "golden leaf", "book", "blue stone"]);
  const place = random.pick(["a valley", "a river", "the sea", "a forest", "an old mill", "a quiet village"]);
  return random.say(
    `{Once upon a time there was|There was once} a {young|small|kind|brave} ${animal} called ${name} who lived near ${place}. ` +
      `{One morning|One day|One evening}, ${name} lost a ${thing} and could not find it anywhere. ` +
      `Then ${withArticle(friend)} came along and {asked what was wrong|offered to help}. ` +
      `They {looked|searched} together {until the sun went down|all day long}, and at last they found the ${thing} ` +
      `{under a tree|behind a stone|in the tall grass}. ` +
      `{From that day on they were friends.|${name} was very happy and thanked the ${friend}.}`,
  );
}

const tellStory: Exchange = ({ random }) => {
  const animal = random.pick(animals);
  const isNamed = random.chance(0.25);
  const name = anyName(random);
  const plain = !isNamed && random.chance(0.25);
  const about = plain ? "" : ` about ${withArticle(animal)}${isNamed ? ` called ${name}` : ""}`;
  const question = `{Tell me|Please tell me|Can you tell me|Write|Please write|I want|Write me|I want to hear|Do you know|
    Could you write} {a story|a short story|a little story}${about}{.|?|!|}`;
  return [user(random, random.say(question)), assistant(story(random, animal, name))];
};

const followUp: Exchange = ({ random }): Turn[] => {
  const [first, second] = random.sample(capitals, 2);
  if (first === undefined || second === undefined) return [];
  return [
    ...exchange(random, `What is the capital of ${first[0]}?`, `The capital of ${first[0]} is ${first[1]}.`),
    ...exchange(
      random,
      `{And of|And|And what about|What about|And in|How about} ${second[0]}?`,
      `The capital of ${second[0]} is ${second[1]}.`,
    ),
  ];
};

/** Exchanges with numbers, for dialogues in which no tool can work with numbers. */
export const arithmetic: Weighted = [
  [sum, 45],
  [bigSum, 2],
];

/** Exchanges with facts and stories. */
export const knowledge: Weighted = [
  [capital, 8],
  [opposite, 3],
  [sound, 2],
  [colour, 2],
  [someOf, 3],
  [dayAfter, 1],
  [tellStory, 5],
  [followUp, 2],
];
