import { setTimeout as delay } from "node:timers/promises";
import type { ModelReport } from "../../contracts/agent.ts";
import { toPenstockError } from "../../contracts/errors.ts";
import type { ModelState, Tier } from "../../contracts/model.ts";
import type { Logger } from "../../lib/log.ts";
import type { Agents, AgentView, KnownAgent } from "../fleet/agents.ts";
import type { ServedModel } from "../options.ts";
import { Scheduler, type Load, type SchedulerOptions } from "../scheduling/scheduler.ts";
import { deploymentFor, type Aliases, type Catalog, type Deployment } from "./catalog.ts";

/** Where a request can be sent: an engine behind its agent. */
export interface Replica {
  /** Ends before the engine's path, such as `/v1/chat/completions`. */
  readonly endpointUrl: string;
  readonly agentUrl: string;
  readonly report: ModelReport;
}

/** Models of a changed config, ready to be served. */
export interface NextModels extends AsyncDisposable {
  use(): void;
}

/** Between two tries to take down a version that was replaced: its last requests may take minutes. */
const retirePauseMs = 2_000;
const retireTries = 450;

/** Where each model is. What agents say is the only truth about a model's state. */
export class ModelRegistry {
  readonly catalog: Catalog;
  readonly #agents: Agents;
  readonly #scheduler: Scheduler;
  readonly #log: Logger;
  readonly #stopping = new AbortController();
  /** By name of the deployment. */
  readonly #replicas = new Map<string, readonly Replica[]>();
  /** Reports that a refusal has overtaken: those of these heartbeats count no more. */
  readonly #distrusted = new WeakSet<ModelReport>();

