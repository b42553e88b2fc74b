import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { LoadProgress } from "../../contracts/agent.ts";
import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import { engineOf } from "../../engines/index.ts";
import type { Logger } from "../../lib/log.ts";
import type { Agents, KnownAgent } from "../fleet/agents.ts";
import type { Catalog, Deployment } from "../registry/catalog.ts";
import type { Leases } from "../stores/hot.ts";
import { place, type AgentSnapshot, type Placement, type Residency } from "./place.ts";

/** A load under way. */
export interface Load {
  readonly done: Promise<void>;
  readonly progress: LoadProgress | null;
  /** Seconds until it is done, as estimated when it began; null before an agent was chosen. */
  readonly estimateSeconds: number | null;
}

type OpenLoad = { -readonly [Field in keyof Load]: Load[Field] };

/** What a scheduler needs to know of the models. */
export interface SchedulerOptions {
  readonly catalog: Catalog;
  /** Shared by all gateways, so that only one of them loads a model at a time. */
  readonly leases: Leases;
  readonly log: Logger;
}

/** Refusals of one agent that another may not share. */
const elsewhere: ReadonlySet<string> = new Set([
  "insufficient_gpu_memory",
  "insufficient_memory",
  "draining",
  "upstream_failed",
  "model_in_use",
  "cache_full",
  "disk_full",
]);

/** Agents that are tried for one load. */
const maxAttempts = 4;

/** So that two models that share a GPU do not take turns with every request. */
const minIdleSeconds = 30;

/** A gateway that died in the middle of a load holds others up for so long, at most. */
const leaseMs = 15_000;

/** Between two looks at what another gateway's load does. */
const lookMs = 200;

/** Taking a model down waits for its engine to stop. */
const unloadTimeoutMs = 60_000;

/** Brings models to READY: chooses an agent, makes room there, and loads. One load per model, however many ask. */
export class Scheduler {
  readonly #agents: Agents;
  readonly #options: SchedulerOptions;
  readonly #loads = new Map<string, Load>();
  readonly #stopping = new AbortController();
  readonly #holder = randomUUID();

  constructor(agents: Agents, options: SchedulerOptions) {
    this.#agents = agents;
    this.#options = options;
  }

  /** Starts a load, or joins the one under way. Its `done` rejects with the reason why no agent could take the model. */
  load(served: Deployment): Load {
    const { name: id } = served;
    const known = this.#loads.get(id);
    if (known !== undefined) return known;
    const load: OpenLoad = { done: Promise.resolve(), progress: null, estimateSeconds: null };
    this.#loads.set(id, load);
    load.done = this.#inTurn(served, load).finally(() => this.#loads.delete(id));
    // Whoever waits gets the error; a load that nobody waits for any more must not end the process.
    load.done.catch(() => undefined);
    return load;
  }

  /** Ends loads under way. */
  stop(): void {
    this.#stopping.abort(new PenstockError("draining", "The gateway is stopping."));
  }

