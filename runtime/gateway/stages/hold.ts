import type { LoadProgress } from "../../contracts/agent.ts";
import { PenstockError } from "../../contracts/errors.ts";
import { sseComment, sseHeaders } from "../../lib/sse.ts";
import type { Exchange } from "../exchange.ts";
import type { HoldLimits } from "../options.ts";
import type { Load } from "../scheduling/scheduler.ts";

/**
 * A held stream stays without a status line this long, so that a quick failure is still a plain HTTP error.
 * Afterwards it gets a comment with the progress at this interval.
 */
const commentIntervalMs = 1_000;

/** What a client is told to wait when a load says nothing of its end. */
const defaultRetrySeconds = 5;

/** Requests that wait for a model: bounded by count, bytes and time. */
export class Holds {
  readonly #limits: HoldLimits;
  #requests = 0;
  #bytes = 0;
  /** By tenant; only those that have something here. */
  readonly #tenants = new Map<string, { requests: number; bytes: number }>();

  constructor(limits: HoldLimits) {
    this.#limits = limits;
  }

  get waiting(): { readonly requests: number; readonly bytes: number } {
    return { requests: this.#requests, bytes: this.#bytes };
  }

  /**
   * Keeps `exchange` until `load` is done. Throws the load's own error, `queue_full`, `hold_expired` (both with
   * `Retry-After`), or `client_closed`.
   */
  async hold(exchange: Exchange, load: Load): Promise<void> {
    using _place = this.#enter(exchange, load);
    const comments = exchange.request.streams
      ? setInterval(() => sendComment(exchange, load), commentIntervalMs)
      : undefined;
    const expiry = AbortSignal.timeout(this.#limits.maxSeconds * 1_000);
    const { promise: ended, reject } = Promise.withResolvers<never>();
    const onLeft = (): void => reject(new PenstockError("client_closed", "The client left."));
    const onExpiry = (): void => reject(this.#expired(exchange, load));
    exchange.client.addEventListener("abort", onLeft, { once: true });
    expiry.addEventListener("abort", onExpiry, { once: true });
    try {
      if (exchange.client.aborted) onLeft();
      await Promise.race([load.done, ended]);
    } finally {
      clearInterval(comments);
      exchange.client.removeEventListener("abort", onLeft);
      expiry.removeEventListener("abort", onExpiry);
    }
  }

  #enter(exchange: Exchange, load: Load): Disposable {
    const { bytes } = exchange.request;
    const { id } = exchange.principal.tenant;
    const { maxRequests, maxBytes, tenantShare = 1 } = this.#limits;
    const own = this.#tenants.get(id) ?? { requests: 0, bytes: 0 };
    const isFull = this.#requests + 1 > maxRequests || this.#bytes + bytes > maxBytes;
    const isGreedy = own.requests + 1 > tenantShare * maxRequests || own.bytes + bytes > tenantShare * maxBytes;
    if (isFull || isGreedy) {
      throw new PenstockError(
        "queue_full",
        `Too many requests wait for ${exchange.model.spec.id} to load; try again later.`,
        { retryAfterSeconds: retrySeconds(load.progress) },
      );
    }
    this.#requests += 1;
    this.#bytes += bytes;
    own.requests += 1;
    own.bytes += bytes;
    this.#tenants.set(id, own);
    return {
      [Symbol.dispose]: () => {
        this.#requests -= 1;
        this.#bytes -= bytes;
        own.requests -= 1;
        own.bytes -= bytes;
        if (own.requests === 0) this.#tenants.delete(id);
      },
    };
  }

  #expired(exchange: Exchange, load: Load): PenstockError {
    const phase = load.progress === null ? "starting" : describe(load.progress);
    return new PenstockError(
      "hold_expired",
      `${exchange.model.spec.id} is still loading after ${this.#limits.maxSeconds} s (${phase}); try again later.`,
      { retryAfterSeconds: retrySeconds(load.progress) },
    );
  }
}

/** A load's progress in words: `download 42 %, 118 MB/s, 12 s left`. */
export function describe(progress: LoadProgress): string {
  const parts: string[] = [progress.phase];
  if (progress.bytes_total > 0) parts[0] += ` ${Math.floor((100 * progress.bytes_done) / progress.bytes_total)} %`;
  if (progress.bytes_per_second > 0) parts.push(`${Math.round(progress.bytes_per_second / 1e6)} MB/s`);
  if (progress.eta_seconds !== null) parts.push(`${Math.ceil(progress.eta_seconds)} s left`);
  return parts.join(", ");
}

function retrySeconds(progress: LoadProgress | null): number {
  return Math.max(1, progress?.eta_seconds ?? defaultRetrySeconds);
}

function sendComment({ outgoing, model }: Exchange, load: Load): void {
  if (outgoing.destroyed) return;
  if (!outgoing.headersSent) outgoing.writeHead(200, Object.entries(sseHeaders).flat());
  outgoing.write(sseComment(`${model.spec.id}: ${load.progress === null ? "waiting" : describe(load.progress)}`));
}
