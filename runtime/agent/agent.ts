import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { LoadModelRequest } from "../contracts/agent.ts";
import { toPenstockError } from "../contracts/errors.ts";
import type { ModelSpec } from "../contracts/model.ts";
import type { EngineGroup } from "../engines/engine.ts";
import type { Logger } from "../lib/log.ts";
import { Relay } from "../lib/relay.ts";
import { serve, type ListenAddress } from "../lib/serve.ts";
import { ModelCache, type ModelCacheOptions } from "./cache/cache.ts";
import { discoverGpus } from "./gpus/discover.ts";
import { GpuSampler } from "./gpus/sampler.ts";
import { GpuSlots } from "./gpus/slots.ts";
import { GpuToolError, type GpuTool } from "./gpus/tool.ts";
import { agentApp } from "./http/app.ts";
import { agentMetrics } from "./metrics.ts";
import { IdleTimer } from "./models/idle.ts";
import type { EngineCommands } from "./models/host.ts";
import { Lifecycle } from "./models/lifecycle.ts";
import type { Weights } from "./models/weights.ts";
import { Node } from "./node.ts";
import { reclaimNotices, type ReclaimSource } from "./reclaim/index.ts";
import { drainOnReclaim } from "./reclaim/drain.ts";
import type { SourceOptions } from "./sources/index.ts";
import { defaultHealth, type HealthOptions } from "./supervisor/health.ts";
import { EngineVersions } from "./supervisor/version.ts";

/** What an agent is made of. */
export interface AgentOptions {
  readonly agentId: string;
  readonly listen: ListenAddress;
  /** Bearer token that callers must send. */
  readonly token: string;
  /** Folder for model files. Made when it is not there. */
  readonly cacheDirectory: string;
  /** Folder for what engines write. Not shared with other agents. */
  readonly stateDirectory: string;
  /** Budget and times of the cache; without them the disk is the limit. */
  readonly cache?: Pick<ModelCacheOptions, "budgetBytes" | "reserveFreeBytes" | "ttlMs">;
  /** Models to fetch as soon as the node joins, in order, in the background. */
  readonly prefetch?: readonly ModelSpec[];
  /** Models to bring to READY at once, as if a gateway asked for them. */
  readonly serve?: readonly LoadModelRequest[];
  /** Credentials and mirrors of model stores. */
  readonly sources: SourceOptions;
  /** Environment of every engine; never the agent's own, which holds credentials. */
  readonly engineEnv: Readonly<Record<string, string>>;
  /** Cloud identity for engines that read a blob store themselves; no other engine gets it. */
  readonly streamEnv?: Readonly<Record<string, string>>;
  /** Programs in place of the engines' own. */
  readonly engineCommands?: EngineCommands;
  readonly engineLogLevel: string;
  /** How long a drain waits for requests that run. */
  readonly drainTimeoutMs: number;
  /** How long an engine may take to become ready. */
  readonly readyTimeoutMs?: number;
  /** How long an idle engine may take to stop before it is killed. */
  readonly stopTimeoutMs?: number;
  readonly health?: HealthOptions;
  readonly scrapeIntervalMs?: number;
  /** The program that lists GPUs, looked up in the engines' PATH. Default `nvidia-smi`. */
  readonly gpuCommand?: string;
  /** Where the cloud says that it takes this machine back. Default `none`. */
  readonly reclaim?: { readonly source: ReclaimSource; readonly metadataUrl?: string; readonly intervalMs?: number };
  /** This node's part in a replica over several nodes. */
  readonly group?: EngineGroup | null;
}

/** An agent that listens. */
export interface Agent {
  readonly url: string;
  /** Takes nothing new, lets requests end until the drain time-out, then stops the engines. */
  stop(): Promise<void>;
}

/** A 140 GB model read at 1 GB/s, compiled and captured (about 4 minutes, benchmarks of vLLM#19824), several times over. */
const defaultReadyTimeoutMs = 20 * 60_000;
const defaultStopTimeoutMs = 5_000;
const defaultScrapeIntervalMs = 1_000;

/** `nvidia-smi` takes 20 to 100 ms of a core; memory moves when a model does, and then the slots know first. */
const gpuSampleIntervalMs = 10_000;

/** Of `nvidia-smi`, which takes seconds when no process holds the driver awake. */
const gpuToolTimeoutMs = 15_000;

