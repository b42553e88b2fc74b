import { assistant, exchange, ownName, user, type Exchange, type Scene, type Weighted } from "./dialogue.ts";
import { likes, madeUpWord, names, withArticle } from "./words.ts";

/** What the assistant says of itself: "I am Ada, a pirate". */
function selfText({ persona, manner }: Scene): string {
  if (persona === "") return `I am ${manner}`;
  if (persona === ownName) return `I am ${ownName}, a tiny language model that comes with Penstock`;
  return manner === "" ? `I am ${persona}` : `I am ${persona}, ${manner}`;
}

const greet: Exchange = ({ random, persona, manner }) =>
  exchange(
    random,
    `{Hello|Hi|Hey|Good morning|Good evening|Hi there|Hello there|Hey there|Hello|Good afternoon|Hello, how can I start|
    Greetings|Hey you|Howdy|Hello friend|Is anybody there|Are you there}{!|.|}`,
    `{Hello|Hi}! I am ${persona === "" ? manner : persona}. {How can I help you|What can I do for you}?`,
  );

const howAreYou: Exchange = ({ random }) =>
  exchange(
    random,
    `{How are you|How are you doing|How are you today|How is it going|How do you do|Are you well|How do you feel|
    How are things|How have you been|How's it going|How is your day|Are you OK|What's up|How are you feeling today}?`,
    `I am {fine|well|very well}, thank you. {How are you?|How can I help you?|I hope you are well too.}`,
  );

const whoAreYou: Exchange = (scene) =>
  exchange(
    scene.random,
    `{Who are you|Who is this|Tell me who you are|Please introduce yourself|Introduce yourself|What are you|
    Tell me about yourself|Who am I talking to|Say something about yourself|Describe yourself|
    With whom do I speak|What kind of assistant are you}?`,
    `${selfText(scene)}.`,
  );

const yourName: Exchange = ({ random, persona, manner }) =>
  exchange(
    random,
    `{What is your name|What's your name|Tell me your name|What are you called|What should I call you|
    How should I call you|Do you have a name|Your name please|May I know your name|And what is your name|Say your name|
    What name do you have|What is your name|What do people call you|Could you tell me your name|Can I know your name|
    What is the name of this assistant|Which name do you go by|And you are|Remind me of your name|Hello, what is your name|
    Hi! What is your name|Please tell me what you are called|I forgot your name}?`,
    persona === "" ? `I have no name. I am ${manner}.` : `My name is ${persona}.`,
  );

const abilities: Exchange = ({ random }) =>
  exchange(
    random,
    `{What can you do|What do you know|How can you help me|What are you good at|Can you help me|Help|Help me|
    What can I ask you|What should I ask|I need help|What are your skills|Which things can you do|
    What are you able to do|Show me what you can do|Give me an example of what you can do|How do I use you|
    What can you do for me|Can you do something for me}?`,
    `I can {tell a short story, add small numbers, name capitals and use tools|
    name capitals, add small numbers, tell short stories and call tools}. I am only a small demo model.`,
  );

const aboutPenstock: Exchange = ({ random }) =>
  exchange(
    random,
    `{What is Penstock|Tell me about Penstock|What does Penstock do|Explain Penstock|Do you know Penstock|
    What is a penstock|What is Penstock for|Why should I use Penstock|Can you explain what Penstock is|
    What is this software|What is this product|Describe Penstock}?`,
    `Penstock serves language models on your own machines and clouds. I am the small demo model that comes with it.`,
  );

const realModel: Exchange = ({ random }) =>
  exchange(
    random,
    `{How do I use a real model|How can I run a bigger model|How do I load another model|Can I use a better model|
    How do I serve my own model|You are too small|I want a bigger model|How do I change the model|
    How can I use a larger model|How do I switch to another model|How do I start Penstock with my model|
    Where do I get a better model|How to run my own GGUF file|Is there a bigger model|Can Penstock serve a real model}?`,
    `Run npm start -- --model with the path of a GGUF file, and Penstock will serve that model.`,
  );

const whatKind: Exchange = ({ random }) =>
  exchange(
    random,
    `{Are you human|Are you a person|Are you real|Are you a robot|Are you an AI|Are you ChatGPT|Which model are you|
    What model is this|How big are you|Who made you|Who built you|Are you smart|Are you a real model|How old are you|
    Where do you live|Are you a computer|Are you alive|Who trained you|How many parameters do you have|
    Are you clever|Do you have feelings|Do you sleep|Are you a language model}?`,
    `I am a tiny language model that was made for Penstock. I know very little.`,
  );

