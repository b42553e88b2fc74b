import { setTimeout as delay } from "node:timers/promises";
import { Counter, type Registry } from "prom-client";
import { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import { modelId } from "../../contracts/model.ts";
import type { RelayGate, RelayResult } from "../../lib/relay.ts";
import { endpointOf } from "../api/endpoints.ts";
import type { Exchange } from "../exchange.ts";
import type { Replica } from "../registry/registry.ts";
import type { Routed } from "./route.ts";

/** Which slow requests are sent to a second replica. */
export const hedgingConfig = z.strictObject({
  models: z.array(modelId).min(1),
  /** How long a request waits for its first byte until then. `p95`: as long as 95 of 100 did lately. */
  afterMs: z.union([z.int().min(1).max(600_000), z.literal("p95")]).default("p95"),
  /** Share of the requests that may be sent twice. */
  maxShare: z.number().positive().max(1).default(0.05),
});

export type HedgingOptions = z.infer<typeof hedgingConfig>;

/** What a race needs of the gateway. */
export interface RaceParts {
  send(routed: Routed, gate: RelayGate): Promise<RelayResult>;
  /** Another replica that is not busier; null when there is none. */
  second(): Routed | null;
  markNotReady(replica: Replica): void;
}

/** How a race ended: the answer, and who gave it. */
export interface Won {
  readonly result: RelayResult;
  readonly replica: Replica;
}

/** Hedges that a quiet time saves up for a slow one. */
const maxCredit = 10;

/** Requests that `p95` is measured on: from so many on, and the latest so many. */
const minTimes = 32;
const maxTimes = 256;

/** Sends a request to a second replica when the first is slow. The first byte decides; the other request is given up. */
export class Hedging {
  readonly #hedges: Counter<"model" | "won">;
  readonly #times = new Map<string, FirstBytes>();
  #options: HedgingOptions | null = null;
  #credit = 0;

  constructor(options: HedgingOptions | undefined, metrics: Registry) {
    this.#hedges = new Counter({
      name: "penstock_gateway_hedges_total",
      help: "Requests that were sent to a second replica, by whether the `first` or the `second` answered.",
      labelNames: ["model", "won"],
      registers: [metrics],
    });
    this.configure(options);
  }

  configure(options: HedgingOptions | undefined): void {
    this.#options = options ?? null;
    this.#credit = 0;
  }

  /** Whether a request may be sent twice: nothing is kept of it, and its body is in memory. */
  applies({ model, path }: Exchange): boolean {
    if (this.#options?.models.includes(model.spec.id) !== true) return false;
    const { body, task } = endpointOf(path);
    return (
      body === "json" && path !== "/v1/responses" && (task === "generate" || task === "embed" || task === "rerank")
    );
  }

  /** Sends a request that `applies`, and once more when that is slow. Throws what the first replica's failure was. */
  async race(first: Routed, exchange: Exchange, parts: RaceParts): Promise<Won> {
    const race = new Race(parts);
    const times = this.#timesOf(exchange);
    const startedMs = performance.now();
    const one = race.start(first);
    void race.opened.then(() => times.add(performance.now() - startedMs));
    this.#credit = Math.min(maxCredit, this.#credit + (this.#options?.maxShare ?? 0));
    if (!(await isSlow(one, race.opened, this.#afterMs(times))) || this.#credit < 1) return one;
    using second = parts.second();
    if (second === null) return await one;
    this.#credit -= 1;
    const won = await race.against(one, second);
    exchange.account.replica = won.replica.agentUrl;
    this.#hedges.inc({ model: exchange.model.spec.id, won: won.replica === first.replica ? "first" : "second" });
    return won;
  }

  #afterMs(times: FirstBytes): number | null {
    const afterMs = this.#options?.afterMs ?? null;
    return afterMs === "p95" ? times.p95 : afterMs;
  }

  /** The first byte of a stream and of a whole answer have little in common. */
  #timesOf({ model, request }: Exchange): FirstBytes {
    const key = `${request.streams} ${model.spec.id}`;
    let times = this.#times.get(key);
    if (times === undefined) {
      times = new FirstBytes();
      this.#times.set(key, times);
    }
    return times;
  }
}

interface Lane {
  readonly replica: Replica;
  readonly abort: AbortController;
}

/** Requests of which one may answer. */
class Race {
  readonly opened: Promise<void>;
  readonly #open: () => void;
  readonly #parts: RaceParts;
  readonly #lanes: Lane[] = [];
  readonly #failed: Lane[] = [];
  #winner: Lane | null = null;

  constructor(parts: RaceParts) {
    this.#parts = parts;
    ({ promise: this.opened, resolve: this.#open } = Promise.withResolvers<void>());
  }

  async start(routed: Routed): Promise<Won> {
    const lane: Lane = { replica: routed.replica, abort: new AbortController() };
    this.#lanes.push(lane);
    try {
      const gate = { signal: lane.abort.signal, opens: () => this.#opens(lane) };
      return { result: await this.#parts.send(routed, gate), replica: lane.replica };
    } catch (error) {
      if (!lane.abort.signal.aborted) this.#failed.push(lane);
      throw error;
    }
  }

  /** Starts a second request. A replica that failed meanwhile is not used again until it says that it is ready. */
  async against(one: Promise<Won>, second: Routed): Promise<Won> {
    try {
      const won = await Promise.any([one, this.start(second)]);
      for (const { replica } of this.#failed) this.#parts.markNotReady(replica);
      return won;
    } catch (error) {
      throw error instanceof AggregateError ? error.errors[0] : error;
    }
  }

  #opens(lane: Lane): boolean {
    if (this.#winner !== null) return false;
    this.#winner = lane;
    const late = new PenstockError("upstream_failed", "Another replica was faster.");
    for (const other of this.#lanes) if (other !== lane) other.abort.abort(late);
    this.#open();
    return true;
  }
}

const isOver = () => false;

/** Whether neither the first byte nor the end of a request came in time; null is no bound. */
async function isSlow(request: Promise<unknown>, opened: Promise<void>, afterMs: number | null): Promise<boolean> {
  if (afterMs === null) return false;
  const over = new AbortController();
  try {
    return await Promise.race([
      request.then(isOver, isOver),
      opened.then(isOver),
      delay(afterMs, true, { signal: over.signal }),
    ]);
  } finally {
    over.abort();
  }
}

/** The latest times to first byte. */
class FirstBytes {
  readonly #times: number[] = [];
  #next = 0;
  #p95: number | null = null;

  /** Null until enough were measured. */
  get p95(): number | null {
    return this.#p95;
  }

  add(ms: number): void {
    this.#times[this.#next % maxTimes] = ms;
    this.#next += 1;
    // Sorting is worth more than a request, so it is not done for each.
    if (this.#next % minTimes !== 0) return;
    const sorted = this.#times.toSorted((a, b) => a - b);
    this.#p95 = sorted[Math.floor(0.95 * sorted.length)] ?? null;
  }
}
