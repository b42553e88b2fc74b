import { setTimeout as delay } from "node:timers/promises";
import type { Heartbeat } from "../../contracts/agent.ts";
import { toPenstockError } from "../../contracts/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { AgentClient } from "./agent-client.ts";
import { Breaker } from "./breaker.ts";
import { watchDirectory, type DirectoryOptions } from "./directory.ts";
import type { FleetSnapshots } from "./snapshots.ts";

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
  /** Known from a snapshot alone: the agent has not answered this gateway yet. */
  readonly stale: boolean;
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
  /** Known from a snapshot alone: the agent has not answered this gateway yet. */
  stale: boolean;
  readonly gone: AbortController;
}

/** Between two heartbeats of an agent; with a jitter, so that a thousand agents are not asked at once. */
const intervalMs = 1_000;
const jitterMs = 200;

/** Agents that are read or asked at once when a directory names many new ones. */
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
  readonly #snapshots: FleetSnapshots | undefined;
  readonly #agents = new Map<string, KnownAgent>();
  readonly #stopping = new AbortController();
  readonly #listeners = new Set<() => void>();

  constructor(
    fleets: readonly FleetOptions[],
    { token, log, snapshots }: { token: string; log: Logger; snapshots?: FleetSnapshots },
  ) {
    this.#fleets = fleets;
    this.#token = token;
    this.#log = log;
    this.#snapshots = snapshots;
  }

  get all(): readonly KnownAgent[] {
    return [...this.#agents.values()];
  }

  get views(): readonly AgentView[] {
    return this.all.map(({ url, fleet, last, reachable, stale }) => ({ url, fleet, last, reachable, stale }));
  }

  get(url: string): KnownAgent | undefined {
    return this.#agents.get(url);
  }

  /** Calls `listener` after each heartbeat that came or failed to come, and when agents come and go. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /**
   * Follows the directories. Resolves when every agent that a directory named at first was asked once, or is known from a
   * snapshot.
   */
  async start(): Promise<void> {
    this.#snapshots?.follow(() => this.all);
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
    this.#snapshots?.close();
    for (const agent of this.#agents.values()) agent.gone.abort();
  }

  /** Asks an agent for a heartbeat now. Never throws. */
  async beat(agent: KnownAgent): Promise<void> {
    try {
      const beat = await agent.client.heartbeat(agent.cacheRevision);
      if (!agent.reachable || agent.stale)
        this.#log.info({ agent: agent.url, state: beat.state }, "agent is reachable");
      if (beat.cache.entries !== null) agent.cached = cachedOf(beat);
      agent.cacheRevision = beat.cache.revision;
      agent.last = beat;
      agent.missed = 0;
      agent.reachable = true;
      agent.stale = false;
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
    await eachOf(fresh, (agent) => this.#restore(agent));
    this.#tell();
    const [unknown, stale] = [fresh.filter((agent) => !agent.stale), fresh.filter((agent) => agent.stale)];
    const ask = async (agent: KnownAgent): Promise<void> => {
      await this.beat(agent);
      void this.#beatForever(agent);
    };
    void eachOf(stale, ask);
    await eachOf(unknown, ask);
  }

  /** What an earlier gateway, or another one, knew of an agent holds until the agent itself says something. */
  async #restore(agent: KnownAgent): Promise<void> {
    const known = (await this.#snapshots?.read(agent.url, agent.fleet)) ?? null;
    if (known === null) return;
    agent.last = known.beat;
    agent.breaker.doubt(known.pausedMs);
    agent.reachable = true;
    agent.stale = true;
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
      stale: false,
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

/** A few at a time: a thousand answers at once would all be late. */
async function eachOf(agents: readonly KnownAgent[], work: (agent: KnownAgent) => Promise<void>): Promise<void> {
  const queue = agents.values();
  const next = async (): Promise<void> => {
    for (const agent of queue) await work(agent);
  };
  await Promise.all(Array.from({ length: Math.min(agents.length, askedAtOnce) }, next));
}

/** Whether `fetch` failed because nobody listens. It wraps the reason once or twice. */
function isRefused(cause: unknown): boolean {
  if (!(cause instanceof Error)) return false;
  return ("code" in cause && cause.code === "ECONNREFUSED") || isRefused(cause.cause);
}

function cachedOf({ cache }: Heartbeat): ReadonlyMap<string, number> {
  return new Map((cache.entries ?? []).flatMap(({ model_ids, size_bytes }) => model_ids.map((id) => [id, size_bytes])));
}
