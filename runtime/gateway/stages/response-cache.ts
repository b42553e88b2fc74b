import { createHash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { Readable } from "node:stream";
import { Counter, type Registry } from "prom-client";
import type { Logger } from "../../lib/log.ts";
import type { RelayResult, RelayTap } from "../../lib/relay.ts";
import type { Exchange } from "../exchange.ts";
import { maxValueBytes, type Values } from "../stores/hot.ts";

/** Which answers are kept, and for how long. */
export interface ResponseCacheOptions {
  /** Ids of models whose answers are kept. */
  readonly models: readonly string[];
  readonly seconds: number;
}

/** Response header: the answer was given before, and no engine saw the request. */
export const cacheHeader = "x-penstock-cache";

/** What an engine's error looks like in a stream that it ends as if all were well. */
const errorEvent = "event: error";

/**
 * Answers again what was answered before: requests whose answer is always the same, by tenant, version of the model,
 * adapter and body. Answers are in the hot store, so that all gateways share them; they cost no tokens. When the store
 * fails the engine answers.
 */
export class ResponseCache {
  readonly #values: Values;
  readonly #models: ReadonlySet<string>;
  readonly #ttlMs: number;
  readonly #lookups: Counter<"model" | "result">;
  readonly #log: Logger;

  constructor(
    { models, seconds }: ResponseCacheOptions,
    parts: { readonly values: Values; readonly registry: Registry; readonly log: Logger },
  ) {
    this.#models = new Set(models);
    this.#ttlMs = seconds * 1_000;
    this.#values = parts.values;
    this.#log = parts.log;
    this.#lookups = new Counter({
      name: "penstock_gateway_response_cache_total",
      help: "Requests whose answer may be kept, by whether it was there.",
      labelNames: ["model", "result"],
      registers: [parts.registry],
    });
  }

  /** Where the answer of a request is kept; null when it may differ each time, or nobody wants it kept. */
  keyOf({ model, adapter, request, path, principal, incoming }: Exchange): string | null {
    if (!request.isDeterministic || !this.#models.has(model.spec.id)) return null;
    if (/no-cache|no-store/i.test(incoming.headers["cache-control"] ?? "")) return null;
    const body = request.body(model.name);
    if (body instanceof Readable) return null;
    // Two clients of whom one hides the usage that metering asked for send the engine the same body.
    const who = JSON.stringify([principal.tenant.id, model.name, adapter ?? null, path, request.hidesUsage]);
    const hash = createHash("sha256").update(who);
    for (const piece of Buffer.isBuffer(body) ? [body] : body) hash.update(piece);
    return `response:${hash.digest("base64url")}`;
  }

  /** Sends the answer that is kept under `key`; null when there is none. */
  async replay(key: string, { outgoing, model }: Exchange): Promise<RelayResult | null> {
    const kept = await this.#get(key);
    const head = kept?.indexOf("\n") ?? -1;
    this.#lookups.inc({ model: model.spec.id, result: head === -1 ? "miss" : "hit" });
    if (kept === undefined || head === -1) return null;
    const body = kept.subarray(head + 1);
    const type = kept.toString("latin1", 0, head);
    outgoing.writeHead(200, ["content-type", type, "content-length", String(body.length), cacheHeader, "hit"]);
    outgoing.end(body);
    return { outcome: "complete", status: 200, bytes: body.length };
  }

  /** Keeps what a recorder saw, if all of it came and none of it is an error. */
  keep(key: string, recorder: Recorder): void {
    const answer = recorder.answer();
    if (answer === null) return;
    this.#values.set(key, answer, this.#ttlMs).catch((error: unknown) => this.#warn(error));
  }

  async #get(key: string): Promise<Buffer | undefined> {
    try {
      return await this.#values.get(key);
    } catch (error) {
      this.#warn(error);
      return undefined;
    }
  }

  #warn(error: unknown): void {
    this.#log.warn({ err: error }, "the response cache's store failed");
  }
}

/** Remembers what a client got while the relay writes it. */
export class Recorder {
  #type: string | null = null;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #ended = false;

  /** A tap that does what `tap` does, and records. */
  around(tap: RelayTap): RelayTap {
    return {
      begin: (status, headers) => {
        this.#begin(status, headers);
        tap.begin(status, headers);
      },
      write: (chunk) => this.#take(tap.write(chunk)),
      end: () => {
        const rest = this.#take(tap.end());
        this.#ended = true;
        return rest;
      },
    };
  }

  /** The answer's type, a line feed, and its body; null when it must not be given again. */
  answer(): Buffer | null {
    if (this.#type === null || !this.#ended) return null;
    const body = Buffer.concat(this.#chunks);
    if (this.#type.startsWith("text/event-stream") && body.includes(errorEvent)) return null;
    return Buffer.concat([Buffer.from(`${this.#type}\n`, "latin1"), body]);
  }

  #begin(status: number, headers: IncomingHttpHeaders): void {
    const isPlain = (headers["content-encoding"] ?? "identity") === "identity";
    this.#type = status === 200 && isPlain ? (headers["content-type"] ?? null) : null;
    this.#chunks = [];
    this.#bytes = 0;
  }

  #take(passed: Buffer | null): Buffer | null {
    if (passed === null || this.#type === null) return passed;
    this.#bytes += passed.length;
    if (this.#bytes <= maxValueBytes) this.#chunks.push(passed);
    else {
      this.#type = null;
      this.#chunks = [];
    }
    return passed;
  }
}
