import { setTimeout as delay } from "node:timers/promises";
import type { Heartbeat, LoadProgress, ModelReport } from "../../contracts/agent.ts";
import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import type { ModelState, Tier } from "../../contracts/model.ts";
import type { Logger } from "../../lib/log.ts";
import type { GatewayOptions, ServedModel } from "../options.ts";
import { AgentClient } from "./agent-client.ts";

/** Where a request can be sent: an engine behind its agent. */
export interface Replica {
  /** Ends before the engine's path, such as `/v1/chat/completions`. */
  readonly endpointUrl: string;
  readonly agentUrl: string;
}

/** An agent as the gateway last saw it. */
export interface AgentView {
  readonly url: string;
  readonly last: Heartbeat | null;
  readonly reachable: boolean;
}

/** A load under way. */
export interface Load {
  readonly done: Promise<void>;
  readonly progress: LoadProgress | null;
}

interface KnownAgent {
  readonly client: AgentClient;
  last: Heartbeat | null;
  reachable: boolean;
}

interface KnownModel {
  readonly served: ServedModel;
  /** What a load or a heartbeat said last; null while no agent has ever seen the model. */
  report: ModelReport | null;
  agentUrl: string | null;
  load: { done: Promise<void>; progress: LoadProgress | null } | null;
}

/** Time between two heartbeats of an agent. */
const heartbeatIntervalMs = 1_000;

/** Which model is where. Agents are asked; what they say is the only truth about a model's state. */
export class ModelRegistry {
  readonly #agents: readonly KnownAgent[];
  readonly #models: ReadonlyMap<string, KnownModel>;
  readonly #log: Logger;
  readonly #stopping = new AbortController();