  constructor(agents: Agents, options: SchedulerOptions) {
    this.catalog = options.catalog;
    this.#agents = agents;
    this.#log = options.log;
    this.#scheduler = new Scheduler(agents, options);
    agents.onChange(() => this.#replicas.clear());
  }

  get agents(): readonly AgentView[] {
    return this.#agents.views;
  }

  /**
   * The best state and tier that a model has on any agent; REMOTE until an agent says otherwise. `stale`: so it was for a
   * gateway before, and the agent has not answered this one yet.
   */
  stateOf(model: Deployment): { readonly state: ModelState; readonly tier: Tier; readonly stale: boolean } {
    const [best] = this.#reports(model).toSorted((a, b) => closeness(b.report) - closeness(a.report));
    if (best !== undefined) {
      return { state: best.report.cache_state, tier: best.report.cache_level, stale: best.agent.stale };
    }
    const onDisk = this.#agentsOf(model).some(({ cached }) => cached.has(model.name));
    return { state: "UNLOADED", tier: onDisk ? "NVME_CACHED" : "REMOTE", stale: false };
  }

  /** Replicas that can take a request now. The same list until something changes. */
  replicas(model: Deployment): readonly Replica[] {
    const known = this.#replicas.get(model.name);
    if (known !== undefined && !known.some(({ agentUrl }) => this.#agents.get(agentUrl)?.breaker.isClosed === false)) {
      return known;
    }
    const ready = this.#reports(model).flatMap(({ agent, report }) =>
      report.cache_state === "READY" &&
      agent.last?.state !== "DRAINING" &&
      agent.breaker.isClosed &&
      !this.#distrusted.has(report)
        ? [{ endpointUrl: report.inference_endpoint_url, agentUrl: agent.url, report }]
        : [],
    );
    const undoubted = ready.filter(({ agentUrl }) => this.#agents.get(agentUrl)?.breaker.isDoubted === false);
    const replicas = undoubted.length > 0 ? undoubted : ready;
    this.#replicas.set(model.name, replicas);
    return replicas;
  }

  /** A replica refused or broke: it is not used again until its agent says once more that it is ready. */
  markNotReady({ report, agentUrl }: Replica): void {
    this.#distrusted.add(report);
    this.#replicas.clear();
    this.#agents.get(agentUrl)?.breaker.failed();
  }

  /** A replica has answered. */
  markGood({ agentUrl }: Replica): void {
    this.#agents.get(agentUrl)?.breaker.succeeded();
  }

  /** Brings a model to READY somewhere. One load per model, however many ask. */
  load(model: Deployment): Load {
    return this.#scheduler.load(model);
  }

  /** Begins to load every model that shall be there before somebody asks. */
  warmUp(): void {
    for (const model of this.catalog.all) if (model.warm) void this.load(model);
  }

  /**
   * Makes a new configuration ready, so that it can be taken without a failed request: a model whose bytes or engine
   * changed is warmed beside the old version, which goes on serving until `use`. Then what is configured no more is taken
   * down when its last request has ended; without `use`, what was warmed. Throws why a new version could not be loaded.
   */
  async prepare(models: readonly ServedModel[], aliases: Aliases): Promise<NextModels> {
    const before = new Map(this.catalog.all.map((model) => [model.spec.id, model]));
    const fresh = models.map((served) => deploymentFor(served, before.get(served.spec.id)));
    const warmed: Deployment[] = [];
    const giveUp = (): void => warmed.forEach((model) => void this.#retire(model));
    for (const model of fresh) {
      const old = before.get(model.spec.id);
      if (old === undefined || old.name === model.name || this.replicas(old).length === 0) continue;
      // Another gateway may serve it already.
      if (this.replicas(model).length === 0) warmed.push(model);
      await this.load(model).done.catch((thrown: unknown) => {
        giveUp();
        throw thrown;
      });
    }
    let used = false;
    return {
      use: () => {
        used = true;
        this.#switch(fresh, aliases);
      },
      [Symbol.asyncDispose]: async () => {
        if (!used) giveUp();
      },
    };
  }

  #switch(fresh: readonly Deployment[], aliases: Aliases): void {
    const names = new Set(fresh.map(({ name }) => name));
    const ids = new Set(fresh.map(({ spec }) => spec.id));
    for (const old of this.catalog.all) {
      if (!ids.has(old.spec.id)) this.catalog.delete(old.spec.id);
      if (!names.has(old.name)) void this.#retire(old);
    }
    for (const model of fresh) this.catalog.set(model);
    this.catalog.aliases = aliases;
  }

  /** Ends loads under way. */
  stop(): void {
    this.#stopping.abort();
    this.#scheduler.stop();
  }

  async #retire(old: Deployment): Promise<void> {
    const { signal } = this.#stopping;
    for (let attempt = 0; attempt < retireTries && !signal.aborted; attempt += 1) {
      const loaded = this.#reports(old).filter(
        ({ report }) => report.cache_level !== "NVME_CACHED" && report.cache_level !== "REMOTE",
      );
      if (loaded.length === 0) return;
      for (const { agent } of loaded) {
        await agent.client.unload(old.name, "NVME_CACHED", signal).catch((thrown: unknown) => {
          this.#log.debug({ model: old.name, reason: toPenstockError(thrown).message }, "old version is still in use");
        });
        await this.#agents.beat(agent);
      }
      await delay(retirePauseMs, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  #agentsOf({ fleet }: Deployment): readonly KnownAgent[] {
    return this.#agents.all.filter((agent) => agent.reachable && agent.fleet === fleet);
  }

  #reports(model: Deployment): { readonly agent: KnownAgent; readonly report: ModelReport }[] {
    return this.#agentsOf(model).flatMap((agent) => {
      const report = agent.last?.models.find(({ model_id }) => model_id === model.name);
      return report === undefined ? [] : [{ agent, report }];
    });
  }
}

/** How near a model is to answering. */
function closeness({ cache_state, cache_level, progress }: ModelReport): number {
  if (cache_state === "READY") return 10;
  if (progress !== null) return 5;
  return ["REMOTE", "NVME_CACHED", "DRAM_CACHED", "GPU_RESIDENT"].indexOf(cache_level);
}
