import { z } from "zod";
import type { WeightType } from "../stack/shape.ts";
import { weightTypes } from "../stack/shape.ts";
import { checked, day } from "./read.ts";
import content from "./throughput.json" with { type: "json" };

const file = z.strictObject({
  asOf: day,
  rows: z.array(
    z.strictObject({
      /** Name in the catalogue of shapes. */
      shape: z.string().min(1),
      weights: z.enum(weightTypes),
      gpu: z.string().min(1),
      outputTokensPerSecondPerGpu: z.number().positive(),
      load: z.string().min(1),
      source: z.string().min(1),
    }),
  ),
});

const { asOf, rows } = checked("throughput.json", file, content);

/**
 * Published figures come from tuned systems: a stock engine reaches 0.4 to 0.7 of them. This is the middle.
 * KAITO's own figures are of a stock vLLM and stay as they are.
 */
const stockShare = 0.55;

/** What is asked: which model, how its weights are stored, on how many GPUs of which kind. */
export interface ThroughputQuestion {
  readonly shape: string;
  readonly weights: WeightType;
  readonly gpu: string;
  readonly gpus: number;
}

/** Output tokens per second of a replica that is always busy; null where nobody published the model on that GPU. */
export function throughputOf(
  question: ThroughputQuestion,
): { readonly outputTokensPerSecond: number; readonly source: string } | null {
  const row = rows.find(
    ({ shape, weights, gpu }) => shape === question.shape && weights === question.weights && gpu === question.gpu,
  );
  if (row === undefined) return null;
  const isStock = row.source.includes("kaito");
  const share = isStock ? 1 : stockShare;
  const derating = isStock ? "" : `, times ${stockShare} for a stock engine (0.4 to 0.7 of tuned results)`;
  return {
    outputTokensPerSecond: Math.round(row.outputTokensPerSecondPerGpu * question.gpus * share),
    source: `${row.source} (${row.load}, ${row.weights}), per GPU${derating}; as of ${asOf}`,
  };
}
