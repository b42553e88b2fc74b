import {
  heartbeat,
  loadEvent,
  type Heartbeat,
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
    const response = await this.#post("/heartbeat", body, AbortSignal.timeout(heartbeatTimeoutMs));
    const parsed = heartbeat.safeParse(await response.json());
    if (!parsed.success) throw new PenstockError("upstream_failed", `${this.url} sent a heartbeat of another shape.`);
    return parsed.data;
  }

  /** Loads a model and reports how far it is. Throws the agent's own error, or `upstream_failed`. */
  async load(
    request: LoadModelRequest,
    { onProgress, signal }: { onProgress: (progress: LoadProgress) => void; signal: AbortSignal },
  ): Promise<LoadModelResult> {
    const response = await this.#post("/load_model", { ...request, stream: true }, signal);
    if (response.body === null) throw new PenstockError("upstream_failed", `${this.url} answered nothing.`);
    for await (const line of lines(response.body)) {
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
    await (await this.#post("/unload_model", { model_id: modelId, to }, signal)).body?.cancel();
  }

  async #post(path: string, body: object, signal: AbortSignal): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(this.url + path, {
        method: "POST",
        headers: { authorization: `Bearer ${this.#token}`, "content-type": "application/json" },
        body: JSON.stringify(body),
        signal,
      });
    } catch (cause) {
      throw new PenstockError("upstream_failed", `The agent at ${this.url} cannot be reached.`, { cause });
    }
    if (response.ok) return response;
    throw errorFromBody(await response.json().catch(() => undefined)) ?? unexpected(this.url, response.status);
  }
}

/** A line of a load is small; an agent that never ends one is broken. */
const maxLineLength = 64 * 1024;

async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
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
