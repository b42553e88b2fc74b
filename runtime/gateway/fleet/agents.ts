import { setTimeout as delay } from "node:timers/promises";
import type { Heartbeat } from "../../contracts/agent.ts";
import { toPenstockError } from "../../contracts/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { AgentClient } from "./agent-client.ts";
import { Breaker } from "./breaker.ts";
import { watchDirectory, type DirectoryOptions } from "./directory.ts";

/** Agents that serve the same models. */
export interface FleetOptions {
  readonly name: string;
  readonly agents: DirectoryOptions;
}

/** An agent as the gateway last saw it. */
export interface AgentView {
  readonly url: string;
  readonly fleet: string;
  readonly last: Heartbeat | null;
  readonly reachable: boolean;
}

/** An agent that the gateway keeps in touch with. */
export interface KnownAgent {
  readonly url: string;
  readonly fleet: string;
  readonly client: AgentClient;
  readonly breaker: Breaker;
  last: Heartbeat | null;
  /** Bytes of models on its disk, by id; as of the last list that it sent. */
  cached: ReadonlyMap<string, number>;
  cacheRevision: string | undefined;
  /** Heartbeats in a row that did not come. */
  missed: number;
  reachable: boolean;
  readonly gone: AbortController;
}

/** Between two heartbeats of an agent; with a jitter, so that a thousand agents are not asked at once. */
const intervalMs = 1_000;
const jitterMs = 200;

/** Agents that are asked at once when a directory names many new ones. */
const askedAtOnce = 32;

/** Heartbeats that may be missing in a row: one is lost when a node is busy for a moment. */
const missesAllowed = 2;

/** What the gateway waits at its start for agents to answer. */
const firstRoundMs = 5_000;

/** All agents of all fleets, as they come and go, and their heartbeats. */
export class Agents {
  readonly #fleets: readonly FleetOptions[];
  readonly #token: string;
  readonly #log: Logger;
  readonly #agents = new Map<string, KnownAgent>();
  readonly #stopping = new AbortController();
  readonly #listeners = new Set<() => void>();

  constructor(fleets: readonly FleetOptions[], { token, log }: { token: string; log: Logger }) {
    this.#fleets = fleets;
    this.#token = token;
    this.#log = log;
  }

  get all(): readonly KnownAgent[] {
    return [...this.#agents.values()];
  }

  get views(): readonly AgentView[] {
    return this.all.map(({ url, fleet, last, reachable }) => ({ url, fleet, last, reachable }));
  }

  get(url: string): KnownAgent | undefined {
    return this.#agents.get(url);
  }

  /** Calls `listener` after each heartbeat that came or failed to come, and when agents come and go. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Follows the directories. Resolves when every agent that a directory named at first was asked once. */
  async start(): Promise<void> {
    await Promise.all(
      this.#fleets.map(async ({ name, agents }) => {
        const first = Promise.withResolvers<void>();
        const { signal } = this.#stopping;
        const onChange = (urls: readonly string[]): void => first.resolve(this.#set(name, urls));
        void watchDirectory(agents, { onChange, signal, log: this.#log });
        // A directory that is down must not keep the gateway from starting.
        await Promise.race([
          first.promise,
          delay(firstRoundMs, undefined, { signal, ref: false }).catch(() => undefined),
        ]);
      }),
    );
  }

  stop(): void {
    this.#stopping.abort();
    for (const agent of this.#agents.values()) agent.gone.abort();
  }

  /** Asks an agent for a heartbeat now. Never throws. */
  async beat(agent: KnownAgent): Promise<void> {
    try {
      const beat = await agent.client.heartbeat(agent.cacheRevision);
      if (!agent.reachable) this.#log.info({ agent: agent.url, state: beat.state }, "agent is reachable");
      if (beat.cache.entries !== null) agent.cached = cachedOf(beat);
      agent.cacheRevision = beat.cache.revision;
      agent.last = beat;
      agent.missed = 0;
      agent.reachable = true;
    } catch (thrown) {
      this.#miss(agent, thrown);
    }
    this.#tell();
  }

  #miss(agent: KnownAgent, thrown: unknown): void {
    agent.missed += 1;
    const error = toPenstockError(thrown);
    // Nobody listens there any more: waiting for more proof only costs requests.
    const refused = isRefused(error.cause);
    if (!agent.reachable || (agent.missed <= missesAllowed && !refused)) return;
    agent.reachable = false;
    this.#log.warn({ agent: agent.url, missed: agent.missed, reason: error.message }, "agent is silent");
  }

  async #set(fleet: string, urls: readonly string[]): Promise<void> {
    const wanted = new Set(urls);
    for (const agent of this.all) {
      if (agent.fleet !== fleet || wanted.has(agent.url)) continue;
      this.#log.info({ agent: agent.url, fleet }, "agent has left");
      agent.gone.abort();
      this.#agents.delete(agent.url);
    }
    const fresh = [...wanted].filter((url) => !this.#agents.has(url)).map((url) => this.#add(fleet, url));
    // A few at a time: a thousand answers at once would all be late.
    const queue = fresh.values();
    const ask = async (): Promise<void> => {
      for (const agent of queue) await this.beat(agent);
    };
    await Promise.all(Array.from({ length: Math.min(fresh.length, askedAtOnce) }, ask));
    for (const agent of fresh) void this.#beatForever(agent);
    this.#tell();
  }

  #add(fleet: string, url: string): KnownAgent {
    const agent: KnownAgent = {
      url,
      fleet,
      client: new AgentClient(url, this.#token),
      breaker: new Breaker(),
      last: null,
      cached: new Map(),
      cacheRevision: undefined,
      missed: 0,
      reachable: false,
      gone: new AbortController(),
    };
    this.#agents.set(url, agent);
    return agent;
  }

  async #beatForever(agent: KnownAgent): Promise<void> {
    const { signal } = agent.gone;
    while (!signal.aborted && !this.#stopping.signal.aborted) {
      const waitMs = intervalMs + (Math.random() - 0.5) * jitterMs;
      await delay(waitMs, undefined, { signal, ref: false }).catch(() => undefined);
      if (!signal.aborted) await this.beat(agent);
    }
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** Whether `fetch` failed because nobody listens. It wraps the reason once or twice. */
function isRefused(cause: unknown): boolean {
  if (!(cause instanceof Error)) return false;
  return ("code" in cause && cause.code === "ECONNREFUSED") || isRefused(cause.cause);
}

function cachedOf({ cache }: Heartbeat): ReadonlyMap<string, number> {
  return new Map((cache.entries ?? []).flatMap(({ model_ids, size_bytes }) => model_ids.map((id) => [id, size_bytes])));
}
