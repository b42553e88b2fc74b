import { setTimeout as delay } from "node:timers/promises";
import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import type { AdapterSpec } from "../../contracts/model.ts";
import type { Logger } from "../../lib/log.ts";
import type { Agents } from "../fleet/agents.ts";
import type { Load } from "./scheduler.ts";

/** An adapter that an agent shall load into a model that serves there. */
export interface WantedAdapter {
  readonly agentUrl: string;
  /** Name of the deployment. */
  readonly model: string;
  readonly adapter: AdapterSpec;
}

/** An adapter that cannot be loaded is not fetched again for each request. */
const failureMs = 2_000;

/** Between two tries while all adapters of an engine are in use; the agent has waited by itself before it says so. */
const pauseMs = 1_000;

/** Has agents load adapters that they have not, or not any more: one load for each agent and adapter, however many ask. */
export class AdapterLoads {
  readonly #agents: Agents;
  readonly #log: Logger;
  readonly #maxMs: number;
  readonly #loads = new Map<string, Load>();
  readonly #stopping = new AbortController();

  /** `maxMs`: as long as the first request that waits for a load may be held. */
  constructor(agents: Agents, { maxMs, log }: { readonly maxMs: number; readonly log: Logger }) {
    this.#agents = agents;
    this.#maxMs = maxMs;
    this.#log = log;
  }

  /** Starts a load, or joins the one under way. Its `done` rejects with the agent's reason. */
  load(wanted: WantedAdapter): Load {
    const key = JSON.stringify([wanted.agentUrl, wanted.model, wanted.adapter]);
    const known = this.#loads.get(key);
    if (known !== undefined) return known;
    const done = this.#run(wanted);
    const load: Load = { done, progress: null, estimateSeconds: null };
    this.#loads.set(key, load);
    done.then(
      () => this.#loads.delete(key),
      (thrown: unknown) => {
        const pause = toPenstockError(thrown).kind.retryable ? 0 : failureMs;
        setTimeout(() => this.#loads.delete(key), pause).unref();
      },
    );
    return load;
  }

  /** Ends loads under way. */
  stop(): void {
    this.#stopping.abort(new PenstockError("draining", "The gateway is stopping."));
  }

  async #run({ agentUrl, model, adapter }: WantedAdapter): Promise<void> {
    const agent = this.#agents.get(agentUrl);
    if (agent === undefined) throw new PenstockError("no_replica", "The agent has left; try again.");
    const expiry = AbortSignal.timeout(this.#maxMs);
    const signal = AbortSignal.any([this.#stopping.signal, expiry, agent.gone.signal]);
    this.#log.info({ model, adapter: adapter.name, agent: agentUrl }, "loading adapter");
    try {
      while (!(await agent.client.loadAdapter({ model_id: model, adapter }, signal))) {
        await delay(pauseMs, undefined, { signal });
      }
    } catch (thrown) {
      if (expiry.aborted) throw expired(model, adapter);
      const error = toPenstockError(thrown);
      this.#log.warn({ model, adapter: adapter.name, agent: agentUrl, reason: error.message }, "adapter is not loaded");
      throw error;
    }
    // So that requests are routed by what is there now.
    await this.#agents.beat(agent);
  }
}

function expired(model: string, { name }: AdapterSpec): PenstockError {
  return new PenstockError("hold_expired", `${model}:${name} has not been loaded in time; try again later.`, {
    retryAfterSeconds: 5,
  });
}
