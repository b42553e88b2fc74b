import type { SpecOf } from "../contracts/engine.ts";
import { PenstockError } from "../contracts/errors.ts";
import type { Command, EngineCall, EngineLaunch, EnginePlace } from "./engine.ts";
import { gpuEnvironment, logLevelIn, offlineEnvironment } from "./shared.ts";

type Spec = SpecOf<"triton">;

/** Triton's model repository, in the engine's folder. */
const repository = "models";

/** Models of NVIDIA's image that turn text into tokens and back around a TensorRT engine; all four are loaded. */
const templates = "/app/all_models/inflight_batcher_llm";
const parts = ["preprocessing", "postprocessing", "tensorrt_llm"] as const;
const front = "tensorrt_llm_bls";
const fillTemplate = ["python3", "/app/tools/fill_template.py", "-i"] as const;

/** Requests of a TensorRT engine that Triton takes at once. */
const maxBatchSize = 64;

/** Processes that `tensorrt_llm_bls` runs in; each serves one request at a time. */
const frontProcesses = 16;

/** The front end's own default would end answers after 16 tokens. */
const defaultMaxTokens = 4096;

/** Names of Triton models that serve `servedName`, in the order to load them. */
export function tritonModels(spec: Spec, servedName: string): string[] {
  return spec.backend === "vllm" ? [servedName] : [...parts, servedName];
}

/**
 * Spec and place -> Triton's OpenAI front end with a model repository of one served model.
 * For `vllm` the repository is written as files; for `tensorrtllm` it is copied from NVIDIA's image and filled in. The
 * engine's folder must hold the tokenizer as well.
 * Throws `invalid_config` when the model's name cannot be a folder of the repository.
 */
export function tritonLaunch(spec: Spec, place: EnginePlace, afterReady: readonly EngineCall[]): EngineLaunch {
  requireFolderName(spec, place.servedName);
  if (spec.backend === "tensorrtllm") requirePlainPath(place.modelPath);
  const flags = {
    "--model-repository": `${place.workDirectory}/${repository}`,
    "--model-control-mode": "explicit",
    "--tokenizer": place.modelPath,
    "--backend": spec.backend,
    "--host": "127.0.0.1",
    "--openai-port": String(place.ports.api),
    "--uvicorn-log-level": logLevelIn(severities, place.logLevel),
    "--default-max-tokens": String(Math.min(spec.maxModelLen ?? defaultMaxTokens, defaultMaxTokens)),
  };
  const ready = { method: "GET", path: "/health/ready" } as const;
  return {
    prelude: spec.backend === "vllm" ? [] : fillRepository(spec, place),
    command: [...place.command, ...Object.entries(flags).flat()],
    env: {
      ...gpuEnvironment(place.gpus),
      ...offlineEnvironment,
      VLLM_NO_USAGE_STATS: "1",
      VLLM_CACHE_ROOT: place.compileCacheDirectory,
      // The front end speaks to several GPUs in this mode alone.
      ...(spec.backend === "tensorrtllm" && spec.tensorParallel > 1 ? { TRTLLM_ORCHESTRATOR: "1" } : {}),
    },
    files: spec.backend === "vllm" ? vllmRepository(spec, place) : {},
    ready,
    health: ready,
    afterReady,
    lifeline: "wrapper",
  };
}

const severities = { error: "error", warning: "warning", info: "info", debug: "debug", trace: "trace" } as const;

function requireFolderName(spec: Spec, servedName: string): void {
  const isTaken = spec.backend === "tensorrtllm" && [...parts, front, "ensemble"].includes(servedName);
  if (!servedName.includes("/") && !isTaken) return;
  throw new PenstockError(
    "invalid_config",
    `Triton keeps a model in a folder of its name, and \`${servedName}\` ` +
      `${isTaken ? "is one of its own" : "has a `/`"}: give the model another id.`,
    { param: "model_id" },
  );
}

/** fill_template.py divides its values by these. */
function requirePlainPath(path: string): void {
  if (!/[,:]/.test(path)) return;
  throw new PenstockError("invalid_config", "Triton cannot read a model from a folder whose path has a `,` or a `:`.", {
    param: "cache.directory",
  });
}

function vllmRepository(spec: Spec, place: EnginePlace): Record<string, string> {
  const folder = `${repository}/${place.servedName}`;
  const engineArgs = {
    model: place.modelPath,
    runner: spec.task === "embed" ? "pooling" : "generate",
    tensor_parallel_size: spec.tensorParallel,
    gpu_memory_utilization: spec.gpuMemoryUtilization,
    ...(spec.maxModelLen === undefined ? {} : { max_model_len: spec.maxModelLen }),
  };
  return {
    [`${folder}/config.pbtxt`]: vllmConfig,
    [`${folder}/1/model.json`]: `${JSON.stringify(engineArgs, null, 2)}\n`,
  };
}

/** vLLM batches and places by itself, and its inputs and outputs are filled in by the back end. */
const vllmConfig = `backend: "vllm"
instance_group [
  {
    count: 1
    kind: KIND_MODEL
  }
]
parameters: {
  key: "REPORT_CUSTOM_METRICS"
  value: {
    string_value: "true"
  }
}
`;

/** Copies the templates, gives the one that clients call their name for the model, and fills all four in. */
function fillRepository(spec: Spec, place: EnginePlace): Command[] {
  const models = `${place.workDirectory}/${repository}`;
  const batch = { triton_max_batch_size: maxBatchSize };
  const fill = (name: string, values: Readonly<Record<string, string | number>>): Command => [
    ...fillTemplate,
    `${models}/${name}/config.pbtxt`,
    Object.entries(values)
      .map(([key, value]) => `${key}:${value}`)
      .join(","),
  ];
  return [
    ["cp", "-R", templates, models],
    ["mv", `${models}/${front}`, `${models}/${place.servedName}`],
    // Triton takes the folder's name when the configuration has none.
    ["sed", "-i", "/^name:/d", `${models}/${place.servedName}/config.pbtxt`],
    fill("preprocessing", {
      ...batch,
      tokenizer_dir: place.modelPath,
      preprocessing_instance_count: 1,
      // Chat templates write them out.
      add_special_tokens: "False",
    }),
    fill("postprocessing", {
      ...batch,
      tokenizer_dir: place.modelPath,
      postprocessing_instance_count: 1,
      skip_special_tokens: "True",
    }),
    fill("tensorrt_llm", {
      ...batch,
      triton_backend: "tensorrtllm",
      engine_dir: place.modelPath,
      decoupled_mode: "True",
      batching_strategy: "inflight_fused_batching",
      max_queue_delay_microseconds: 0,
      max_queue_size: 0,
      kv_cache_free_gpu_mem_fraction: spec.gpuMemoryUtilization,
      enable_kv_cache_reuse: "True",
      exclude_input_in_output: "True",
      encoder_input_features_data_type: "TYPE_FP16",
      logits_datatype: "TYPE_FP32",
    }),
    fill(place.servedName, {
      ...batch,
      decoupled_mode: "True",
      bls_instance_count: frontProcesses,
      accumulate_tokens: "True",
      logits_datatype: "TYPE_FP32",
    }),
  ];
}
