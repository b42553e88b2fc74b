import { once } from "node:events";
import type { ServerResponse } from "node:http";
import type { PenstockError } from "../../contracts/errors.ts";
import { sseHeaders, writeSseError } from "../../lib/sse.ts";

/** How long a client may read nothing of what waits for it. */
const stalledClientMs = 60_000;

/** A stream of server-sent events on Node's own response. It begins with its first event, and waits for a slow client. */
export class SseStream {
  readonly #outgoing: ServerResponse;

  constructor(outgoing: ServerResponse) {
    this.#outgoing = outgoing;
  }

  /** Whether the status line has left, so that an error can only be an event. */
  get hasBegun(): boolean {
    return this.#outgoing.headersSent;
  }

  async send(payload: object): Promise<void> {
    await this.#write(`data: ${JSON.stringify(payload)}\n\n`);
  }

  /** Ends a complete stream. */
  async done(): Promise<void> {
    await this.#write("data: [DONE]\n\n");
    this.#outgoing.end();
  }

  /** Ends a stream that failed: an error event, and no `[DONE]`. */
  fail(error: PenstockError): void {
    if (!this.#outgoing.destroyed) writeSseError(this.#outgoing, error);
  }

  async #write(text: string): Promise<void> {
    const outgoing = this.#outgoing;
    if (outgoing.destroyed) return;
    if (!outgoing.headersSent) outgoing.writeHead(200, sseHeaders);
    if (outgoing.write(text)) return;
    await this.#drained();
  }

  /** Waits until the client has read, or has gone. One that stalls is cut off, so that its sequence serves others. */
  async #drained(): Promise<void> {
    const settled = new AbortController();
    const signal = AbortSignal.any([settled.signal, AbortSignal.timeout(stalledClientMs)]);
    try {
      await Promise.race([once(this.#outgoing, "drain", { signal }), once(this.#outgoing, "close", { signal })]);
    } catch {
      this.#outgoing.destroy();
    } finally {
      settled.abort();
    }
  }
}