  /** Loads under a lease; while another gateway has it, waits for what that one does. */
  async #inTurn(served: Deployment, load: OpenLoad): Promise<void> {
    const { leases } = this.#options;
    const key = `load:${served.name}`;
    const { signal } = this.#stopping;
    let waited = false;
    while (!(await leases.acquire(key, this.#holder, leaseMs)).held) {
      waited = true;
      await delay(lookMs, undefined, { signal });
      if (this.#follow(served, load)) return;
    }
    const renewal = setInterval(
      () => void leases.acquire(key, this.#holder, leaseMs).catch(() => undefined),
      leaseMs / 3,
    );
    try {
      // The one before may have been done just now, which heartbeats of a second ago do not know.
      if (waited) await Promise.all(this.#agentsFor(served).map((agent) => this.#agents.beat(agent)));
      if (!waited || !this.#follow(served, load)) await this.#bringUp(served, load);
    } finally {
      clearInterval(renewal);
      await leases.release(key, this.#holder).catch(() => undefined);
    }
  }

  /** Takes over what heartbeats say of a load that another gateway started. Answers whether the model is READY. */
  #follow(served: Deployment, load: OpenLoad): boolean {
    const reports = this.#agentsFor(served).flatMap(
      ({ last }) => last?.models.filter(({ model_id }) => model_id === served.name) ?? [],
    );
    load.progress = reports.find(({ progress }) => progress !== null)?.progress ?? load.progress;
    return reports.some(({ cache_state }) => cache_state === "READY");
  }

  async #bringUp(served: Deployment, load: OpenLoad): Promise<void> {
    const except = new Set<string>();
    for (let attempt = 1; ; attempt += 1) {
      const { agent, placement } = this.#choose(served, except);
      load.estimateSeconds = placement.secondsToReady;
      this.#options.log.info({ model: served.name, agent: agent.url, why: placement.why }, "loading model");
      try {
        await this.#makeRoom(agent, placement);
        await agent.client.load(requestOf(served), {
          signal: this.#stopping.signal,
          onProgress: (progress) => (load.progress = progress),
        });
        await this.#agents.beat(agent);
        return;
      } catch (thrown) {
        const error = toPenstockError(thrown);
        if (!elsewhere.has(error.code) || attempt === maxAttempts) throw error;
        this.#options.log.warn({ model: served.name, agent: agent.url, reason: error.message }, "agent refused");
        except.add(agent.url);
        // The last word is an agent's own reason, which says more than that none is left.
        if (this.#agentsFor(served).every(({ url }) => except.has(url))) throw error;
      }
    }
  }

  #choose(served: Deployment, except: ReadonlySet<string>): { agent: KnownAgent; placement: Placement } {
    const { name, engine } = served;
    const described = engineOf(engine);
    const agents = this.#agentsFor(served);
    const snapshots = agents.flatMap(({ url, last, cached }): AgentSnapshot[] =>
      last === null ? [] : [{ url, beat: last, cached }],
    );
    if (snapshots.length === 0) {
      throw new PenstockError("no_replica", "No agent can be reached; try again later.", { retryAfterSeconds: 5 });
    }
    const sizes = snapshots.flatMap(({ cached }) => cached.get(name) ?? []);
    const wanted = {
      id: name,
      need: described.gpus(engine, Math.max(0, ...sizes)),
      cpu: described.capabilities.cpu,
      except,
    };
    const { placement, refusal } = place(wanted, snapshots, this.#residency());
    const agent = agents.find(({ url }) => url === placement?.agentUrl);
    if (placement !== null && agent !== undefined) return { agent, placement };
    throw new PenstockError("no_replica", `${served.spec.id} cannot be loaded now: ${refusal}.`, {
      retryAfterSeconds: minIdleSeconds,
    });
  }

  #agentsFor({ fleet }: Deployment): KnownAgent[] {
    return this.#agents.all.filter((agent) => agent.reachable && agent.fleet === fleet);
  }

  async #makeRoom(agent: KnownAgent, { evictions }: Placement): Promise<void> {
    for (const { modelId, to } of evictions) {
      this.#options.log.info({ model: modelId, agent: agent.url, to }, "evicting model");
      const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(unloadTimeoutMs)]);
      await agent.client.unload(modelId, to, signal);
    }
  }

  #residency(): Residency {
    const { all } = this.#options.catalog;
    return {
      minIdleSeconds,
      pinned: new Set(all.filter(({ pinned }) => pinned === true).map(({ name }) => name)),
      asleepBytes: (modelId) => {
        const served = all.find(({ name }) => name === modelId);
        // A model of another gateway: nothing is known of how it sleeps.
        if (served === undefined) return null;
        const described = engineOf(served.engine);
        if (described.sleep(served.engine, modelId) === null) return null;
        return described.gpus(served.engine, 0)?.asleepBytes ?? null;
      },
    };
  }
}

function requestOf({ name, spec, engine, idle, pinned }: Deployment) {
  return {
    model_id: name,
    model: { ...spec, id: name },
    engine,
    stream: true,
    ...(idle === undefined ? {} : { idle }),
    ...(pinned === undefined ? {} : { pinned }),
  };
}
