import { shapeNamed, shapeNameOf, shapeNames } from "../catalog/shapes.ts";
import type { CloudModel, CloudStack } from "../stack/schema.ts";
import { engineMemory } from "./engine-memory.ts";
import { kvBytesPerToken, weightsOf } from "./model-memory.ts";
import type { FleetNeed, ShapedModel } from "./need.ts";
import type { PlannedModel } from "./plan.ts";
import { gib, round } from "./text.ts";

/** Finds a model's shape; every problem goes to `report`, and null comes back. */
export function shapedModel(config: CloudModel, at: number, report: (problem: string) => void): ShapedModel | null {
  if (typeof config.shape === "object") {
    return { at, config, shape: config.shape, shapeName: null, why: ["shape as the stack spells it out"] };
  }
  const name = config.shape ?? shapeNameOf(config.source);
  const shape = name === undefined ? undefined : shapeNamed(name);
  if (name !== undefined && shape !== undefined) {
    const why = [`shape ${name} of the catalogue${config.shape === undefined ? ", by its source" : ""}`];
    return { at, config, shape, shapeName: name, why };
  }
  const problem =
    name === undefined ? `nothing is known of the shape of ${config.source}` : `no shape named \`${name}\``;
  report(
    `models[${at}].shape: ${problem}; there are ${shapeNames.join(", ")}; or paste what ` +
      "`npm run model -- shape <dir | hf://…>` prints",
  );
  return null;
}

/** Where the stack keeps its models. */
export function storeUri(stack: CloudStack): string {
  return stack.cloud === "azure"
    ? `az://${stack.cache.account}/${stack.cache.container}`
    : `s3://${stack.cache.bucket}`;
}

/** The model as agents are told of it. */
export function plannedModel(stack: CloudStack, need: FleetNeed, model: ShapedModel): PlannedModel {
  const { config, shape } = model;
  const rules = engineMemory(need.engine, shape);
  const weights = weightsOf(shape, rules.quantized);
  const kv = kvBytesPerToken(shape, rules.kvWidth);
  const storedAs = weights.type === shape.weights ? weights.type : `${weights.type} (stored as ${shape.weights})`;
  return {
    id: config.id,
    fleet: need.config.name,
    spec: storedSpec(storeUri(stack), config),
    origin: config.source,
    warm: config.warm,
    pinned: config.pinned,
    shape,
    weightsGiB: round(weights.gib),
    kvBytesPerToken: Math.round(kv),
    price: config.price ?? null,
    why: [
      ...model.why,
      `${gib(weights.gib)} of weights: ${shape.weightsGiB === undefined ? `${shape.parametersB} B parameters as ${storedAs}` : `size of its files, ${storedAs}`}`,
      `${Math.round(kv / 1024)} KiB of KV cache a token: ${kvReason(model)} of ${rules.kvWidth} bytes in ${shape.layers} layers`,
    ],
  };
}

function kvReason({ shape }: ShapedModel): string {
  if (shape.latentKvSize !== undefined) return `a latent of ${shape.latentKvSize} numbers`;
  return `2 x ${shape.kvHeads} KV heads x ${shape.headSize} numbers`;
}

/** The spec with its place in the stack's own store, which `npm run model -- push` fills. */
function storedSpec(uri: string, config: CloudModel): PlannedModel["spec"] {
  const { id, format, sha256, source, adapters } = config;
  return {
    id,
    source: stored(uri, `models/${id}`, source),
    format,
    ...(sha256 === undefined ? {} : { sha256 }),
    adapters: adapters.map((adapter) => ({
      ...adapter,
      source: stored(uri, `adapters/${id}/${adapter.name}`, adapter.source),
    })),
  };
}

/** A single file keeps its name, so that its ending still says what it is. */
function stored(uri: string, folder: string, source: string): string {
  if (source.startsWith(`${uri}/`)) return source;
  const file = /\/([^/@?#]+\.gguf)(?=$|[@?#])/.exec(source)?.[1];
  return file === undefined ? `${uri}/${folder}` : `${uri}/${folder}/${file}`;
}

/** GiB of an adapter: its rank on all seven matrices of a layer, 16 bits a number. */
export function adapterGiB(need: FleetNeed, model: ShapedModel): number {
  const rank = need.engine.kind === "vllm" ? (need.engine.lora?.maxRank ?? 16) : 16;
  return (rank * model.shape.layers * 20 * model.shape.hiddenSize * 2) / 2 ** 30;
}
