import { imageGB } from "../catalog/images.ts";
import type { GpuSize } from "../catalog/sizes.ts";
import {
  diskGBPerSecond,
  engineStartSeconds,
  imageSecondsPerGB,
  networkShare,
  nodeSeconds,
  storeGBPerSecond,
  wakeGBPerSecond,
} from "../catalog/transitions.ts";
import { engineMemory } from "./engine-memory.ts";
import { weightsOf } from "./model-memory.ts";
import type { FleetNeed } from "./need.ts";
import type { PlannedTransitions } from "./plan.ts";
import type { Sizing } from "./sizing.ts";

/** 10^9 bytes, of which 2^30 make a GiB. */
const gbPerGiB = 1.073741824;

/** How long a fleet's transitions take on its slowest size: declared ones as they are, the others from the catalogue. */
export function transitionsOf(
  need: FleetNeed,
  sizing: Sizing,
  sizes: readonly [GpuSize, ...GpuSize[]],
): PlannedTransitions {
  const { engine, config } = need;
  const [{ cloud }] = sizes;
  const files = gbPerGiB * Math.max(...need.models.map(({ shape }) => weightsOf(shape, null).fileGiB));
  const perNode = files / sizing.layout.nodes;
  const network = Math.min(...sizes.map(({ networkGbps }) => ((networkGbps ?? 10) / 8) * networkShare));
  const start = engineStartSeconds[engine.kind];
  const catalogue = {
    nodeSeconds: nodeSeconds[cloud].seconds,
    imageSeconds: imageGB[engine.kind] * imageSecondsPerGB.seconds,
    downloadSeconds: Math.ceil(files / Math.min(network, storeGBPerSecond.value)),
    loadSeconds: Math.ceil(
      perNode / diskGBPerSecond.value + (sizing.gpusPerReplica > 1 ? start.severalGpus : start.oneGpu),
    ),
    wakeSeconds: wakeSeconds(need, perNode),
  };
  const { wakeSeconds: declaredWake, ...declared } = config.transitions;
  const known = Object.fromEntries(Object.entries(declared).filter(([, value]) => value !== undefined));
  return {
    ...catalogue,
    ...known,
    wakeSeconds: catalogue.wakeSeconds === null ? null : (declaredWake ?? catalogue.wakeSeconds),
    sources: [
      ...Object.keys(known).map((name) => `${name}: declared in the stack`),
      ...catalogueSources(cloud, engine.kind, known),
    ],
  };
}

/** Seconds from nothing to the first token: a node, its image, the weights, the engine. */
export function coldStartSeconds(transitions: PlannedTransitions): number {
  const { nodeSeconds: node, imageSeconds, downloadSeconds, loadSeconds } = transitions;
  return node + imageSeconds + downloadSeconds + loadSeconds;
}

/** Level 1 copies weights from RAM; level 2 reads them from disk again; Triton loads its model anew. */
function wakeSeconds({ engine, models }: FleetNeed, filesGB: number): number | null {
  const fromDisk = Math.ceil(filesGB / diskGBPerSecond.value) + 1;
  if (engine.kind === "triton") return fromDisk + engineStartSeconds.triton.oneGpu;
  if (engine.kind !== "vllm" || engine.sleepLevel === 0) return null;
  if (engine.sleepLevel === 2) return fromDisk;
  const loaded = Math.max(
    ...models.map(({ shape }) => weightsOf(shape, engineMemory(engine, shape).quantized).gib * gbPerGiB),
  );
  return Math.ceil(loaded / wakeGBPerSecond.value) + 1;
}

function catalogueSources(
  cloud: GpuSize["cloud"],
  kind: FleetNeed["engine"]["kind"],
  known: Readonly<Record<string, unknown>>,
): string[] {
  const sources = {
    nodeSeconds: nodeSeconds[cloud].source,
    imageSeconds: imageSecondsPerGB.source,
    downloadSeconds: `${storeGBPerSecond.source}, or ${networkShare * 100} % of the network interface`,
    loadSeconds: `${diskGBPerSecond.source}; ${engineStartSeconds[kind].source}`,
  };
  return Object.entries(sources).flatMap(([name, source]) => (known[name] === undefined ? [`${name}: ${source}`] : []));
}
