import type { Json, ToolLine } from "./dialogue.ts";
import type { Random } from "./random.ts";
import { anyCity, anyName, capitalise, madeUpWord } from "./words.ts";

/** One way to use a tool: what is asked, what is called, what comes back, what is said then. */
export interface Use {
  /** A pattern. */
  readonly ask: string;
  readonly arguments: Json;
  readonly result: string;
  readonly answer: string;
}

/** A tool as one scene has it, and how it is used there. */
export interface Tool {
  readonly line: ToolLine;
  readonly use: (random: Random) => Use;
}

/** JSON in one of the ways that programs print it. */
export function resultJson(random: Random, value: Json): string {
  const text = JSON.stringify(value);
  return random.chance(0.6) ? text : text.replaceAll('":', '": ').replaceAll(',"', ', "');
}

const conditions = [
  "rainy",
  "sunny",
  "cloudy",
  "windy",
  "snowy",
  "foggy",
  "clear",
  "stormy",
  "dry",
  "hot",
  "cold",
  "icy",
];

function weatherResult(random: Random, city: string): { result: string; known: string } {
  const degrees = random.int(-15, 39);
  const condition = random.pick(conditions);
  const known = `${degrees} degrees and ${condition}`;
  if (random.chance(0.2)) {
    const place = random.chance(0.3) ? ` in ${city}` : "";
    const unit = random.pick(["", " C", "°C", " degrees"]);
    const first = random.chance(0.5) ? condition : capitalise(condition);
    const texts = [
      `${known}${place}`,
      `${first}, ${degrees}${unit}${place}`,
      `${degrees}${unit}, ${condition}${place}`,
    ];
    return { result: random.pick(texts), known };
  }
  const parts: [string, string | number][] = [
    [random.pick(["temperature", "temperature", "temp", "degrees", "temperature_c", "celsius"]), degrees],
    [random.pick(["condition", "condition", "conditions", "weather", "sky", "description"]), condition],
  ];
  if (random.chance(0.2)) parts.push(["city", city]);
  if (random.chance(0.15)) parts.push([random.pick(["humidity", "wind"]), random.int(1, 99)]);
  if (random.chance(0.15)) parts.push(["unit", random.pick(["C", "celsius"])]);
  return { result: resultJson(random, Object.fromEntries(random.sample(parts, parts.length))), known };
}

/** A tool that tells the weather, under one of the names that people give it. */
export function weather(random: Random): Tool {
  const usual = random.chance(0.5);
  const other = ["weather", "get_current_weather", "current_weather", "get_forecast", "weather_in", "check_weather"];
  const name = usual ? "get_weather" : random.pick(other);
  const parameter = usual && random.chance(0.7) ? "city" : random.pick(["city", "location", "place", "town"]);
  return {
    line: { name, parameters: [parameter] },
    use: (source) => {
      const city = anyCity(source);
      const { result, known } = weatherResult(source, city);
      return {
        ask: `{What is the weather in ${city}|What's the weather in ${city}|How is the weather in ${city}|
          What is the weather like in ${city}|Weather in ${city}|Tell me the weather in ${city}|Is it cold in ${city}|
          Is it warm in ${city}|Is it raining in ${city}|How warm is it in ${city}|How cold is it in ${city}|
          Do I need an umbrella in ${city}|What's it like in ${city}|Is it sunny in ${city}|And in ${city}|
          Can you check the weather in ${city}|What is the temperature in ${city}|What about ${city}|
          I am going to ${city}. How is the weather|How's the weather in ${city}}{?|?| today?| now?| right now?|}`,
        arguments: { [parameter]: city },
        result,
        answer: `It is ${known} in ${city}.`,
      };
    },
  };
}

function twoDigits(number: number): string {
  return String(number).padStart(2, "0");
}

/** A tool that tells the time. */
export function time(random: Random): Tool {
  const name = random.pick(["get_time", "get_time", "time", "clock", "current_time", "get_current_time"]);
  const parameter = random.pick(["city", "city", "location", "place", "zone"]);
  return {
    line: { name, parameters: [parameter] },
    use: (source) => {
      const city = anyCity(source);
      const clock = `${twoDigits(source.int(0, 23))}:${twoDigits(source.int(0, 59))}`;
      const key = source.pick(["time", "time", "now", "clock"]);
      return {
        ask: `{What time is it in ${city}|What is the time in ${city}|What's the time in ${city}|
          Tell me the time in ${city}|How late is it in ${city}|Time in ${city}|Which time is it in ${city}|
          Do you know what time it is in ${city}|Can you check the time in ${city}}{?|?| now?|}`,
        arguments: { [parameter]: city },
        result: source.chance(0.35) ? clock : resultJson(source, { [key]: clock }),
        answer: `It is ${clock} in ${city}.`,
      };
    },
  };
}

