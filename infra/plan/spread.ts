import type { EngineKind, EngineSpec } from "../../runtime/contracts/engine.ts";
import { engines } from "../../runtime/engines/index.ts";
import type { GpuSize } from "../catalog/sizes.ts";
import { withSizes, type EngineSizes, type StackEngine } from "../stack/engines.ts";
import type { ModelShape } from "../stack/shape.ts";

/** NVLink is required above this: the same rule as the engines' own `nvlink`. */
const tensorParallelOverPcie = 2;

/** The most stages that are considered. */
const maxStages = 32;

/** How one replica lies over GPUs and nodes. */
export interface Layout extends EngineSizes {
  readonly gpusPerNode: number;
}

/** Where replicas are to be laid out. */
export interface LayoutQuestion {
  readonly engine: StackEngine;
  readonly shapes: readonly ModelShape[];
  readonly size: GpuSize;
  readonly maxNodes: number;
}

/**
 * Every layout that the engine, the models and the node size allow, the fewest GPUs first: tensor parallel in powers of two
 * that divide the heads and stay within NVLink's reach, then stages, then nodes. Sizes that the operator wrote are kept.
 */
export function layoutsOn(question: LayoutQuestion): Layout[] {
  const { engine, size, maxNodes } = question;
  const written = writtenSizes(engine);
  const most = size.gpu.count * (spansNodes(question) ? maxNodes : 1);
  const layouts: Layout[] = [];
  for (const tensorParallel of written.tensorParallel === null
    ? powersOfTwo(size.gpu.count)
    : [written.tensorParallel]) {
    const stages = written.pipelineParallel === null ? stagesOf(question, tensorParallel) : [written.pipelineParallel];
    for (const pipelineParallel of stages) {
      if (tensorParallel * pipelineParallel > most) continue;
      const layout = onNodes({ tensorParallel, pipelineParallel }, written.nodes, size);
      if (layout !== null && layoutProblems(layout, question).length === 0) layouts.push(layout);
    }
  }
  const gpus = (layout: Layout): number => layout.gpusPerNode * layout.nodes;
  return layouts.toSorted((a, b) => gpus(a) - gpus(b) || a.nodes - b.nodes || a.pipelineParallel - b.pipelineParallel);
}

/** Why sizes that the operator wrote cannot work here, each with the remedy; empty when it is a matter of memory. */
export function writtenProblems(question: LayoutQuestion): string[] {
  const { tensorParallel, pipelineParallel, nodes } = writtenSizes(question.engine);
  const asked = { tensorParallel: tensorParallel ?? 1, pipelineParallel: pipelineParallel ?? 1 };
  const layout = onNodes(asked, nodes, question.size);
  if (layout !== null) return layoutProblems(layout, question);
  const gpus = asked.tensorParallel * asked.pipelineParallel;
  if (nodes === null) {
    return [
      `${gpus} GPUs in groups of ${asked.tensorParallel} do not fit on nodes of ${question.size.gpu.count}; leave the sizes to \`auto\``,
    ];
  }
  return [
    `${gpus} GPUs over ${nodes} nodes do not fit on ${question.size.name} with ${question.size.gpu.count} each; set nodes to auto`,
  ];
}

/** The engine with a number for every `auto`. */
export function laidOut(engine: StackEngine, layout: Layout): EngineSpec {
  return engine.kind === "llamacpp"
    ? withSizes(engine, { ...layout, tensorParallel: layout.gpusPerNode })
    : withSizes(engine, layout);
}

