import type { SpecOf } from "../contracts/engine.ts";
import { PenstockError } from "../contracts/errors.ts";
import type { Command, EngineGroup, EngineLaunch, EnginePlace, Version } from "./engine.ts";
import { atLeast, gpuEnvironment, logLevelIn, offlineEnvironment } from "./shared.ts";

type Spec = SpecOf<"vllm">;

/** Flags that older versions do not know, with the first that does (vllm#30011, vllm#36666). */
const since = {
  "--disable-access-log-for-endpoints": [0, 16, 0],
  "--shutdown-timeout": [0, 18, 0],
} as const satisfies Record<string, Version>;

/** Seconds that vLLM finishes requests after SIGTERM. The agent has drained it before; this is for what slipped in. */
const shutdownSeconds = 20;

/** Where Ray's head listens, on the leader's own address: the nodes of a group must reach it. */
const rayPort = 6379;

/**
 * Spec and place -> `vllm serve`. Over several nodes (a LeaderWorkerSet) the leader starts a Ray cluster first and serves;
 * its workers only join that cluster and hold their GPUs, and are ready when the leader is. vLLM waits for them.
 * Ray's daemons outlive the engine process, so `ray stop` comes first on every start.
 * Throws `invalid_config` when `spec.nodes` and the group do not match.
 */
export function vllmLaunch(spec: Spec, place: EnginePlace): EngineLaunch {
  const { group } = place;
  if ((group?.size ?? 1) !== spec.nodes) {
    throw new PenstockError(
      "invalid_config",
      `The engine wants ${spec.nodes} nodes, but this agent's group has ${group?.size ?? 1}: make them equal.`,
      { param: "engine.nodes" },
    );
  }
  const isWorker = group !== null && group.index > 0;
  const health = isWorker ? null : ({ method: "GET", path: "/health" } as const);
  return {
    prelude: group === null ? [] : preludeOf(spec, group),
    command: isWorker ? [...rayStart(spec, group), "--block"] : serveCommand(spec, place),
    env: environmentOf(spec, place),
    files: {},
    ready: health,
    health,
    afterReady: [],
    lifeline: "wrapper",
  };
}

function preludeOf(spec: Spec, group: EngineGroup): Command[] {
  const clean: Command = ["ray", "stop", "--force"];
  return group.index === 0 ? [clean, rayStart(spec, group)] : [clean];
}

function rayStart(spec: Spec, group: EngineGroup): Command {
  const place = group.index === 0 ? ["--head", `--port=${rayPort}`] : [`--address=${group.leaderAddress}:${rayPort}`];
  const gpus = (spec.tensorParallel * spec.pipelineParallel) / spec.nodes;
  return ["ray", "start", ...place, `--num-gpus=${gpus}`, "--include-dashboard=false", "--disable-usage-stats"];
}

function serveCommand(spec: Spec, place: EnginePlace): Command {
  const flags = {
    ...placeFlags(place),
    ...parallelFlags(spec, place.group),
    ...memoryFlags(spec),
    ...modelFlags(spec),
    ...featureFlags(spec),
    ...endFlags(place.version),
  };
  return [
    ...place.command,
    "serve",
    pathFor(place.modelPath),
    ...Object.entries(flags).flat(),
    ...switchesOf(spec),
    ...adapterFlags(spec, place),
  ];
}

function placeFlags(place: EnginePlace): Record<string, string> {
  return {
    "--served-model-name": place.servedName,
    "--host": "127.0.0.1",
    "--port": String(place.ports.api),
  };
}

function parallelFlags(spec: Spec, group: EngineGroup | null): Record<string, string> {
  return {
    "--tensor-parallel-size": String(spec.tensorParallel),
    "--pipeline-parallel-size": String(spec.pipelineParallel),
    ...(group === null ? {} : { "--distributed-executor-backend": "ray" }),
  };
}

function memoryFlags(spec: Spec): Record<string, string> {
  return {
    "--gpu-memory-utilization": String(spec.gpuMemoryUtilization),
    "--kv-cache-dtype": spec.kvCacheDtype,
    ...optional("--max-model-len", spec.maxModelLen),
    ...optional("--max-num-seqs", spec.maxNumSeqs),
    ...optional("--max-num-batched-tokens", spec.maxNumBatchedTokens),
  };
}

function modelFlags(spec: Spec): Record<string, string> {
  const flags: Record<string, string> = {
    "--runner": spec.task === "embed" ? "pooling" : "generate",
    "--dtype": spec.dtype,
    "--load-format":
      spec.loadFormat === "auto" && spec.quantization === "bitsandbytes" ? "bitsandbytes" : spec.loadFormat,
    ...optional("--quantization", spec.quantization),
  };
  if (spec.loadFormat === "runai_streamer") {
    flags["--model-loader-extra-config"] = JSON.stringify({
      concurrency: spec.streamerConcurrency,
      // Each process reads a part and the GPUs exchange them, instead of each reading everything.
      ...(spec.tensorParallel > 1 ? { distributed: true } : {}),
    });
  }
  return flags;
}

