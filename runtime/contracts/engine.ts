import { z } from "zod";

/**
 * The embedded llama.cpp engine. Names and defaults are those of its command line (`npm run engine -- --help`).
 * `threads` is chosen from the CPU quota and the model's size when absent.
 */
export const embeddedEngine = z.strictObject({
  kind: z.literal("embedded"),
  nCtx: z.int().min(64).default(4096),
  nGpuLayers: z.int().min(0).default(999),
  maxConcurrentRequests: z.int().min(1).default(10),
  parallelSequences: z.int().min(1).max(64).default(4),
  memory: z.enum(["lazy", "eager"]).default("lazy"),
  threads: z.int().min(1).optional(),
});

/** What to run for a model: a closed union, one member per engine. */
export const engineSpec = z.discriminatedUnion("kind", [embeddedEngine]);
export type EngineSpec = z.infer<typeof engineSpec>;
export type EngineKind = EngineSpec["kind"];

/** How an agent starts an engine process and looks at it. Made by `runtime/engines`, which is pure. */
export interface EngineLaunch {
  readonly command: string;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Path that answers 200 as soon as the process can serve the model. */
  readonly readyPath: string;
  /** Path that answers 200 while the process is alive. */
  readonly healthPath: string;
}

/** What an engine can do; a stack that asks for something absent is refused. */
export interface EngineCapabilities {
  readonly embeddings: boolean;
  readonly tools: boolean;
  readonly runtimeLora: boolean;
  readonly sleep: boolean;
  readonly tensorParallel: boolean;
}
