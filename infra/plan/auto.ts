import { isSold, priceOf } from "../catalog/prices.ts";
import { gpuSizes, type GpuSize } from "../catalog/sizes.ts";
import type { CloudStack } from "../stack/schema.ts";
import { autoPool, nodesFor, type Group } from "./groups.ts";
import type { FleetNeed } from "./need.ts";
import { sizeFleet, type Sizing } from "./sizing.ts";
import { count, usdPerHour } from "./text.ts";

/** A size that a fleet could have, with what its replicas cost at most. */
interface Candidate {
  readonly size: GpuSize;
  readonly sizing: Sizing;
  readonly nodes: number;
  readonly nodeUsd: number;
  readonly totalUsd: number;
}

/** A replica is spread over at most so many nodes unless the stack says so itself. */
const mostNodes = 4;

/** What `gpu: auto` came to. */
export type AutoResult =
  | { readonly ok: true; readonly group: Group; readonly sizing: Sizing }
  | { readonly ok: false; readonly reasons: readonly string[] };

/** The cheapest size of the region for a fleet's maximum replicas: where nothing fits, the reason of each of the largest. */
export function cheapestSize(stack: CloudStack, need: FleetNeed): AutoResult {
  const offered = offeredSizes(stack);
  const candidates: Candidate[] = [];
  const refused = new Map<string, string>();
  for (const { size, usd } of offered) {
    const result = sizeFleet(need, [size], mostNodes);
    if (!result.ok) {
      refused.set(size.name, result.reasons.join("; "));
      continue;
    }
    const nodes = nodesFor(need.config.replicas.max, result.sizing.replicasPerNode);
    candidates.push({ size, sizing: result.sizing, nodes, nodeUsd: usd, totalUsd: nodes * usd });
  }
  const [best] = candidates.toSorted(
    (a, b) => a.totalUsd - b.totalUsd || a.nodeUsd - b.nodeUsd || a.size.name.localeCompare(b.size.name),
  );
  if (best === undefined) {
    const largest = offered.slice(-3).flatMap(({ size }) => `${size.name}: ${refused.get(size.name) ?? "refused"}`);
    return { ok: false, reasons: offered.length === 0 ? [noPrices(stack)] : largest };
  }
  const config = autoPool(need.config, best.size, { max: best.nodes });
  const why = [
    `${best.size.name} at ${usdPerHour(best.nodeUsd)} is the cheapest of ${offered.length} sizes in ${stack.region}: ` +
      `${count(best.nodes, "node")} for ${count(need.config.replicas.max, "replica")}`,
    ...nextCheaper(best, { offered, refused, candidates }),
  ];
  const group: Group = { config, sizes: [best.size], path: `fleets[${need.at}]`, why };
  return { ok: true, group, sizing: best.sizing };
}

/** Sizes with a price in the region, the cheapest first. */
export function offeredSizes({ cloud, region }: CloudStack): { readonly size: GpuSize; readonly usd: number }[] {
  return gpuSizes
    .filter((size) => size.cloud === cloud && size.unusable === undefined && !size.preview)
    .filter((size) => isSold(cloud, size.name, region) === "yes")
    .flatMap((size) => {
      const usd = priceOf({ size: size.name, region, capacity: "on-demand" }).usdPerHour;
      return usd === null ? [] : [{ size, usd }];
    })
    .toSorted((a, b) => a.usd - b.usd || a.size.name.localeCompare(b.size.name));
}

interface Considered {
  readonly offered: readonly { readonly size: GpuSize; readonly usd: number }[];
  readonly refused: ReadonlyMap<string, string>;
  readonly candidates: readonly Candidate[];
}

/** Why the dearest of the cheaper nodes was not taken. */
function nextCheaper(best: Candidate, { offered, refused, candidates }: Considered): string[] {
  const cheaper = offered.findLast(({ usd }) => usd < best.nodeUsd);
  if (cheaper === undefined) return [];
  const { name } = cheaper.size;
  const other = candidates.find(({ size }) => size.name === name);
  const reason =
    other === undefined
      ? refused.get(name)
      : `needs ${count(other.nodes, "node")}, ${usdPerHour(other.totalUsd)} in place of ${usdPerHour(best.totalUsd)}`;
  return [`the next cheaper, ${name} at ${usdPerHour(cheaper.usd)}, does not do: ${reason ?? "refused"}`];
}

function noPrices({ cloud, region }: CloudStack): string {
  return `no price of any ${cloud} size is known in ${region}; name a pool in place of gpu: auto`;
}
