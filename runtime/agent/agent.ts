import { mkdir } from "node:fs/promises";
import type { Logger } from "../lib/log.ts";
import { Relay } from "../lib/relay.ts";
import { serve, type ListenAddress } from "../lib/serve.ts";
import { ModelCache } from "./cache/cache.ts";
import { agentApp } from "./http/app.ts";
import { Lifecycle } from "./lifecycle.ts";
import { agentMetrics } from "./metrics.ts";
import { Node } from "./node.ts";
import type { SourceOptions } from "./sources/index.ts";

/** What an agent is made of. */
export interface AgentOptions {
  readonly agentId: string;
  readonly listen: ListenAddress;
  /** Bearer token that callers must send. */
  readonly token: string;
  /** Folder for model files. Made when it is not there. */
  readonly cacheDirectory: string;
  /** Credentials and mirrors of model stores. */
  readonly sources: SourceOptions;
  /** Environment of every engine; never the agent's own, which holds credentials. */
  readonly engineEnv: Readonly<Record<string, string>>;
  readonly engineLogLevel: string;
  /** How long a drain waits for requests that run. */
  readonly drainTimeoutMs: number;
}

/** An agent that listens. */
export interface Agent {
  readonly url: string;
  /** Takes nothing new, lets requests end until the drain time-out, then stops the engines. */
  stop(): Promise<void>;
}

/** How long an engine may take to become ready: a 70 GB file read at 1 GB/s, several times over. */
const readyTimeoutMs = 10 * 60_000;

/** How long an idle engine may take to stop before it is killed. */
const stopTimeoutMs = 5_000;

/** Builds and starts an agent. Throws `port_in_use`. */
export async function startAgent(options: AgentOptions, log: Logger): Promise<Agent> {
  await mkdir(options.cacheDirectory, { recursive: true });
  // The address is known only once the port is taken, and models are asked for only after that.
  const address = { url: "" };
  const lifecycle = new Lifecycle({
    weights: await ModelCache.open(options.cacheDirectory, options.sources),
    engineEnv: options.engineEnv,
    engineLogLevel: options.engineLogLevel,
    readyTimeoutMs,
    stopTimeoutMs,
    endpointUrl: (modelId) => `${address.url}/infer/${encodeURIComponent(modelId)}`,
    log,
  });
  const node = new Node({
    agentId: options.agentId,
    lifecycle,
    cacheDirectory: options.cacheDirectory,
    drainTimeoutMs: options.drainTimeoutMs,
  });
  const relay = new Relay({ keepAlive: false });
  const metrics = agentMetrics(lifecycle);
  const listening = await serve(agentApp({ node, relay, metrics, token: options.token, log }), options.listen);
  address.url = listening.url;
  return {
    url: listening.url,
    async stop() {
      await node.drain();
      await lifecycle.stop();
      await listening.close(1_000);
      await relay.close();
    },
  };
}
