import { Agent, request } from "undici";

/** An answer of an instance metadata service. */
export interface MetadataAnswer {
  readonly status: number;
  readonly text: string;
}

/** A request to it. */
export interface MetadataRequest {
  readonly path: string;
  readonly method?: "GET" | "PUT" | "POST";
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** The list of events of a whole scale set is a few KiB. */
const maxAnswerBytes = 256 * 1024;

/**
 * Talks to an instance metadata service. An agent of its own: proxies of the environment do not reach a link-local
 * address, redirects are not followed, and no header is sent but those of the request.
 */
export class MetadataClient {
  readonly #origin: string;
  readonly #agent = new Agent({ connections: 2 });

  constructor(origin: string) {
    this.#origin = origin;
  }

  /** Sends a request. Throws when there is no answer in time, or one that is too large. */
  async send({ path, method = "GET", headers, body, timeoutMs, signal }: MetadataRequest): Promise<MetadataAnswer> {
    const ending = new AbortController();
    const end = (): void => ending.abort(new Error("The instance metadata service gave no answer in time."));
    const timer = setTimeout(end, timeoutMs);
    signal?.addEventListener("abort", end);
    try {
      signal?.throwIfAborted();
      const answer = await request(this.#origin + path, {
        method,
        headers,
        body: body ?? null,
        dispatcher: this.#agent,
        signal: ending.signal,
      });
      const chunks: Buffer[] = [];
      let size = 0;
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        size += chunk.length;
        if (size > maxAnswerBytes) throw new Error("The instance metadata service sent too much.");
        chunks.push(chunk);
      }
      return { status: answer.statusCode, text: Buffer.concat(chunks).toString("utf8") };
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
    }
  }
}

/** The JSON in an answer; undefined when it is none. */
export function jsonOf(answer: MetadataAnswer): unknown {
  try {
    return JSON.parse(answer.text);
  } catch {
    return undefined;
  }
}
