import { randomInt } from "node:crypto";
import { TokenBias, type LlamaModel, type SequenceEvaluateOptions } from "node-llama-cpp";
import { PenstockError } from "../contracts/errors.ts";
import type { Token, Vocabulary } from "./vocabulary.ts";

/** How the next token is chosen. Defaults are OpenAI's: temperature 1 and the whole distribution. */
export interface Sampling {
  readonly temperature: number;
  readonly topP: number;
  /** 0: no limit. */
  readonly topK: number;
  readonly minP: number;
  readonly seed: number;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  readonly repetitionPenalty: number;
  readonly logitBias: ReadonlyMap<Token, number>;
  /** Alternatives to report per token; undefined: no log probabilities at all. */
  readonly topLogprobs: number | undefined;
  /** Goes on behind the model's own end of text (for load tests). */
  readonly ignoreEnd: boolean;
}

/** The members of a request that steer sampling, as completions and chat completions share them. */
export interface SamplingRequest {
  readonly temperature?: number | null | undefined;
  readonly top_p?: number | null | undefined;
  readonly top_k?: number | null | undefined;
  readonly min_p?: number | null | undefined;
  readonly seed?: number | null | undefined;
  readonly frequency_penalty?: number | null | undefined;
  readonly presence_penalty?: number | null | undefined;
  readonly repetition_penalty?: number | null | undefined;
  readonly logit_bias?: Readonly<Record<string, number>> | null | undefined;
  readonly [field: string]: unknown;
}

/** Seeds are 32 bits; llama.cpp takes the largest one to mean "random". */
const seedRange = 0xffff_ffff;

/** Reads the sampling settings of a request. Throws `invalid_value` or `unsupported` for a setting that cannot be kept. */
export function readSampling(
  request: SamplingRequest,
  vocabulary: Vocabulary,
  topLogprobs: number | undefined,
): Sampling {
  const ignoreEnd = request["ignore_eos"] ?? false;
  if (typeof ignoreEnd !== "boolean") {
    throw new PenstockError("invalid_value", "`ignore_eos` must be true or false.", { param: "ignore_eos" });
  }
  const seed = request.seed ?? randomInt(seedRange);
  return {
    temperature: request.temperature ?? 1,
    topP: request.top_p ?? 1,
    topK: Math.max(0, request.top_k ?? 0),
    minP: request.min_p ?? 0,
    seed: ((seed % seedRange) + seedRange) % seedRange,
    frequencyPenalty: request.frequency_penalty ?? 0,
    presencePenalty: request.presence_penalty ?? 0,
    repetitionPenalty: request.repetition_penalty ?? 1,
    logitBias: readLogitBias(request.logit_bias ?? {}, vocabulary),
    topLogprobs,
    ignoreEnd,
  };
}

function readLogitBias(biases: Readonly<Record<string, number>>, vocabulary: Vocabulary): Map<Token, number> {
  const result = new Map<Token, number>();
  for (const [id, bias] of Object.entries(biases)) {
    const param = `logit_bias.${id}`;
    const [token] = /^\d+$/.test(id) ? (vocabulary.checkedTokens([Number(id)]) ?? []) : [];
    if (token === undefined) {
      throw new PenstockError("invalid_value", `\`logit_bias\` names ${id}, which is no token of this model.`, {
        param,
      });
    }
    if (vocabulary.isEnd(token)) {
      throw new PenstockError("unsupported", "`logit_bias` cannot change the end of the text; use `max_tokens`.", {
        param,
      });
    }
    result.set(token, bias);
  }
  return result;
}

/** The settings of another choice of the same request. */
export function samplingOfChoice(sampling: Sampling, choice: number): Sampling {
  return { ...sampling, seed: (sampling.seed + choice) % seedRange };
}

/** `sampling` as node-llama-cpp takes it. `generated` is read before each token: penalties look at what was generated. */
export function evaluateOptions(
  sampling: Sampling,
  model: LlamaModel,
  generated: readonly Token[],
): SequenceEvaluateOptions {
  const { frequencyPenalty, presencePenalty, repetitionPenalty } = sampling;
  const options: SequenceEvaluateOptions = {
    temperature: sampling.temperature,
    topP: sampling.topP,
    topK: sampling.topK,
    minP: sampling.minP,
    seed: sampling.seed,
    yieldEogToken: true,
  };
  if (frequencyPenalty !== 0 || presencePenalty !== 0 || repetitionPenalty !== 1) {
    options.repeatPenalty = {
      punishTokens: () => [...generated],
      maxPunishTokens: model.trainContextSize,
      penalty: repetitionPenalty,
      frequencyPenalty,
      presencePenalty,
    };
  }
  if (sampling.logitBias.size > 0) {
    const tokenBias = TokenBias.for(model);
    for (const [token, logit] of sampling.logitBias) tokenBias.set(token, { logit });
    options.tokenBias = tokenBias;
  }
  return options;
}