function layoutProblems(layout: Layout, { engine, shapes, size, maxNodes }: LayoutQuestion): string[] {
  const { tensorParallel: tp, pipelineParallel: pp, nodes } = layout;
  const problems: string[] = [];
  for (const shape of shapes) {
    if (shape.attentionHeads % tp !== 0) {
      const divisors = powersOfTwo(shape.attentionHeads).filter((each) => shape.attentionHeads % each === 0);
      problems.push(
        `tensorParallel ${tp} does not divide ${shape.attentionHeads} attention heads; ${divisors.join(", ")} do`,
      );
    } else if (shape.latentKvSize === undefined && shape.kvHeads % tp !== 0 && tp % shape.kvHeads !== 0) {
      problems.push(
        `tensorParallel ${tp} can neither divide nor copy ${shape.kvHeads} KV heads evenly; set it to auto`,
      );
    }
    if (pp > shape.layers) problems.push(`pipelineParallel ${pp} is more than the model's ${shape.layers} layers`);
  }
  if (tp > size.gpu.count) {
    problems.push(
      `tensorParallel ${tp} is more than the ${size.gpu.count} GPUs of ${size.name}: it stays within a node`,
    );
  } else if (tp > tensorParallelOverPcie && !size.nvlink) {
    problems.push(
      `tensorParallel ${tp} needs NVLink between the GPUs, and those of ${size.name} have none; set it to ` +
        `${tensorParallelOverPcie} with pipelineParallel, or use a pool with NVLink`,
    );
  }
  if (nodes > 1 && !isMultiNode(engine.kind))
    problems.push(`the ${engine.kind} engine cannot spread over ${nodes} nodes`);
  if (nodes > maxNodes) problems.push(`one replica needs ${nodes} nodes, and the pool has at most ${maxNodes}`);
  return [...new Set(problems)];
}

/** The fewest nodes that hold the GPUs, with whole tensor-parallel groups on each; null when there are none. */
function onNodes(
  spread: Pick<Layout, "tensorParallel" | "pipelineParallel">,
  nodes: number | null,
  size: GpuSize,
): Layout | null {
  const gpus = spread.tensorParallel * spread.pipelineParallel;
  const candidates = nodes === null ? upTo(spread.pipelineParallel) : [nodes];
  const fitting = candidates.find(
    (each) => gpus % each === 0 && gpus / each <= size.gpu.count && (gpus / each) % spread.tensorParallel === 0,
  );
  // One node that is too small stays a layout, so that the reason can name it.
  const chosen = fitting ?? (nodes === null && spread.pipelineParallel === 1 ? 1 : undefined);
  return chosen === undefined ? null : { ...spread, nodes: chosen, gpusPerNode: gpus / chosen };
}

interface WrittenSizes {
  readonly tensorParallel: number | null;
  readonly pipelineParallel: number | null;
  readonly nodes: number | null;
}

/** What the operator wrote; null: left to the planner. llama.cpp splits layers, which are stages here. */
function writtenSizes(engine: StackEngine): WrittenSizes {
  const one = { tensorParallel: 1, pipelineParallel: 1, nodes: 1 };
  if (engine.kind === "embedded") return one;
  if (engine.kind === "llamacpp") return { ...one, pipelineParallel: numberOrNull(engine.gpuCount) };
  const tensorParallel = numberOrNull(engine.tensorParallel);
  if (engine.kind === "triton") return { ...one, tensorParallel };
  const pipelineParallel = numberOrNull(engine.pipelineParallel);
  if (engine.kind === "trtllm") return { ...one, tensorParallel, pipelineParallel };
  return { tensorParallel, pipelineParallel, nodes: numberOrNull(engine.nodes) };
}

function numberOrNull(value: number | "auto"): number | null {
  return value === "auto" ? null : value;
}

/** Stages to consider: powers of two, which share nodes without a rest; whole nodes may be of any number. */
function stagesOf({ engine, shapes, size }: LayoutQuestion, tensorParallel: number): number[] {
  if (!engines[engine.kind].capabilities.pipelineParallel) return [1];
  const most = Math.min(maxStages, ...shapes.map((shape) => shape.layers));
  return tensorParallel === size.gpu.count ? upTo(most) : powersOfTwo(most);
}

/** By itself the planner spreads a replica over nodes only where they have a fast network; elsewhere `nodes` must be written. */
function spansNodes({ engine, size }: LayoutQuestion): boolean {
  if (!isMultiNode(engine.kind)) return false;
  return size.efaInterfaces > 1 || size.infinibandGbps > 0 || (writtenSizes(engine).nodes ?? 1) > 1;
}

function isMultiNode(kind: EngineKind): boolean {
  return engines[kind].capabilities.multiNode;
}

function powersOfTwo(limit: number): number[] {
  return upTo(Math.floor(Math.log2(limit)) + 1).map((power) => 2 ** (power - 1));
}

function upTo(limit: number): number[] {
  return Array.from({ length: limit }, (_, at) => at + 1);
}