  constructor(options: Pick<GatewayOptions, "agents" | "agentToken" | "models">, log: Logger) {
    this.#log = log;
    this.#agents = options.agents.map((url) => ({
      client: new AgentClient(url, options.agentToken),
      last: null,
      reachable: false,
    }));
    this.#models = new Map(
      options.models.map((served) => [served.spec.id, { served, report: null, agentUrl: null, load: null }]),
    );
  }

  get agents(): readonly AgentView[] {
    return this.#agents.map(({ client, last, reachable }) => ({ url: client.url, last, reachable }));
  }

  get models(): readonly ServedModel[] {
    return [...this.#models.values()].map(({ served }) => served);
  }

  /** The model that a request names: `id`, or `id:adapter`. Throws `model_not_found` with the names that there are. */
  resolve(name: string): ServedModel {
    const [id = "", adapter] = name.split(":", 2);
    const served = this.#models.get(id)?.served;
    const found = served !== undefined && (adapter === undefined || hasAdapter(served, adapter));
    if (found) return served;
    const names = this.models.flatMap(modelNames);
    throw new PenstockError(
      "model_not_found",
      `There is no model \`${name}\` here. ${names.length === 0 ? "None is served." : `There is ${names.join(", ")}.`}`,
      { param: "model" },
    );
  }

  /** State and tier of a model; REMOTE until an agent says otherwise. */
  stateOf(id: string): { readonly state: ModelState; readonly tier: Tier } {
    const report = this.#models.get(id)?.report;
    return { state: report?.cache_state ?? "UNLOADED", tier: report?.cache_level ?? "REMOTE" };
  }

  /** A replica that can take a request now, or undefined. */
  ready(id: string): Replica | undefined {
    const known = this.#models.get(id);
    if (known === undefined || known.agentUrl === null || known.report?.cache_state !== "READY") return undefined;
    return { endpointUrl: known.report.inference_endpoint_url, agentUrl: known.agentUrl };
  }

  /** A replica refused or broke: it is not used again until its agent says that it is ready. */
  markNotReady(id: string): void {
    const known = this.#models.get(id);
    if (known !== undefined && known.report !== null) known.report = { ...known.report, cache_state: "UNLOADED" };
  }

  /** Brings a model to READY somewhere. One load per model, however many ask. */
  load(id: string): Load {
    const known = this.#models.get(id);
    if (known === undefined) throw new PenstockError("model_not_found", `There is no model \`${id}\` here.`);
    if (known.load === null) {
      const load: KnownModel["load"] = { done: Promise.resolve(), progress: null };
      known.load = load;
      load.done = this.#load(known).finally(() => (known.load = null));
      // Whoever waits gets the error; a load that nobody waits for any more must not end the process.
      load.done.catch(() => undefined);
    }
    return known.load;
  }

  /** Asks every agent for a heartbeat, again and again, until `stop`. Resolves after the first round. */
  async start(): Promise<void> {
    await Promise.all(this.#agents.map((agent) => this.#beat(agent)));
    for (const agent of this.#agents) void this.#beatForever(agent);
  }

  stop(): void {
    this.#stopping.abort(new PenstockError("draining", "The gateway is stopping."));
  }

  async #load(known: KnownModel): Promise<void> {
    const agent = this.#agents.find(({ reachable, last }) => reachable && last?.state !== "DRAINING");
    if (agent === undefined) {
      throw new PenstockError("no_replica", "No agent can be reached; try again later.", { retryAfterSeconds: 5 });
    }
    const { spec, engine } = known.served;
    this.#log.info({ model: spec.id, agent: agent.client.url }, "loading model");
    const result = await agent.client.load(
      { model_id: spec.id, model: spec, engine, stream: true },
      {
        signal: this.#stopping.signal,
        onProgress: (progress) => {
          if (known.load !== null) known.load.progress = progress;
        },
      },
    );
    known.agentUrl = agent.client.url;
    known.report = {
      ...(known.report ?? emptyReport(spec.id)),
      cache_state: result.cache_state,
      cache_level: "GPU_RESIDENT",
      inference_endpoint_url: result.inference_endpoint_url,
    };
    await this.#beat(agent);
  }

  async #beatForever(agent: KnownAgent): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await delay(heartbeatIntervalMs, undefined, { signal }).catch(() => undefined);
      if (!signal.aborted) await this.#beat(agent);
    }
  }

  async #beat(agent: KnownAgent): Promise<void> {
    try {
      const beat = await agent.client.heartbeat();
      if (!agent.reachable) this.#log.info({ agent: agent.client.url, state: beat.state }, "agent is reachable");
      agent.last = beat;
      agent.reachable = true;
      this.#apply(agent, beat);
    } catch (thrown) {
      if (agent.reachable) this.#log.warn({ agent: agent.client.url, err: toPenstockError(thrown) }, "agent is silent");
      agent.reachable = false;
      for (const [id, known] of this.#models) if (known.agentUrl === agent.client.url) this.markNotReady(id);
    }
  }

  #apply(agent: KnownAgent, beat: Heartbeat): void {
    for (const report of beat.models) {
      const known = this.#models.get(report.model_id);
      if (known === undefined) continue;
      known.report = report;
      known.agentUrl = agent.client.url;
    }
  }
}

/** Every name that clients may use for a model: its id, and `id:adapter` for each adapter. */
export function modelNames({ spec }: ServedModel): string[] {
  return [spec.id, ...spec.adapters.map(({ name }) => `${spec.id}:${name}`)];
}

function hasAdapter(served: ServedModel, adapter: string): boolean {
  return served.spec.adapters.some(({ name }) => name === adapter);
}

function emptyReport(id: string): ModelReport {
  return {
    model_id: id,
    cache_state: "UNLOADED",
    cache_level: "REMOTE",
    reason: null,
    inference_endpoint_url: "",
    running: 0,
    idle_seconds: 0,
    size_bytes: 0,
    adapters: [],
    engine: null,
    progress: null,
    measured_ms: { download: null, load: null, sleep: null, wake: null, unload: null },
  };
}
