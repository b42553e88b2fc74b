import type { ModelReport } from "../../contracts/agent.ts";
import { PenstockError } from "../../contracts/errors.ts";
import type { ModelState, Tier } from "../../contracts/model.ts";
import type { Logger } from "../../lib/log.ts";
import type { Agents, AgentView, KnownAgent } from "../fleet/agents.ts";
import type { ServedModel } from "../options.ts";
import { Scheduler, type Load } from "../scheduling/scheduler.ts";

/** Where a request can be sent: an engine behind its agent. */
export interface Replica {
  /** Ends before the engine's path, such as `/v1/chat/completions`. */
  readonly endpointUrl: string;
  readonly agentUrl: string;
  readonly report: ModelReport;
}

/** Models by name, and where each of them is. What agents say is the only truth about a model's state. */
export class ModelRegistry {
  readonly #agents: Agents;
  readonly #models: ReadonlyMap<string, ServedModel>;
  readonly #scheduler: Scheduler;
  /** Reports that a refusal has overtaken: those of these heartbeats count no more. */
  readonly #distrusted = new WeakSet<ModelReport>();

  constructor(agents: Agents, models: readonly ServedModel[], log: Logger) {
    this.#agents = agents;
    this.#models = new Map(models.map((served) => [served.spec.id, served]));
    this.#scheduler = new Scheduler(agents, { models: this.#models, log });
  }

  get agents(): readonly AgentView[] {
    return this.#agents.views;
  }

  get models(): readonly ServedModel[] {
    return [...this.#models.values()];
  }

  /** The model that a request names: `id`, or `id:adapter`. Throws `model_not_found` with the names that there are. */
  resolve(name: string): ServedModel {
    const [id = "", adapter] = name.split(":", 2);
    const served = this.#models.get(id);
    const found = served !== undefined && (adapter === undefined || hasAdapter(served, adapter));
    if (found) return served;
    const names = this.models.flatMap(modelNames);
    throw new PenstockError(
      "model_not_found",
      `There is no model \`${name}\` here. ${names.length === 0 ? "None is served." : `There is ${names.join(", ")}.`}`,
      { param: "model" },
    );
  }

  /** The best state and tier that a model has on any agent; REMOTE until an agent says otherwise. */
  stateOf(id: string): { readonly state: ModelState; readonly tier: Tier } {
    const reports = this.#reports(id).map(({ report }) => report);
    const best = reports.toSorted((a, b) => closeness(b) - closeness(a))[0];
    if (best !== undefined) return { state: best.cache_state, tier: best.cache_level };
    const onDisk = this.#agentsOf(id).some(({ cached }) => cached.has(id));
    return { state: "UNLOADED", tier: onDisk ? "NVME_CACHED" : "REMOTE" };
  }

  /** Replicas that can take a request now. */
  replicas(id: string): Replica[] {
    return this.#reports(id).flatMap(({ agent, report }) =>
      report.cache_state === "READY" &&
      agent.last?.state !== "DRAINING" &&
      agent.breaker.isClosed &&
      !this.#distrusted.has(report)
        ? [{ endpointUrl: report.inference_endpoint_url, agentUrl: agent.url, report }]
        : [],
    );
  }

  /** A replica refused or broke: it is not used again until its agent says once more that it is ready. */
  markNotReady({ report, agentUrl }: Replica): void {
    this.#distrusted.add(report);
    this.#agents.get(agentUrl)?.breaker.failed();
  }

  /** A replica has answered. */
  markGood({ agentUrl }: Replica): void {
    this.#agents.get(agentUrl)?.breaker.succeeded();
  }

  /** Brings a model to READY somewhere. One load per model, however many ask. */
  load(id: string): Load {
    const served = this.#models.get(id);
    if (served === undefined) throw new PenstockError("model_not_found", `There is no model \`${id}\` here.`);
    return this.#scheduler.load(served);
  }

  /** Ends loads under way. */
  stop(): void {
    this.#scheduler.stop();
  }

  #agentsOf(id: string): readonly KnownAgent[] {
    const fleet = this.#models.get(id)?.fleet;
    return this.#agents.all.filter((agent) => agent.reachable && agent.fleet === fleet);
  }

  #reports(id: string): { readonly agent: KnownAgent; readonly report: ModelReport }[] {
    return this.#agentsOf(id).flatMap((agent) => {
      const report = agent.last?.models.find(({ model_id }) => model_id === id);
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

/** Every name that clients may use for a model: its id, and `id:adapter` for each adapter. */
export function modelNames({ spec }: ServedModel): string[] {
  return [spec.id, ...spec.adapters.map(({ name }) => `${spec.id}:${name}`)];
}

function hasAdapter(served: ServedModel, adapter: string): boolean {
  return served.spec.adapters.some(({ name }) => name === adapter);
}
