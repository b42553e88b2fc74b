import type { SpecOf } from "../contracts/engine.ts";

type Spec = SpecOf<"vllm">;

/** Why vLLM could not run `spec`, a sentence each with the remedy. Every rule names where vLLM has it. */
export function vllmRefusals(spec: Spec): string[] {
  return [...placement(spec), ...loading(spec), ...batches(spec), ...adapters(spec), ...speculation(spec)];
}

function placement({ tensorParallel, pipelineParallel, nodes }: Spec): string[] {
  const gpus = tensorParallel * pipelineParallel;
  return gpus % nodes === 0
    ? []
    : [
        `tensorParallel ${tensorParallel} x pipelineParallel ${pipelineParallel} is ${gpus} GPUs, which ${nodes} nodes ` +
          "cannot share evenly: change nodes, or one of the two.",
      ];
}

function loading({ quantization, loadFormat }: Spec): string[] {
  // EngineArgs.create_load_config: bitsandbytes quantization replaces any other load format without a word.
  if (quantization === "bitsandbytes" && loadFormat !== "auto" && loadFormat !== "bitsandbytes") {
    return [
      `loadFormat ${loadFormat} cannot load with quantization bitsandbytes: set loadFormat to auto, ` +
        "or quantize the weights beforehand.",
    ];
  }
  // BitsAndBytesModelLoader reads a quantization config that only this quantization makes.
  if (loadFormat === "bitsandbytes" && quantization !== "bitsandbytes") {
    return ["loadFormat bitsandbytes needs quantization bitsandbytes: set it, or set loadFormat to auto."];
  }
  return [];
}

/** SchedulerConfig.verify_max_model_len. */
function batches({ maxNumBatchedTokens, maxNumSeqs, maxModelLen, chunkedPrefill }: Spec): string[] {
  if (maxNumBatchedTokens === undefined) return [];
  const found: string[] = [];
  if (!chunkedPrefill && maxModelLen !== undefined && maxNumBatchedTokens < maxModelLen) {
    found.push(
      `maxNumBatchedTokens ${maxNumBatchedTokens} is below maxModelLen ${maxModelLen}, and without chunkedPrefill a ` +
        "prompt goes in one batch: raise maxNumBatchedTokens, or turn chunkedPrefill on.",
    );
  }
  if (maxNumSeqs !== undefined && maxNumBatchedTokens < maxNumSeqs) {
    found.push(
      `maxNumBatchedTokens ${maxNumBatchedTokens} is below maxNumSeqs ${maxNumSeqs}, and each sequence needs a token: ` +
        "raise maxNumBatchedTokens, or lower maxNumSeqs.",
    );
  }
  return found;
}

/** LoRAConfig._validate_lora_config. */
function adapters({ lora }: Spec): string[] {
  if (lora === undefined || lora.maxCpuLoras >= lora.maxLoras) return [];
  return [
    `lora.maxCpuLoras ${lora.maxCpuLoras} is below lora.maxLoras ${lora.maxLoras}, the adapters of one batch: ` +
      "raise maxCpuLoras, or lower maxLoras.",
  ];
}

/** vLLM's docs/features/README.md (what excludes what) and docs/features/speculative_decoding. */
function speculation({ speculative, task, lora, pipelineParallel }: Spec): string[] {
  if (speculative === undefined) return [];
  const found: string[] = [];
  if (task === "embed") found.push("Embeddings are not generated token by token: leave speculative out.");
  if (lora !== undefined) found.push("vLLM cannot use LoRA and speculative decoding together: leave one of them out.");
  if (pipelineParallel > 1) {
    found.push("vLLM cannot use pipelineParallel and speculative decoding together: set tensorParallel instead.");
  }
  // An n-gram needs no model, and the layers that `mtp` uses come with the model itself.
  if (speculative.method !== "ngram" && speculative.method !== "mtp" && speculative.model === undefined) {
    found.push(`speculative.method ${speculative.method} needs speculative.model: the model that proposes.`);
  }
  return found;
}
