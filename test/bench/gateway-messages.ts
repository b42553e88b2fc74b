/** What the gateway's bench sends, and what its engines answer. */
export const model = "m";

export const smallBody = JSON.stringify({
  model,
  messages: [
    { role: "system", content: "You are a helpful assistant." },
    { role: "user", content: "What is the capital of France? Answer in one word." },
  ],
  max_tokens: 32,
  temperature: 0,
});

/** A long conversation, as an agent that reads files sends it: 220 KB with its escapes. */
export const largeBody = JSON.stringify({
  model,
  messages: Array.from({ length: 40 }, (_, turn) => ({
    role: turn % 2 === 0 ? "user" : "assistant",
    content: `Turn ${turn}:\n${'  const answer = lookUp("a word", 42); // as the caller wants it\n'.repeat(81)}`,
  })),
  max_tokens: 32,
});

export const streamBody = JSON.stringify({
  model,
  messages: [{ role: "user", content: "Tell me a long story." }],
  stream: true,
});

export const answer = JSON.stringify({
  id: "chatcmpl-123",
  object: "chat.completion",
  created: 1_700_000_000,
  model,
  choices: [{ index: 0, message: { role: "assistant", content: "Paris" }, logprobs: null, finish_reason: "stop" }],
  usage: { prompt_tokens: 27, completion_tokens: 2, total_tokens: 29, prompt_tokens_details: { cached_tokens: 16 } },
});

export const streamEvent = `data: ${JSON.stringify({
  id: "chatcmpl-123",
  object: "chat.completion.chunk",
  created: 1_700_000_000,
  model,
  choices: [{ index: 0, delta: { content: " token" }, logprobs: null, finish_reason: null }],
})}\n\n`;
