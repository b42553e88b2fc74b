/** A GPU as the placement sees it. */
export interface Place {
  readonly index: number;
  /** Indices of the GPUs that it reaches over NVLink. */
  readonly peers: ReadonlySet<number>;
  /** Bytes that could be reserved now; 0 where nothing may be placed. */
  readonly freeBytes: number;
  /** Whether nothing of ours is on it. */
  readonly idle: boolean;
}

/** What a set of GPUs has to offer. */
export interface Demand {
  readonly gpuCount: number;
  readonly memoryBytesPerGpu: number;
  /** Whether a set that is not NVLink-connected is no use. */
  readonly needsNvLink: boolean;
}

/**
 * The best set of GPUs for `demand`, in ascending order of indices; null when there is none. In this order a set is
 * better when
 * 1. every pair in it has an NVLink,
 * 2. it begins on fewer and smaller islands of NVLinked GPUs that are idle as a whole,
 * 3. it takes fewer idle GPUs, so that what is in use fills up first,
 * 4. it leaves fewer bytes over,
 * 5. its indices are lower.
 */
export function bestSet(places: readonly Place[], demand: Demand): number[] | null {
  const islands = idleIslands(places);
  const fitting = places.filter(({ freeBytes }) => freeBytes >= demand.memoryBytesPerGpu);
  let best: { set: readonly Place[]; score: readonly number[] } | null = null;
  for (const set of sets(fitting, demand.gpuCount)) {
    const apart = connected(set) ? 0 : 1;
    if (apart === 1 && demand.needsNvLink) continue;
    const leftOver = set.reduce((sum, { freeBytes }) => sum + freeBytes - demand.memoryBytesPerGpu, 0);
    const score = [apart, begunGpus(islands, set), set.filter(({ idle }) => idle).length, leftOver];
    // Sets come in the order of their indices, so the first of equals has the lowest.
    if (best === null || isLess(score, best.score)) best = { set, score };
  }
  return best === null ? null : best.set.map(({ index }) => index);
}

/** Whether every pair of the set has an NVLink. A single GPU is. */
export function connected(set: readonly Place[]): boolean {
  return set.every((one) => set.every((other) => one === other || one.peers.has(other.index)));
}

/** Groups of GPUs that NVLinks hold together and that have nothing of ours on any of them. */
function idleIslands(places: readonly Place[]): ReadonlySet<number>[] {
  const byIndex = new Map(places.map((place) => [place.index, place]));
  const seen = new Set<number>();
  const islands: Set<number>[] = [];
  for (const { index } of places) {
    if (seen.has(index)) continue;
    const island = new Set([index]);
    // A set that grows while it is walked: every peer is reached.
    for (const member of island) for (const peer of byIndex.get(member)?.peers ?? []) island.add(peer);
    for (const member of island) seen.add(member);
    if ([...island].every((member) => byIndex.get(member)?.idle === true)) islands.push(island);
  }
  return islands;
}

/** GPUs in the idle islands that the set takes something of. */
function begunGpus(islands: readonly ReadonlySet<number>[], set: readonly Place[]): number {
  return islands
    .filter((island) => set.some(({ index }) => island.has(index)))
    .reduce((sum, island) => sum + island.size, 0);
}

/** Every set of `size` places, in the order of their indices. */
function* sets(places: readonly Place[], size: number): Generator<readonly Place[]> {
  if (size === 0) {
    yield [];
    return;
  }
  for (const [at, first] of places.entries()) {
    for (const rest of sets(places.slice(at + 1), size - 1)) yield [first, ...rest];
  }
}

function isLess(a: readonly number[], b: readonly number[]): boolean {
  const at = a.findIndex((each, index) => each !== b[index]);
  return at !== -1 && (a[at] ?? 0) < (b[at] ?? 0);
}
