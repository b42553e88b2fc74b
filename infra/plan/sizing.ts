import type { EngineSpec } from "../../runtime/contracts/engine.ts";
import type { GpuSize } from "../catalog/sizes.ts";
import { capabilityProblem } from "./capability.ts";
import { fitOf, type Fit } from "./fit.ts";
import type { FleetNeed, ShapedModel } from "./need.ts";
import { podOn, type PodShare } from "./pod.ts";
import { laidOut, layoutsOn, writtenProblems, type Layout } from "./spread.ts";

/** A fleet with all its sizes. */
export interface Sizing {
  readonly engine: EngineSpec;
  readonly layout: Layout;
  readonly gpusPerReplica: number;
  /** A fraction where a replica needs several nodes. */
  readonly replicasPerNode: number;
  /** The memory of the model, and on the size, that leave the least. */
  readonly tightest: Fit;
  /** Why one step smaller does not fit; null where nothing is smaller. */
  readonly smaller: string | null;
  readonly pod: PodShare;
}

/** What came of it: sizes, or every reason against, each with the arithmetic or the remedy. */
export type SizingResult =
  | { readonly ok: true; readonly sizing: Sizing }
  | { readonly ok: false; readonly path: string; readonly reasons: readonly string[] };

/** Sizes a fleet for nodes of any of these sizes: replicas may land on each. `maxNodes`: of the pool. */
export function sizeFleet(need: FleetNeed, sizes: readonly [GpuSize, ...GpuSize[]], maxNodes: number): SizingResult {
  const incapable = need.models.flatMap((model) =>
    sizes.flatMap((size) => capabilityProblem(need.engine, model.shape, size) ?? []),
  );
  if (incapable.length > 0) return { ok: false, path: "", reasons: [...new Set(incapable)] };
  const question = { engine: need.engine, shapes: need.models.map(({ shape }) => shape), maxNodes };
  const wrong = sizes.flatMap((size) => writtenProblems({ ...question, size }));
  if (wrong.length > 0) return { ok: false, path: ".engine", reasons: [...new Set(wrong)] };
  const [smallest] = sizes.toSorted((a, b) => a.gpu.count - b.gpu.count);
  const layouts = layoutsOn({ ...question, size: smallest ?? sizes[0] }).filter((layout) =>
    sizes.every((size) => layout.tensorParallel <= 2 || size.nvlink),
  );
  return firstThatFits(need, sizes, layouts);
}

function firstThatFits(need: FleetNeed, sizes: readonly GpuSize[], layouts: readonly Layout[]): SizingResult {
  let smaller: string | null = null;
  for (const layout of layouts) {
    const fits = sizes.flatMap((size) => need.models.map((model) => fitIn(need, { model, size, layout })));
    const [tightest] = fits.toSorted((a, b) => a.kvRoomGiB - a.kvNeedGiB - (b.kvRoomGiB - b.kvNeedGiB));
    const failing = fits.find(({ fits: itFits }) => !itFits);
    if (tightest === undefined) break;
    if (failing !== undefined) {
      smaller = failing.arithmetic;
      continue;
    }
    const pods = sizes.map((size) => podOn(need, size, layout));
    const reasons = pods.flatMap((pod) => ("reason" in pod ? [pod.reason] : []));
    if (reasons.length > 0) return { ok: false, path: "", reasons: [...new Set(reasons)] };
    const shares = pods.flatMap((pod) => ("reason" in pod ? [] : [pod]));
    return { ok: true, sizing: sizingOf(need, { layout, tightest, smaller, sizes, shares }) };
  }
  return { ok: false, path: "", reasons: [smaller ?? "no layout of the model on these nodes"] };
}

interface Chosen extends Pick<Sizing, "layout" | "tightest" | "smaller"> {
  readonly sizes: readonly GpuSize[];
  readonly shares: readonly PodShare[];
}

function sizingOf(need: FleetNeed, { layout, tightest, smaller, sizes, shares }: Chosen): Sizing {
  const gpus = Math.min(...sizes.map((size) => size.gpu.count));
  return {
    engine: laidOut(need.engine, layout),
    layout,
    gpusPerReplica: layout.gpusPerNode * layout.nodes,
    replicasPerNode: layout.nodes > 1 ? 1 / layout.nodes : Math.floor(gpus / layout.gpusPerNode),
    tightest,
    smaller,
    // A pod must fit on every size of the pool.
    pod: {
      cpuMillis: Math.min(...shares.map((share) => share.cpuMillis)),
      memoryGiB: Math.min(...shares.map((share) => share.memoryGiB)),
      sharedMemoryGiB: Math.min(...shares.map((share) => share.sharedMemoryGiB)),
      cacheGiB: Math.min(...shares.map((share) => share.cacheGiB)),
    },
  };
}

function fitIn(
  need: FleetNeed,
  { model, size, layout }: { readonly model: ShapedModel; readonly size: GpuSize; readonly layout: Layout },
): Fit {
  return fitOf({
    engine: need.engine,
    shape: model.shape,
    spread: layout,
    size,
    contextTokens: need.contextTokens,
    concurrency: need.config.concurrency,
    residents: need.residents,
  });
}
