import { z } from "zod";

/** How weights are stored. `fp4` is NVIDIA's; `mxfp4` the open one of gpt-oss, which older GPUs read too. */
export const weightTypes = ["fp32", "bf16", "fp16", "fp8", "int8", "int4", "fp4", "mxfp4"] as const;
export type WeightType = (typeof weightTypes)[number];

/** What of a model decides the memory that it takes: from its `config.json` and the index of its weights. */
export const modelShape = z.strictObject({
  parametersB: z.number().positive().describe("Parameters, in billions, all experts counted."),
  activeParametersB: z
    .number()
    .positive()
    .optional()
    .describe("Of a mixture of experts: parameters that a token uses."),
  layers: z.int().min(1),
  attentionHeads: z.int().min(1),
  kvHeads: z.int().min(1),
  headSize: z.int().min(1),
  hiddenSize: z.int().min(1),
  vocabulary: z.int().min(1),
  contextTokens: z.int().min(1).describe("The longest context that it was trained for."),
  weights: z.enum(weightTypes).default("bf16"),
  weightsGiB: z
    .number()
    .positive()
    .optional()
    .describe("Size of the files, where it is known: better than parameters times width."),
  latentKvSize: z
    .int()
    .min(1)
    .optional()
    .describe("Numbers kept per token and layer with multi-head latent attention, in place of heads."),
  slidingWindow: z
    .strictObject({ tokens: z.int().min(1), layers: z.int().min(1) })
    .optional()
    .describe("Layers that keep only the last tokens."),
  vision: z.boolean().default(false),
  task: z.enum(["generate", "embed"]).default("generate"),
});

/** A model's shape, with every default filled in. */
export type ModelShape = z.infer<typeof modelShape>;