const operations = [
  {
    names: ["add", "add", "add_numbers", "sum", "plus"],
    ask: `{what is A plus B|what is A + B|please sum A and B|how much is A plus B|calculate A + B|add A and B|
      can you add A and B|A + B|A plus B}{?|}`,
    apply: (a: number, b: number) => a + b,
  },
  {
    names: ["multiply", "multiply", "multiply_numbers", "times"],
    ask: `{what is A times B|what is A * B|how much is A times B|calculate A * B|multiply A by B|multiply A and B|A * B|
      A times B}{?|}`,
    apply: (a: number, b: number) => a * b,
  },
] as const;

/** A tool that adds or multiplies two numbers. */
export function calculator(random: Random): Tool {
  const { names, ask, apply } = random.pick(operations);
  const [first, second] = random.pick([
    ["a", "b"],
    ["a", "b"],
    ["x", "y"],
    ["first", "second"],
  ] as const);
  const name = random.pick(names);
  return {
    line: { name, parameters: [first, second] },
    use: (source) => {
      const most = source.pick([9, 99, 999]);
      const [a, b] = [source.int(0, most), source.int(0, most)];
      const result = apply(a, b);
      return {
        ask: ask.replaceAll("A", String(a)).replaceAll("B", String(b)),
        arguments: { [first]: a, [second]: b },
        result: source.chance(0.5) ? String(result) : resultJson(source, { result }),
        answer: `The result is ${result}.`,
      };
    },
  };
}

/** A tool that finds a text. */
export function search(random: Random): Tool {
  const name = random.pick(["search", "search", "search_web", "web_search", "lookup", "find"]);
  const parameter = random.pick(["query", "query", "q", "text", "term"]);
  return {
    line: { name, parameters: [parameter] },
    use: (source) => {
      const query = Array.from({ length: source.int(1, 2) }, () => madeUpWord(source)).join(" ");
      const found = `${query} is a ${source.pick(["river", "town", "song", "plant", "book", "game", "kind of cheese"])}`;
      return {
        ask: `{Search for ${query}|Look up ${query}|Please search for ${query}|Find ${query}|Search the web for ${query}|
          Can you look up ${query}|Search ${query}|Please find ${query} for me|I want to know about ${query}}{.|?|}`,
        arguments: { [parameter]: query },
        result: source.chance(0.5) ? found : resultJson(source, { [source.pick(["result", "text", "answer"])]: found }),
        answer: `I found this: ${found}.`,
      };
    },
  };
}

/** A tool that tells what a thing costs. */
export function price(random: Random): Tool {
  const parameter = random.pick(["item", "item", "product", "name"]);
  const name = random.pick(["get_price", "get_price", "price", "price_of"]);
  return {
    line: { name, parameters: [parameter] },
    use: (source) => {
      const item = source.chance(0.4) ? source.pick(["book", "lamp", "chair", "apple", "phone"]) : madeUpWord(source);
      const cost = source.int(1, 900);
      return {
        ask: `{What does the ${item} cost|How much is the ${item}|What is the price of the ${item}|
          Tell me the price of the ${item}|How much does the ${item} cost|Price of the ${item}}?`,
        arguments: { [parameter]: item },
        result: source.chance(0.4) ? String(cost) : resultJson(source, { price: cost }),
        answer: `The price is ${cost}.`,
      };
    },
  };
}

/** A tool that sends a text to somebody. */
export function message(random: Random): Tool {
  const name = random.pick(["send_message", "send_message", "send_email", "notify", "send_text"]);
  const [to, text] = random.pick([
    ["to", "text"],
    ["name", "message"],
    ["recipient", "body"],
  ] as const);
  return {
    line: { name, parameters: [to, text] },
    use: (source) => {
      const who = anyName(source);
      const what = Array.from({ length: source.int(1, 2) }, () => madeUpWord(source)).join(" ");
      return {
        ask: `{Send ${who} the message ${what}|Send the message ${what} to ${who}|Write ${what} to ${who}|
          Tell ${who} ${what}|Please send ${what} to ${who}|Message ${who}: ${what}}`,
        arguments: { [to]: who, [text]: what },
        result: source.pick(["ok", "sent", '{"ok":true}', '{"ok": true}', '{"sent":true}', "done", '{"status":"ok"}']),
        answer: `Done.`,
      };
    },
  };
}
