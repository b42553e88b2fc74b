/** A chat message as OpenAI's API has it. */
export interface Message {
  readonly role: string;
  readonly content: string | null;
  readonly tool_calls?: readonly {
    readonly id: string;
    readonly type: string;
    readonly function: { readonly name: string; readonly arguments: string };
  }[];
  readonly tool_call_id?: string;
}

interface EndpointOptions {
  readonly url: string;
  readonly apiKey?: string | undefined;
  readonly model?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Tokens that a reply may have: a story of the demo model has about 120. */
const replyTokens = 160;

/** A model behind OpenAI's HTTP API, asked at temperature 0. A refusal is answered as its text. */
export class Endpoint {
  readonly #options: EndpointOptions;
  readonly #model: string;

  private constructor(options: EndpointOptions, model: string) {
    this.#options = options;
    this.#model = model;
  }

  /** Asks for the first model when none is named. Throws when the endpoint does not answer or lists none. */
  static async open(options: EndpointOptions): Promise<Endpoint> {
    if (options.model !== undefined) return new Endpoint(options, options.model);
    const listed = await new Endpoint(options, "").#request("/models");
    if (typeof listed === "string") throw new Error(listed);
    const { data } = listed as { data?: { id: string }[] }; // OpenAI's shape
    const first = data?.[0]?.id;
    if (first === undefined) throw new Error(`${options.url}/models lists no model`);
    return new Endpoint(options, first);
  }

  /** The reply to `messages`. */
  async chat(messages: readonly Message[], tools: readonly object[] | undefined): Promise<Message | string> {
    const answer = await this.#request("/chat/completions", {
      messages,
      ...(tools === undefined ? {} : { tools }),
      temperature: 0,
      max_tokens: replyTokens,
    });
    if (typeof answer === "string") return answer;
    const { choices } = answer as { choices?: { message: Message }[] }; // OpenAI's shape
    return choices?.[0]?.message ?? "the answer has no choice";
  }

  /** One vector for each text. */
  async embed(texts: readonly string[]): Promise<number[][] | string> {
    const answer = await this.#request("/embeddings", { input: texts });
    if (typeof answer === "string") return answer;
    const { data } = answer as { data?: { embedding: number[] }[] }; // OpenAI's shape
    return data?.map(({ embedding }) => embedding) ?? "the answer has no data";
  }

  async #request(path: string, body?: object): Promise<object | string> {
    const { url, apiKey, signal } = this.#options;
    const response = await fetch(`${url}${path}`, {
      method: body === undefined ? "GET" : "POST",
      headers: {
        "content-type": "application/json",
        ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify({ model: this.#model, ...body }) }),
      ...(signal === undefined ? {} : { signal }),
    });
    if (!response.ok) return `${path} answered ${response.status}: ${await response.text()}`;
    return (await response.json()) as object; // every answer of the API is an object
  }
}