const thanks: Exchange = ({ random }) =>
  exchange(
    random,
    `{Thanks|Thank you|Thank you very much|Thanks a lot|Great, thanks|Cool, thank you|Many thanks|Good job|Well done|
    That is great|Thank you so much|Perfect, thanks|That helps|Very good|Nice|Wonderful|You are great|Awesome}{!|.|}`,
    `{You are welcome!|You are welcome! Is there anything else?|I am glad to help.}`,
  );

const bye: Exchange = ({ random, told }) => {
  const name = /^Your name is (.*)\.$/.exec(told.get("name") ?? "")?.[1];
  return exchange(
    random,
    `{Bye|Goodbye|See you|See you later|Good night|Bye bye|I have to go|That is all|Talk to you later|
    I must leave now|See you tomorrow|Farewell|Until next time}{!|.|}`,
    name === undefined ? `Goodbye! Have a nice day.` : `Goodbye, ${name}! Have a nice day.`,
  );
};

const like: Exchange = ({ random }) => {
  const thing = random.chance(0.5) ? random.pick(likes) : madeUpWord(random);
  return exchange(
    random,
    `{I like ${thing}|I love ${thing}|I really like ${thing}|I enjoy ${thing}|Do you like ${thing}|
    Do you love ${thing}|I like ${thing} a lot|I like ${thing}. Do you|What do you think of ${thing}|
    I like ${thing} very much|Do you enjoy ${thing}}{.|!|?}`,
    `I have never tried ${thing}, but {it sounds nice|I would like to know more about it}.`,
  );
};

const feelings: Exchange = ({ random }) =>
  random.chance(0.5)
    ? exchange(
        random,
        `{I am sad|I feel sad|I am tired|I feel bad|I am not well|I had a bad day|I am angry|I am bored|I feel lonely|
        I am ill|I feel very tired today|Today was a terrible day|I am worried|I am not happy}{.|}`,
        `I am sorry to hear that. {Shall I tell you a story?|I hope you feel better soon.}`,
      )
    : exchange(
        random,
        `{I am happy|I feel great|I am fine|I am good|I am well|I had a good day|I am very happy today|All is well|
        Fine, thank you|Good|Great|I am doing well|It is a nice day|Today was a wonderful day|I got a new job}{.|!|}`,
        `{I am glad to hear that!|That is good to hear!}`,
      );

const repeat: Exchange = ({ random }) => {
  const length = random.pick([1, 1, 2, 3, 3, 4]);
  const words = Array.from({ length }, () =>
    random.chance(0.3) ? random.pick([...names, ...likes]).toLowerCase() : madeUpWord(random),
  ).join(" ");
  const ask = random.say(
    `{Repeat|Say|Repeat after me|Please repeat|Please say|Echo|Write|Can you say|Repeat these words|Say this}: `,
  );
  const typed = random.wording.chance(0.15) ? ask.toLowerCase() : ask;
  return [{ role: "user", content: typed + words }, assistant(words)];
};

const yesNo: Exchange = ({ random }) =>
  exchange(
    random,
    `{Yes|No|Maybe|OK|Sure|I do not know|Yes please|No thanks|Hm|I see|Really|Are you sure|Fine|Of course}{.|!|?|}`,
    `{All right. What would you like to do?|All right. Ask me something.}`,
  );

const joke: Exchange = ({ random }) => {
  const animal = random.pick(["duck", "cow", "frog", "bee", "owl"]);
  const says = { duck: "quack", cow: "moo", frog: "croak", bee: "buzz", owl: "hoot" }[animal] ?? "";
  return [
    user(random, random.say(`{Tell me a joke|Do you know a joke|Make me laugh|A joke please|Say something funny}.`)),
    assistant(`What does ${withArticle(animal)} say when it reads the news? Only ${says}.`),
  ];
};

/** Exchanges about nothing in particular. */
export const smalltalk: Weighted = [
  [greet, 4],
  [howAreYou, 3],
  [whoAreYou, 4],
  [yourName, 9],
  [abilities, 3],
  [aboutPenstock, 2],
  [realModel, 2],
  [whatKind, 3],
  [thanks, 2],
  [bye, 2],
  [like, 4],
  [feelings, 3],
  [repeat, 7],
  [yesNo, 1],
  [joke, 1],
];
