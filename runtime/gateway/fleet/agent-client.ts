import { Agent, request, type Dispatcher } from "undici";
import {
  heartbeat,
  loadEvent,
  type Heartbeat,
  type LoadAdapterRequest,
  type LoadModelRequest,
  type LoadModelResult,
  type LoadProgress,
  type UnloadModelRequest,
} from "../../contracts/agent.ts";
import { errorFromBody, PenstockError } from "../../contracts/errors.ts";

/** A heartbeat that takes longer counts as none. */
const heartbeatTimeoutMs = 2_000;

/** The agent protocol, from the gateway's side. */
export class AgentClient {
  readonly url: string;
  readonly #token: string;

  constructor(url: string, token: string) {
    this.url = url;
    this.#token = token;
  }

  /** What the agent says of itself. Throws `upstream_failed` when it does not answer in time or in shape. */
  async heartbeat(knownCacheRevision?: string): Promise<Heartbeat> {
    const body = knownCacheRevision === undefined ? {} : { known_cache_revision: knownCacheRevision };
    const answer = await this.#post("/heartbeat", body, AbortSignal.timeout(heartbeatTimeoutMs));
    const parsed = heartbeat.safeParse(await this.#json(answer));
    if (!parsed.success) throw new PenstockError("upstream_failed", `${this.url} sent a heartbeat of another shape.`);
    return parsed.data;
  }

  /** Loads a model and reports how far it is. Throws the agent's own error, or `upstream_failed`. */
  async load(
    wanted: LoadModelRequest,
    { onProgress, signal }: { onProgress: (progress: LoadProgress) => void; signal: AbortSignal },
  ): Promise<LoadModelResult> {
    for await (const line of lines(await this.#post("/load_model", { ...wanted, stream: true }, signal))) {
      const event = loadEvent.parse(JSON.parse(line));
      switch (event.type) {
        case "progress":
          onProgress(event.progress);
          break;
        case "result":
          return event.result;
        case "error":
          throw errorFromBody(event.error) ?? new PenstockError("upstream_failed", "The agent could not load it.");
      }
    }
    throw new PenstockError("upstream_failed", `${this.url} stopped while it loaded the model; try again.`);
  }

  /** Takes a model down to a tier. Throws the agent's own error (`model_in_use`), or `upstream_failed`. */
  async unload(modelId: string, to: UnloadModelRequest["to"], signal: AbortSignal): Promise<void> {
    await (await this.#post("/unload_model", { model_id: modelId, to }, signal)).dump();
  }

  /**
   * Loads an adapter into a model that is READY. Answers false when every place for one is in use. Throws the agent's own
   * error, or `upstream_failed`.
   */
  async loadAdapter(wanted: LoadAdapterRequest, signal: AbortSignal): Promise<boolean> {
    try {
      await (await this.#post("/load_adapter", wanted, signal)).dump();
      return true;
    } catch (thrown) {
      if (thrown instanceof PenstockError && thrown.code === "model_in_use") return false;
      throw thrown;
    }
  }

  async #post(path: string, body: object, signal: AbortSignal): Promise<Dispatcher.ResponseData["body"]> {
    let response: Dispatcher.ResponseData;
    try {
      response = await request(this.url + path, {
        method: "POST",
        headers: { authorization: `Bearer ${this.#token}`, "content-type": "application/json" },
        body: JSON.stringify(body),
        dispatcher,
        signal,
      });
    } catch (cause) {
      throw new PenstockError("upstream_failed", `The agent at ${this.url} cannot be reached.`, { cause });
    }
    if (response.statusCode === 200) return response.body;
    const said = await this.#json(response.body).catch(() => undefined);
    throw errorFromBody(said) ?? unexpected(this.url, response.statusCode);
  }

  async #json(body: AsyncIterable<Uint8Array>): Promise<unknown> {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of body) {
      bytes += chunk.length;
      if (bytes > maxAnswerBytes) throw new PenstockError("upstream_failed", `${this.url} sent an answer without end.`);
      chunks.push(chunk);
    }
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  }
}

/** `request` and not `fetch`, which costs three times the CPU: a thousand agents are asked every second. */
const dispatcher = new Agent({
  keepAliveTimeout: 30_000,
  connect: { timeout: 2_000 },
  // Calls have signals of their own; an agent shows a sign of life every 10 s while it loads.
  headersTimeout: 0,
  bodyTimeout: 60_000,
});

/** A heartbeat of an agent with 10,000 models on its disk is under 2 MB. */
const maxAnswerBytes = 8 * 2 ** 20;

/** A line of a load is small; an agent that never ends one is broken. */
const maxLineLength = 64 * 1024;

async function* lines(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    if (rest.length > maxLineLength) throw new PenstockError("upstream_failed", "The agent sent a line without end.");
    yield* parts;
  }
}

function unexpected(url: string, status: number): PenstockError {
  return new PenstockError("upstream_failed", `The agent at ${url} answered ${status}.`);
}
