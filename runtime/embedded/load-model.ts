import {
  getLlama,
  InsufficientMemoryError,
  LlamaLogLevel,
  NoBinaryFoundError,
  type Llama,
  type LlamaModel,
} from "node-llama-cpp";
import { PenstockError } from "../contracts/errors.ts";
import { readGgufHeader } from "../lib/gguf/header.ts";
import type { Logger } from "../lib/log.ts";
import { ChatTemplate } from "./chat-template.ts";
import type { EngineOptions } from "./options.ts";
import { chooseThreads, readCpuFacts } from "./threads.ts";
import { detectToolFormat, type ToolFormat } from "./tool-calls.ts";
import { Vocabulary } from "./vocabulary.ts";

/** A model in memory, and what its file says about chats. */
export interface LoadedModel {
  readonly llama: Llama;
  readonly model: LlamaModel;
  /** The GGUF file, or its first shard. */
  readonly path: string;
  readonly vocabulary: Vocabulary;
  readonly template: ChatTemplate;
  readonly toolFormat: ToolFormat | undefined;
  /** Tokens that a prompt and its answer may have together. */
  readonly contextTokens: number;
  readonly threads: number;
  readonly parameters: number;
  /** An encoder such as BERT: it embeds texts, and cannot continue them. */
  readonly looksBothWays: boolean;
}

/** Loads the model of `options`. Throws an error whose message names the remedy. */
export async function loadModel(options: EngineOptions, log: Logger): Promise<LoadedModel> {
  const header = await readGgufHeader(options.modelPath);
  if (header.type === "adapter") {
    throw new PenstockError(
      "model_file_invalid",
      `${options.modelPath} is a LoRA adapter, not a model. Give it as --lora name=path beside its model.`,
    );
  }
  // Should a damaged file end the process inside llama.cpp, the log has said which one it was.
  log.info({ path: options.modelPath, parameters: header.parameters, memory: options.memory }, "loading");
  const threads = options.threads ?? chooseThreads(await readCpuFacts(), header.parameters);
  const llama = await startLlama(threads, log);
  if (options.memory === "eager") await checkFreeMemory(llama, header.fileBytes);
  const model = await openModel(llama, options);
  const trained = model.trainContextSize;
  if (options.nCtx > trained) {
    log.warn(
      { nCtx: options.nCtx, trained },
      "--n-ctx is more than the model was trained on; using what it was trained on",
    );
  }
  const vocabulary = new Vocabulary(model);
  const source = model.fileInfo.metadata.tokenizer?.chat_template;
  const toolFormat = detectToolFormat(source ?? "");
  return {
    llama,
    model,
    path: options.modelPath,
    vocabulary,
    toolFormat,
    template: readTemplate(source, vocabulary, toolFormat),
    contextTokens: Math.min(options.nCtx, trained),
    threads,
    parameters: header.parameters,
    looksBothWays: model.fileInfo.architectureMetadata.attention?.causal === false,
  };
}

async function startLlama(threads: number, log: Logger): Promise<Llama> {
  try {
    return await getLlama({
      gpu: "auto",
      // Never compile on a server; a GPU build comes from the install command.
      build: "never",
      progressLogs: false,
      maxThreads: threads,
      logger: (level, message) => nativeLog(log, level, message.trim()),
      logLevel: LlamaLogLevel.warn,
    });
  } catch (cause) {
    if (!(cause instanceof NoBinaryFoundError)) throw cause;
    throw new PenstockError(
      "engine_start_failed",
      `There is no llama.cpp build for ${process.platform} ${process.arch} in node_modules. Run npm ci on this platform.`,
      { cause },
    );
  }
}

function nativeLog(log: Logger, level: LlamaLogLevel, message: string): void {
  if (message === "") return;
  if (level === LlamaLogLevel.error || level === LlamaLogLevel.fatal) log.error({ native: message }, "llama.cpp");
  else if (level === LlamaLogLevel.warn) log.warn({ native: message }, "llama.cpp");
  else log.debug({ native: message }, "llama.cpp");
}

async function openModel(llama: Llama, options: EngineOptions): Promise<LlamaModel> {
  try {
    return await llama.loadModel({
      modelPath: options.modelPath,
      gpuLayers: { max: options.nGpuLayers, fitContext: { contextSize: options.nCtx * options.parallel } },
      useMmap: options.memory === "lazy" && llama.supportsMmap,
    });
  } catch (cause) {
    throw (
      memoryError(cause, "the model") ??
      new PenstockError(
        "model_file_invalid",
        `llama.cpp cannot load ${options.modelPath}. It is damaged, or of an architecture that this version does not know; fetch it again or choose another model.`,
        { cause },
      )
    );
  }
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1);
}

/** A mapped file may be larger than the memory; one that is read may not. */
async function checkFreeMemory(llama: Llama, fileBytes: number): Promise<void> {
  const { free } = await llama.getRamState();
  if (fileBytes <= free) return;
  throw new PenstockError(
    "engine_start_failed",
    `There is not enough memory to read the model: ${gib(fileBytes)} GiB, of which ${gib(free)} GiB are free. Use --memory lazy, or choose a smaller model.`,
  );
}

/** `cause` as a clear error when it tells of missing memory. */
export function memoryError(cause: unknown, what: string): PenstockError | undefined {
  if (!(cause instanceof InsufficientMemoryError)) return undefined;
  return new PenstockError(
    "engine_start_failed",
    `There is not enough memory for ${what}. Lower --n-ctx, --parallel or --n-gpu-layers, or choose a smaller model.`,
    { cause },
  );
}

function readTemplate(
  source: string | undefined,
  vocabulary: Vocabulary,
  toolFormat: ToolFormat | undefined,
): ChatTemplate {
  const markers = toolFormat === undefined ? [] : [toolFormat.open, toolFormat.close];
  const specials = { bos: vocabulary.bosText, eos: vocabulary.eosText };
  try {
    return new ChatTemplate(source, specials, [...vocabulary.controlTexts, ...markers]);
  } catch (cause) {
    throw new PenstockError(
      "model_file_invalid",
      "The model's chat template is not Jinja that this engine can read. Choose another file of this model.",
      { cause },
    );
  }
}
