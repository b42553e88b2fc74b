import { setImmediate as breathe } from "node:timers/promises";
import { z } from "zod";
import { heartbeat, type EngineLoad, type Heartbeat, type ModelReport } from "../../contracts/agent.ts";
import type { Logger } from "../../lib/log.ts";
import type { Values } from "../stores/hot.ts";
import { longestPauseMs } from "./breaker.ts";

/** What is written down of an agent. */
export interface Observed {
  readonly url: string;
  readonly fleet: string;
  readonly last: Heartbeat | null;
  readonly reachable: boolean;
  /** `last` is itself from a snapshot. */
  readonly stale: boolean;
  readonly breaker: { readonly pausedMs: number };
}

/** What was known of an agent when it was written down. */
export interface Remembered {
  readonly beat: Heartbeat;
  /** How much longer its requests were to go elsewhere. */
  readonly pausedMs: number;
}

/** How often is written down what has changed. */
const intervalMs = 2_000;

/** What is older says nothing of the fleet of today. */
const maxAgeMs = 15 * 60_000;

/** What has not changed is written again by then, so that it does not grow old. */
const refreshMs = maxAgeMs / 3;

/** Clocks of gateways differ by seconds; what comes from further ahead is a lie. */
const maxSkewMs = 60_000;

/** An agent with a hundred models that serve; one that says more is not written down. */
const maxBytes = 64 * 1024;

/** Agents between two pauses, so that requests go on meanwhile. */
const atOnce = 32;

const entry = z.object({
  url: z.string(),
  fleet: z.string(),
  atMs: z.number(),
  pausedMs: z.number().min(0).max(longestPauseMs),
  beat: heartbeat,
});

/**
 * What gateways know of agents, in the hot store: one that starts routes by it at once, before an agent has answered.
 * Nothing in it is trusted: an agent refuses what it has not, and the first heartbeat replaces it.
 */
export class FleetSnapshots {
  readonly #values: Pick<Values, "get" | "remember">;
  readonly #log: Logger;
  /** By URL: what was written last, and when. */
  readonly #written = new Map<string, { readonly text: string; readonly atMs: number }>();
  #timer: NodeJS.Timeout | undefined;
  #saving: Promise<void> | undefined;

  constructor(values: Pick<Values, "get" | "remember">, log: Logger) {
    this.#values = values;
    this.#log = log;
  }

  /** Writes down what has changed, again and again, until `close`. */
  follow(agents: () => readonly Observed[]): void {
    this.#timer = setInterval(() => void this.save(agents()), intervalMs).unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Writes down what has changed since the last time, or waits for that to end. Never throws. */
  async save(agents: readonly Observed[]): Promise<void> {
    this.#saving ??= this.#writeAll(agents).finally(() => (this.#saving = undefined));
    await this.#saving;
  }

  /** What was written of an agent; null when nothing was, or nothing that can be used. Never throws. */
  async read(url: string, fleet: string): Promise<Remembered | null> {
    try {
      const bytes = await this.#values.get(keyOf(url));
      if (bytes === undefined || bytes.length > maxBytes) return null;
      const found = entry.parse(JSON.parse(bytes.toString("utf8")));
      const ageMs = Date.now() - found.atMs;
      if (found.url !== url || found.fleet !== fleet || ageMs < -maxSkewMs || ageMs > maxAgeMs) return null;
      return { beat: restored(found.beat, url), pausedMs: Math.max(0, found.pausedMs - Math.max(0, ageMs)) };
    } catch (error) {
      this.#log.warn({ agent: url, err: error }, "what is known of an agent cannot be read; it is asked");
      return null;
    }
  }

  async #writeAll(agents: readonly Observed[]): Promise<void> {
    const known = new Set(agents.map(({ url }) => url));
    for (const url of this.#written.keys()) if (!known.has(url)) this.#written.delete(url);
    let count = 0;
    for (const agent of agents) {
      count += 1;
      if (count % atOnce === 0) await breathe();
      await this.#write(agent).catch((error: unknown) => this.#log.debug({ err: error }, "snapshot is not written"));
    }
  }

  async #write({ url, fleet, last, reachable, stale, breaker }: Observed): Promise<void> {
    // Of one that is silent nothing new is known, and what was written grows old.
    if (last === null || !reachable || stale) return;
    const { pausedMs } = breaker;
    const atMs = Date.now();
    const beat = JSON.stringify(short(last));
    // How long the pause still is differs each time.
    const text = `${pausedMs > 0} ${beat}`;
    const before = this.#written.get(url);
    if (before?.text === text && atMs - before.atMs < refreshMs) return;
    const bytes = Buffer.from(`${JSON.stringify({ url, fleet, atMs, pausedMs }).slice(0, -1)},"beat":${beat}}`);
    if (bytes.length > maxBytes || !(await this.#values.remember(keyOf(url), bytes, maxAgeMs))) return;
    this.#written.set(url, { text, atMs });
  }
}

function keyOf(url: string): string {
  return `agent:${url}`;
}

/** A heartbeat without what changes each second, and without models that are not loaded. */
function short(beat: Heartbeat): Heartbeat {
  return {
    ...beat,
    // So that the first heartbeat tells what is on the disk.
    cache: { revision: "", entries: null },
    memory: { ...beat.memory, free_bytes: 0 },
    disk: { ...beat.disk, free_bytes: 0 },
    gpus: beat.gpus.map((gpu) => ({ ...gpu, memory_used_bytes: gpu.memory_reserved_bytes, utilization: null })),
    models: beat.models
      .filter(({ cache_state }) => cache_state === "READY" || cache_state === "SLEEPING")
      // Idle for no time: nothing is taken down for another model by what a snapshot says.
      .map((model) => ({ ...model, running: 0, idle_seconds: 0, progress: null, engine: sizeOf(model) })),
  };
}

/** What an engine is like, without what it does. */
function sizeOf({ engine }: ModelReport): EngineLoad | null {
  if (engine === null) return null;
  return { ...engine, running: null, waiting: null, kv_usage: null, kv_hit_rate: null };
}

/** The agent's own addresses again, whatever was written. */
function restored(beat: Heartbeat, url: string): Heartbeat {
  const models = beat.models.map((model) => ({
    ...model,
    inference_endpoint_url: `${url}/infer/${encodeURIComponent(model.model_id)}`,
  }));
  return { ...short(beat), models };
}
