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

  /** The best state and tier that a model has on any agent; REMOTE until an agent says otherwise. */
  stateOf(model: Deployment): { readonly state: ModelState; readonly tier: Tier } {
    const reports = this.#reports(model).map(({ report }) => report);
    const best = reports.toSorted((a, b) => closeness(b) - closeness(a))[0];
    if (best !== undefined) return { state: best.cache_state, tier: best.cache_level };
    const onDisk = this.#agentsOf(model).some(({ cached }) => cached.has(model.name));
    return { state: "UNLOADED", tier: onDisk ? "NVME_CACHED" : "REMOTE" };
  }

  /** Replicas that can take a request now. The same list until something changes. */
  replicas(model: Deployment): readonly Replica[] {
    const known = this.#replicas.get(model.name);
    if (known !== undefined && !known.some(({ agentUrl }) => this.#agents.get(agentUrl)?.breaker.isClosed === false)) {
      return known;
    }
    const replicas = this.#reports(model).flatMap(({ agent, report }) =>
      report.cache_state === "READY" &&
      agent.last?.state !== "DRAINING" &&
      agent.breaker.isClosed &&
      !this.#distrusted.has(report)
        ? [{ endpointUrl: report.inference_endpoint_url, agentUrl: agent.url, report }]
        : [],
    );
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
   * Takes a new configuration without a failed request: a model whose bytes or engine changed is warmed beside the old
   * version, which goes on serving until then; what is configured no more is taken down when its last request has ended.
   * Throws why a new version could not be loaded; the old one then stays.
   */
  async reload(models: readonly ServedModel[], aliases: Aliases): Promise<void> {
    const before = new Map(this.catalog.all.map((model) => [model.spec.id, model]));
    const fresh = models.map((served) => deploymentFor(served, before.get(served.spec.id)));
    for (const model of fresh) {
      const old = before.get(model.spec.id);
      if (old !== undefined && old.name !== model.name && this.replicas(old).length > 0) await this.load(model).done;
      this.catalog.set(model);
      if (old !== undefined && old.name !== model.name) void this.#retire(old);
    }
    this.catalog.aliases = aliases;
    for (const [id, old] of before) {
      if (fresh.some(({ spec }) => spec.id === id)) continue;
      this.catalog.delete(id);
      void this.#retire(old);
    }
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