/** Builds and starts an agent. Throws `port_in_use`. */
export async function startAgent(options: AgentOptions, log: Logger): Promise<Agent> {
  await mkdir(options.cacheDirectory, { recursive: true });
  // What engines of an earlier run left; their processes ended with that agent.
  await rm(join(options.stateDirectory, "engines"), { recursive: true, force: true });
  await mkdir(join(options.stateDirectory, "compiled"), { recursive: true });
  await using stack = new AsyncDisposableStack();
  const cache = stack.use(await ModelCache.open(options.cacheDirectory, options.sources, options.cache));
  if (cache.foreign.length > 0) log.warn({ names: cache.foreign }, "files that are not the cache's are left alone");
  const tool = gpuToolOf(options);
  const { gpus, problem } = await findGpus(tool, log);
  const sampler =
    gpus.snapshot().length === 0 ? null : new GpuSampler({ slots: gpus, tool, intervalMs: gpuSampleIntervalMs, log });
  stack.defer(async () => sampler?.stop());
  // The address is known only once the port is taken, and models are asked for only after that.
  const address = { url: "" };
  const lifecycle = lifecycleOf(options, { cache, gpus, address, log });
  stack.use(new IdleTimer(lifecycle, log));
  const node = new Node({
    agentId: options.agentId,
    lifecycle,
    cache,
    cacheDirectory: options.cacheDirectory,
    cacheBudgetBytes: options.cache?.budgetBytes ?? null,
    gpus,
    gpuProblem: () => problem ?? sampler?.problem ?? null,
    drainTimeoutMs: options.drainTimeoutMs,
  });
  const relay = new Relay({ keepAlive: false });
  stack.defer(() => relay.close());
  const metrics = agentMetrics({ lifecycle, cache, gpus });
  const listening = await serve(agentApp({ node, relay, metrics, token: options.token, log }), options.listen);
  stack.defer(() => listening.close(1_000));
  address.url = listening.url;
  const ending = new AbortController();
  const work = background(options, { node, cache, log, signal: ending.signal });
  stack.defer(() => work);
  const running = stack.move();
  return {
    url: listening.url,
    async stop() {
      await node.drain("The agent is stopping.");
      ending.abort();
      await running.disposeAsync();
    },
  };
}

function gpuToolOf({ gpuCommand = "nvidia-smi", engineEnv }: AgentOptions): GpuTool {
  return { command: gpuCommand, env: engineEnv, timeoutMs: gpuToolTimeoutMs };
}

async function findGpus(tool: GpuTool, log: Logger): Promise<{ gpus: GpuSlots; problem: string | null }> {
  try {
    const { gpus, topologyProblem } = await discoverGpus(tool);
    if (topologyProblem !== null) log.warn({ topologyProblem }, "NVLinks are not known");
    if (gpus.length > 0) log.info({ gpus: gpus.map(({ index, name }) => `${index}: ${name}`) }, "GPUs of this node");
    return { gpus: new GpuSlots(gpus), problem: null };
  } catch (thrown) {
    if (!(thrown instanceof GpuToolError)) throw thrown;
    log.error({ problem: thrown.message }, "the GPUs of this node cannot be used");
    return { gpus: new GpuSlots([]), problem: thrown.message };
  }
}

function lifecycleOf(
  options: AgentOptions,
  about: { cache: ModelCache; gpus: GpuSlots; address: { readonly url: string }; log: Logger },
): Lifecycle {
  const { cache, gpus, address, log } = about;
  return new Lifecycle({
    weights: weightsOf(cache),
    gpus,
    versions: new EngineVersions(options.engineEnv),
    engineCommands: options.engineCommands ?? {},
    engineEnv: options.engineEnv,
    streamEnv: options.streamEnv ?? {},
    engineLogLevel: options.engineLogLevel,
    stateDirectory: options.stateDirectory,
    readyTimeoutMs: options.readyTimeoutMs ?? defaultReadyTimeoutMs,
    stopTimeoutMs: options.stopTimeoutMs ?? defaultStopTimeoutMs,
    health: options.health ?? defaultHealth,
    scrapeIntervalMs: options.scrapeIntervalMs ?? defaultScrapeIntervalMs,
    group: options.group ?? null,
    endpointUrl: (modelId) => `${address.url}/infer/${encodeURIComponent(modelId)}`,
    log,
  });
}

function weightsOf(cache: ModelCache): Weights {
  return {
    ensure: (spec, wanted) => cache.ensure(spec, wanted),
    has: (spec) => cache.has(spec),
    remove: (spec) => cache.remove(spec),
    setPinned: (spec, pinned) => (pinned ? cache.pin(spec) : cache.unpin(spec)),
  };
}

interface Background {
  readonly node: Node;
  readonly cache: ModelCache;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** What an agent does without being asked: models to serve, models to fetch, and notices of its cloud. */
async function background(options: AgentOptions, { node, cache, log, signal }: Background): Promise<void> {
  const { reclaim = { source: "none" } } = options;
  await Promise.all([
    ...(options.serve ?? []).map(async (request) => {
      // The lifecycle has logged why; a gateway that asks for the model tries again.
      await node.load(request, () => undefined).catch(() => undefined);
    }),
    prefetch(options.prefetch ?? [], { cache, log, signal }),
    drainOnReclaim(reclaimNotices(reclaim.source, { ...reclaim, log }), { node, log, signal }),
  ]).catch((thrown: unknown) => log.error({ err: toPenstockError(thrown).cause ?? thrown }, "background work failed"));
}

async function prefetch(specs: readonly ModelSpec[], { cache, log, signal }: Omit<Background, "node">): Promise<void> {
  const results = await cache.prefetch(specs, { signal });
  if (results.length > 0) log.info({ results }, "prefetch has ended");
}