function featureFlags(spec: Spec): Record<string, string> {
  const flags = {
    ...optional("--tool-call-parser", spec.toolCallParser),
    ...optional("--reasoning-parser", spec.reasoningParser),
  };
  if (spec.lora !== undefined) {
    flags["--max-loras"] = String(spec.lora.maxLoras);
    flags["--max-lora-rank"] = String(spec.lora.maxRank);
    flags["--max-cpu-loras"] = String(spec.lora.maxCpuLoras);
  }
  if (spec.speculative !== undefined)
    flags["--speculative-config"] = JSON.stringify(speculativeConfig(spec.speculative));
  return flags;
}

function speculativeConfig(speculative: NonNullable<Spec["speculative"]>): Record<string, string | number> {
  const { method, tokens } = speculative;
  const config = { method, num_speculative_tokens: tokens };
  if (speculative.method === "ngram") return { ...config, prompt_lookup_max: speculative.lookupMax };
  return speculative.model === undefined ? config : { ...config, model: speculative.model };
}

/** `version` null means the pinned one, which has them all. */
function endFlags(version: Version | null): Record<string, string> {
  const known = (flag: keyof typeof since): boolean => version === null || atLeast(version, since[flag]);
  return {
    ...(known("--disable-access-log-for-endpoints")
      ? { "--disable-access-log-for-endpoints": "/health,/metrics" }
      : {}),
    ...(known("--shutdown-timeout") ? { "--shutdown-timeout": String(shutdownSeconds) } : {}),
  };
}

function switchesOf(spec: Spec): string[] {
  return [
    spec.prefixCaching ? "--enable-prefix-caching" : "--no-enable-prefix-caching",
    spec.chunkedPrefill ? "--enable-chunked-prefill" : "--no-enable-chunked-prefill",
    // The gateway meters cached tokens.
    "--enable-prompt-tokens-details",
    ...(spec.enforceEager ? ["--enforce-eager"] : []),
    ...(spec.sleepLevel === 0 ? [] : ["--enable-sleep-mode"]),
    ...(spec.lora === undefined ? [] : ["--enable-lora"]),
    ...(spec.toolCallParser === undefined ? [] : ["--enable-auto-tool-choice"]),
  ];
}

/** As JSON, since a path may hold the `=` of the short form. Last, because the flag takes all that follows it. */
function adapterFlags(spec: Spec, { adapters, servedName }: EnginePlace): string[] {
  const modules = Object.entries(adapters).map(([name, path]) =>
    JSON.stringify({ name: `${servedName}:${name}`, path }),
  );
  return spec.lora === undefined || modules.length === 0 ? [] : ["--lora-modules", ...modules];
}

function environmentOf(spec: Spec, place: EnginePlace): Record<string, string> {
  const account = azureAccountOf(place.modelPath);
  const draft = spec.speculative?.method === "ngram" ? undefined : spec.speculative?.model;
  return {
    ...gpuEnvironment(place.gpus),
    ...offlineEnvironment,
    // A draft model that is not a path comes from the hub.
    ...(draft !== undefined && !draft.startsWith("/") ? { HF_HUB_OFFLINE: "0" } : {}),
    VLLM_NO_USAGE_STATS: "1",
    VLLM_CACHE_ROOT: place.compileCacheDirectory,
    // It takes a minute on 8 GPUs (vllm#19824), and the nodes of a pool are alike.
    VLLM_SKIP_P2P_CHECK: "1",
    VLLM_LOGGING_LEVEL: logLevelIn(severities, place.logLevel),
    ...(spec.sleepLevel === 0 ? {} : { VLLM_SERVER_DEV_MODE: "1" }),
    ...(spec.lora === undefined ? {} : { VLLM_ALLOW_RUNTIME_LORA_UPDATING: "True" }),
    ...(account === undefined ? {} : { AZURE_STORAGE_ACCOUNT_NAME: account }),
  };
}

const severities = { error: "ERROR", warning: "WARNING", info: "INFO", debug: "DEBUG", trace: "DEBUG" } as const;

/** Penstock's `az://account/container/path` as Run:ai's streamer has it: the account goes into the environment. */
function pathFor(modelPath: string): string {
  const account = azureAccountOf(modelPath);
  return account === undefined ? modelPath : modelPath.replace(`az://${account}/`, "az://");
}

function azureAccountOf(modelPath: string): string | undefined {
  return /^az:\/\/([^/]+)\//.exec(modelPath)?.[1];
}

function optional(flag: string, value: string | number | undefined): Record<string, string> {
  return value === undefined ? {} : { [flag]: String(value) };
}
