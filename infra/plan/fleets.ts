import type { EngineSpec } from "../../runtime/contracts/engine.ts";
import { agentImageOf, imageVersion } from "../catalog/images.ts";
import { familyOf } from "../catalog/shapes.ts";
import { throughputOf } from "../catalog/throughput.ts";
import { engineOf } from "../../runtime/engines/index.ts";
import type { CloudStack } from "../stack/schema.ts";
import { engineMemory } from "./engine-memory.ts";
import type { Group } from "./groups.ts";
import { weightsOf } from "./model-memory.ts";
import type { FleetNeed } from "./need.ts";
import type { PlannedFleet } from "./plan.ts";
import type { Sizing } from "./sizing.ts";
import { count, gib, round } from "./text.ts";
import { coldStartSeconds, transitionsOf } from "./transitions.ts";

/** A fleet with its place and its sizes. */
export interface PlacedFleet {
  readonly need: FleetNeed;
  readonly group: Group;
  readonly sizing: Sizing;
}

/** Name of an image as Kubernetes pulls it. */
export function imageName({ images }: CloudStack, name: string): string {
  return `${images.registry}/${name}:${images.version ?? imageVersion}`;
}

/** The fleet as everything downstream reads it. */
export function plannedFleet(stack: CloudStack, placed: PlacedFleet): PlannedFleet {
  const { need, group, sizing } = placed;
  const { config } = need;
  const { tightest, layout } = sizing;
  const transitions = transitionsOf(need, sizing, group.sizes);
  return {
    name: config.name,
    pool: group.config.name,
    models: config.models.toSorted(),
    engine: sizing.engine,
    replicas: config.replicas,
    gpusPerReplica: sizing.gpusPerReplica,
    nodesPerReplica: layout.nodes,
    gpusPerNode: layout.gpusPerNode,
    replicasPerNode: round(sizing.replicasPerNode, 4),
    memory: {
      weightsGiB: round(tightest.weightsGiB),
      kvCacheGiB: round(tightest.kvRoomGiB),
      overheadGiB: round(tightest.overheadGiB),
      usableGiB: round(tightest.usableGiB),
    },
    contextTokens: need.contextTokens,
    concurrency: concurrencyOf(placed),
    residentModels: need.residents,
    idle: config.idle ?? null,
    pod: { ...sizing.pod, image: imageName(stack, agentImageOf(sizing.engine)) },
    scaling: scalingOf(stack, placed, transitions),
    transitions,
    drainSeconds: config.drainSeconds,
    spot: config.spot,
    throughput: throughput(placed),
    why: whyOf(placed),
  };
}

/** Requests whose KV cache fits in one replica, within the engine's own limit; embeddings keep none and wait their turn. */
function concurrencyOf({ need: { engine, config }, sizing }: PlacedFleet): number {
  const inMemory = isEmbedding(engine) ? config.concurrency : sizing.tightest.concurrency;
  if (engine.kind === "vllm") return Math.min(inMemory, engine.maxNumSeqs ?? inMemory);
  if (engine.kind === "trtllm") return Math.min(inMemory, engine.maxBatchSize ?? inMemory);
  if (engine.kind === "llamacpp") return engine.parallelSequences;
  return inMemory;
}

function isEmbedding(engine: FleetNeed["engine"]): boolean {
  return engine.kind !== "embedded" && engine.task === "embed";
}

/** Part of a replica's capacity at which one more is started. */
const targetShare = 0.8;

/** vLLM schedules 256 sequences at once unless told otherwise (SchedulerConfig). */
const mostSequences = 256;

/** KEDA's own poll; a wake from zero is pushed by the gateway and waits for none. */
const pollSeconds = 15;

/** Replicas that were just started must not leave at the first lull (production-stack's stabilisation). */
const scaleDownSeconds = 300;

