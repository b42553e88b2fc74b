import { Agent } from "undici";

/** Chats to send, all at once, each on a connection of its own. */
export interface Crowd {
  readonly origin: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly model: string;
  readonly requests: number;
}

/** What became of one of them. */
export interface Answered {
  /** Its status, or what went wrong. */
  readonly failure: string | null;
  /** From when it was sent to its first token. */
  readonly firstMs: number;
  /** `performance.now()` of its end. */
  readonly endedAtMs: number;
}

/** Tokens of each answer. */
const answerTokens = 8;

/** Sends the crowd; resolves when each has been answered, well or not. */
export async function sendCrowd(crowd: Crowd): Promise<Answered[]> {
  const agent = new Agent({ pipelining: 1, headersTimeout: 0, bodyTimeout: 0, connect: { timeout: 60_000 } });
  const answers = await Promise.all(Array.from({ length: crowd.requests }, (_, row) => ask(agent, crowd, row)));
  await agent.close();
  return answers;
}

async function ask(agent: Agent, { origin, headers, model }: Crowd, row: number): Promise<Answered> {
  const sentMs = performance.now();
  let firstMs = Number.NaN;
  let failure: string | null = null;
  let text = "";
  try {
    const answer = await agent.request({
      origin,
      path: "/v1/chat/completions",
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify({
        model,
        stream: true,
        max_tokens: answerTokens,
        messages: [{ role: "user", content: `${row}: what is the capital of Norway?` }],
      }),
    });
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      text += chunk.toString("latin1");
      // Comments that tell how far the load is are no answer.
      if (Number.isNaN(firstMs) && text.includes("data: {")) firstMs = performance.now() - sentMs;
    }
    if (answer.statusCode !== 200) failure = String(answer.statusCode);
    else if (text.includes("event: error") || !text.includes("data: [DONE]")) failure = "cut";
  } catch (thrown) {
    failure = thrown instanceof Error ? thrown.message : String(thrown);
  }
  return { failure, firstMs, endedAtMs: performance.now() };
}
