import type { Random } from "./random.ts";

const list = (text: string): string[] => text.split(",").map((word) => word.trim());
const pairs = (text: string): (readonly [string, string])[] =>
  list(text).map((pair) => {
    const [left = "", right = ""] = pair.split(":");
    return [left, right] as const;
  });

/** Countries and their capitals. */
export const capitals = pairs(
  `France:Paris, Germany:Berlin, Italy:Rome, Spain:Madrid, Portugal:Lisbon, Norway:Oslo, Sweden:Stockholm,
  Denmark:Copenhagen, Finland:Helsinki, Poland:Warsaw, Austria:Vienna, Greece:Athens, Ireland:Dublin, England:London,
  Scotland:Edinburgh, Belgium:Brussels, Hungary:Budapest, Switzerland:Bern, Japan:Tokyo, China:Beijing,
  India:New Delhi, Egypt:Cairo, Kenya:Nairobi, Canada:Ottawa, Brazil:Brasilia, Peru:Lima, Chile:Santiago, Cuba:Havana,
  Turkey:Ankara, Australia:Canberra, Iceland:Reykjavik, Russia:Moscow, Ukraine:Kyiv, Croatia:Zagreb`,
);

/** Cities that are not capitals of the list above. */
export const cities = list(
  `Seattle, Boston, Chicago, Hamburg, Munich, Milan, Porto, Bergen, Lyon, Zurich, Mumbai, Osaka, Sydney, Toronto,
  Dallas, Denver, Geneva, Naples, Krakow, Leeds, Miami, Lagos, Dubai, New York, San Francisco, Rio, Venice, Malmo`,
);

export const opposites = pairs(
  `hot:cold, big:small, fast:slow, happy:sad, light:dark, high:low, open:closed, full:empty, early:late, loud:quiet,
  strong:weak, wet:dry, old:young, rich:poor, near:far, hard:soft, heavy:light, up:down, left:right, good:bad,
  long:short, clean:dirty, day:night, yes:no`,
);

/** What animals say. */
export const sounds = pairs(
  `cat:meow, dog:woof, cow:moo, sheep:baa, duck:quack, lion:roar, owl:hoot, bee:buzz, pig:oink, horse:neigh,
  mouse:squeak, frog:croak`,
);

/** Things and their colours. */
export const colours = pairs(
  `the sky:blue, grass:green, snow:white, a banana:yellow, a tomato:red, coal:black, the sun:yellow, chocolate:brown,
  a lemon:yellow, a leaf:green, milk:white, the sea:blue, a strawberry:red`,
);

export const animals = list(
  `fox, bear, cat, dog, owl, mouse, rabbit, horse, duck, lion, frog, hedgehog, otter, dragon, sheep, bird, turtle,
  wolf, pig, goat`,
);

/** Kinds of things and some of each; days are in order. */
export const kinds: readonly (readonly [string, readonly string[]])[] = [
  ["animals", list("cat, dog, horse, owl, fox, bear, lion, duck")],
  ["colours", list("red, blue, green, yellow, black, white, brown")],
  ["fruits", list("apple, banana, pear, orange, cherry, lemon, plum")],
  ["cities", list("Paris, Oslo, Rome, Berlin, Tokyo, Lima, Cairo")],
  ["days", list("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")],
];

/** First names that people have. */
export const names = list(
  `Anna, Ben, Clara, David, Emma, Felix, Grace, Henry, Ivy, Jack, Kate, Leo, Mia, Noah, Olga, Paul, Rosa, Sam, Tina,
  Victor, Zoe, Alice, Bob, Maria, Peter, Lena, Tom, Nina, Ada, Max, Lisa, Omar, Priya, Chen, Yuki, Ali, Sara, Jonas,
  Ella, Oscar, Ruth, Simon, Laura, Daniel, Eva, Frank, Julia, Karl, Linda, Martin, Nora, Otto, Rita, Stefan, Tara,
  Walter, Amir, Bianca, Carlos, Dora, Erik, Fatima, Greta, Hugo, Iris, John, Kim, Luca, Mary, Nils`,
);

/** Things to ask about that the model knows nothing of. */
export const topics = list(
  `football, the stock market, quantum physics, taxes, the moon landing, black holes, a car engine, the president,
  a mortgage, chess, Shakespeare, the Roman empire, DNA, volcanoes, a guitar, bread, bitcoin, medicine, law, dinosaurs,
  jazz, a bicycle, photography, the ocean, a computer, algebra, the internet, a garden, history, politics, a rocket,
  wine, coffee, a house, the economy, a virus, poetry, tennis, the universe, a school, robots, a painting, Python,
  JavaScript, a database, gravity, the second world war, Linux, physics, a recipe, the news, electricity`,
);

/** Things that people like. */
export const likes = list(
  `pizza, music, books, football, cats, dogs, coffee, tea, rain, summer, winter, chess, apples, trains, the sea,
  cheese, dancing, running, flowers, movies, chocolate, mountains, bread, snow, cars, games, painting, cooking`,
);

/** Everyday nouns and verbs for sentences that nobody planned. */
export const nouns = list(
  `car, house, friend, brother, sister, boss, phone, neighbour, garden, kitchen, train, street, window, table, door,
  teacher, computer, team, city, shop, market, letter, dinner, lamp, book, ticket, song, room, boat, bike, cup, plan`,
);
export const pastVerbs = list(
  `bought, lost, found, broke, cleaned, painted, sold, repaired, forgot, visited, saw, cooked, moved, watched, built`,
);
export const baseVerbs = list(
  `buy, lose, find, break, clean, paint, sell, repair, forget, visit, see, cook, move, watch, build, use, change, keep`,
);

const onsets = list(
  `b, d, f, g, k, l, m, n, p, r, s, t, v, z, h, j, w, br, dr, kr, tr, ch, sh, gl, st, pl, fl, gr, th, qu, c, bl, sk, sn,
  y, x, cl, pr, fr, sp`,
);
const vowels = list("a, e, i, o, u, a, e, i, o, u, ai, ee, oo, ia, y, ou, ea, io, au");
const codas = list(",,,, n, r, l, s, m, k, t, x, nd, rt, ck, ng, sh, lf, rn, b, d, g, p, th, v, z");

/** A word that nobody has written before: what a model must copy because it cannot have learned it. */
export function madeUpWord(random: Random): string {
  const syllables = random.pick([1, 2, 2, 2, 3, 3]);
  let word = random.chance(0.15) ? random.pick(vowels) : "";
  for (let index = 0; index < syllables; index += 1) {
    word += random.pick(onsets) + random.pick(vowels);
    if (random.chance(0.3)) word += random.pick(codas);
  }
  return word;
}

/** A first name: known or made up. */
export function anyName(random: Random): string {
  return random.chance(0.3) ? random.pick(names) : capitalise(madeUpWord(random));
}

/** A place: known or made up. */
export function anyCity(random: Random): string {
  if (random.chance(0.45)) return capitalise(madeUpWord(random));
  return random.chance(0.5) ? random.pick(cities) : random.pick(capitals)[1];
}

export function capitalise(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

/** `a fox`, `an owl`. */
export function withArticle(noun: string): string {
  return `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}`;
}