function scalingOf(
  stack: CloudStack,
  placed: PlacedFleet,
  transitions: PlannedFleet["transitions"],
): PlannedFleet["scaling"] {
  const { config, residents } = placed.need;
  const capacity = Math.min(mostSequences, concurrencyOf(placed)) * residents;
  const target = config.scaling.targetRequests ?? Math.max(1, Math.floor(capacity * targetShare));
  const cold = coldStartSeconds(transitions);
  const cooldown = config.scaling.cooldownSeconds ?? Math.max(300, Math.ceil(cold / 60) * 60);
  const why = [
    config.scaling.targetRequests === undefined
      ? `${target} requests: ${targetShare * 100} % of the ${capacity} that a replica holds`
      : `${target} requests, as the stack says`,
    config.scaling.cooldownSeconds === undefined
      ? `down after ${cooldown} s without requests: no sooner than a replica takes to come back (${Math.ceil(cold)} s)`
      : `down after ${cooldown} s without requests, as the stack says`,
  ];
  if (config.replicas.min === 0) {
    why.push(
      `the first request waits about ${Math.ceil(cold)} s for a node, its image, the weights and the engine; ` +
        `the gateway holds it for up to ${stack.gateway.hold.maxSeconds} s`,
    );
  }
  return {
    targetRequests: target,
    pollSeconds,
    cooldownSeconds: cooldown,
    scaleDownSeconds,
    schedule: config.scaling.schedule,
    why,
  };
}

/** A fleet that sleeps at zero for longer than requests may wait would refuse every first request. */
export function coldStartProblem(stack: CloudStack, { need, group, sizing }: PlacedFleet): string | null {
  if (need.config.replicas.min > 0) return null;
  const cold = Math.ceil(coldStartSeconds(transitionsOf(need, sizing, group.sizes)));
  const { maxSeconds } = stack.gateway.hold;
  if (cold <= maxSeconds) return null;
  return (
    `fleets[${need.at}].replicas.min: from 0 a start takes about ${cold} s, and gateway.hold.maxSeconds is ${maxSeconds}: ` +
    "every first request would be refused; set min to 1, or raise hold.maxSeconds"
  );
}

function throughput({ need, group, sizing }: PlacedFleet): PlannedFleet["throughput"] {
  const [model] = need.models;
  if (need.models.length > 1 || model.shapeName === null || group.sizes.length > 1) return null;
  return throughputOf({
    shape: familyOf(model.shapeName),
    weights: weightsOf(model.shape, engineMemory(need.engine, model.shape).quantized).type,
    gpu: group.sizes[0].gpu.model,
    gpus: sizing.gpusPerReplica,
  });
}

function whyOf({ need, group, sizing }: PlacedFleet): string[] {
  const { layout, tightest, smaller } = sizing;
  const over = layout.nodes > 1 ? ` over ${layout.nodes} nodes` : "";
  const spread = `tensor parallel ${layout.tensorParallel}, pipeline parallel ${layout.pipelineParallel}${over}`;
  const reasons = [`${count(sizing.gpusPerReplica, "GPU")} a replica (${spread}): ${tightest.arithmetic}`];
  if (!isEmbedding(need.engine)) {
    reasons.push(
      `${gib(tightest.kvRoomGiB)} of KV cache on each GPU hold ${count(tightest.concurrency, "request")} of ` +
        `${need.contextTokens} tokens; ${need.config.concurrency} were asked for`,
    );
  }
  if (smaller !== null) reasons.push(`fewer do not fit: ${smaller}`);
  if (need.models.length > 1) {
    reasons.push(`${need.models.length} models, loaded on demand: each fits alone, the tightest is shown`);
  }
  if (layout.tensorParallel > 2) reasons.push("tensor parallel above 2 goes over NVLink, within a node");
  if (layout.nodes > 1) reasons.push("stages on several nodes: a LeaderWorkerSet, scaled as one replica");
  const asleep = asleepReason(need, group, sizing.engine);
  return [...reasons, ...(asleep === null ? [] : [asleep]), ...need.why];
}

/** What sleeping models keep of a GPU, and how many may sleep beside those that are awake. */
function asleepReason(need: FleetNeed, group: Group, engine: EngineSpec): string | null {
  if (need.models.length === 1 || need.engine.kind !== "vllm" || need.engine.sleepLevel === 0) return null;
  const [size] = group.sizes;
  const asleep = (engineOf(engine).gpus(engine, 0)?.asleepBytes ?? 0) / 2 ** 30;
  const free = size.gpu.memoryGiB * (1 - need.engine.gpuMemoryUtilization * need.residents);
  const models = Math.max(0, Math.floor(free / asleep));
  return `a sleeping model keeps ${gib(asleep)} of each GPU: ${count(models, "model")} may sleep beside what is awake`;
}
