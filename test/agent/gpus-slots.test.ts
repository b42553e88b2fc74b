import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { DiscoveredGpu } from "../../runtime/agent/gpus/gpu.ts";
import { GpuSlots, type GpuRequest, type GpuReservation } from "../../runtime/agent/gpus/slots.ts";
import { PenstockError } from "../../runtime/contracts/errors.ts";

const gib = 2 ** 30;

/** GPUs of `sizesGiB`, where those of one island are all linked to each other. */
function node(sizesGiB: readonly number[], islands: readonly (readonly number[])[] = []): DiscoveredGpu[] {
  return sizesGiB.map((size, index) => ({
    index,
    uuid: `GPU-${index}`,
    name: "NVIDIA H100 80GB HBM3",
    memoryTotalBytes: size * gib,
    memoryUsedBytes: 0,
    utilisationPercent: 0,
    computeCapability: "9.0",
    driverVersion: "580.0",
    mig: false,
    nvlinkPeers: islands.flatMap((island) => (island.includes(index) ? island.filter((peer) => peer !== index) : [])),
  }));
}

const four = [80, 80, 80, 80];
const eight = [...four, ...four];
const twoPairs = [
  [0, 1],
  [2, 3],
];
const twoQuads = [
  [0, 1, 2, 3],
  [4, 5, 6, 7],
];
const nvswitch = [[0, 1, 2, 3, 4, 5, 6, 7]];

/** `2x72` is two GPUs with 72 GiB each; `!` needs NVLink, `=` wants them alone. */
function request(words: string, modelId = "m"): GpuRequest {
  const [, count, size, flags] = /^(\d+)x(\d+)([!=]*)$/.exec(words) ?? [];
  return {
    modelId,
    gpuCount: Number(count),
    memoryBytesPerGpu: Number(size) * gib,
    needsNvLink: flags?.includes("!") === true,
    exclusive: flags?.includes("=") === true,
  };
}

test.for([
  ["one model takes the first GPU", four, [], ["1x40"], [[0]]],
  [
    "small models share a GPU before another is touched",
    four,
    [],
    ["1x20", "1x20", "1x40", "1x1"],
    [[0], [0], [0], [1]],
  ],
  ["a model takes the GPU that it fills best", [80, 24, 48], [], ["1x20", "1x30"], [[1], [2]]],
  ["what is in use fills up before an idle GPU that fits better", [80, 24], [], ["1x30", "1x20"], [[0], [0]]],
  [
    "a set takes a connected pair",
    four,
    [
      [0, 2],
      [1, 3],
    ],
    ["2x72"],
    [[0, 2]],
  ],
  [
    "a second set takes the other pair",
    four,
    [
      [0, 2],
      [1, 3],
    ],
    ["2x72", "2x72"],
    [
      [0, 2],
      [1, 3],
    ],
  ],
  ["a lone GPU is taken before an island is broken", [80, 80, 80], [[0, 1]], ["1x40"], [[2]]],
  ["a broken island is used up before a whole one", four, twoPairs, ["1x70", "1x70", "2x70"], [[0], [1], [2, 3]]],
  [
    "a broken island is used up even where an idle one fits better",
    [81, 81, 80, 90],
    twoPairs,
    ["1x70", "1x70"],
    [[2], [3]],
  ],
  [
    "a smaller island is broken first",
    [80, 80, 80, 80, 80],
    [
      [0, 1, 2],
      [3, 4],
    ],
    ["1x40"],
    [[3]],
  ],
  [
    "pairs share a quad and leave the other whole",
    eight,
    twoQuads,
    ["2x70", "2x70", "4x70!"],
    [
      [0, 1],
      [2, 3],
      [4, 5, 6, 7],
    ],
  ],
  [
    "behind NVSwitch any GPUs make a set",
    eight,
    nvswitch,
    ["2x70!", "4x70!", "2x70!"],
    [
      [0, 1],
      [2, 3, 4, 5],
      [6, 7],
    ],
  ],
  ["a set without NVLink is taken when it need not have it", four, [], ["2x72"], [[0, 1]]],
  ["a connected set is preferred even where it breaks an island", [80, 80, 80, 80], [[1, 2, 3]], ["2x10"], [[1, 2]]],
  [
    "sets share GPUs by memory",
    four,
    twoPairs,
    ["2x30!", "2x40!"],
    [
      [0, 1],
      [0, 1],
    ],
  ],
  ["a model that wants to be alone gets an idle GPU", [80, 80], [], ["1x10", "1x10=", "1x10"], [[0], [1], [0]]],
] as const)("%s", ([, sizes, islands, requests, placed]) => {
  const slots = new GpuSlots(node(sizes, islands));
  expect(requests.map((words) => slots.reserve(request(words)).indices)).toEqual(placed);
});

test.for([
  ["more than a GPU has", four, [], [], "1x81"],
  ["more than is left", [80], [], ["1x60"], "1x21"],
  ["more GPUs than there are", four, twoPairs, [], "5x1"],
  ["NVLink where there is none", four, [], [], "2x10!"],
  ["NVLink between more GPUs than an island has", four, twoPairs, [], "3x10!"],
  ["NVLink when the islands are half taken", four, twoPairs, ["1x70", "1x70", "1x70"], "2x20!"],
  ["a GPU alone when models are on all", [80, 80], [], ["2x1"], "1x1="],
  ["a place beside a model that wanted to be alone", [80], [], ["1x1="], "1x1"],
] as const)("%s is refused, and nothing is taken", ([, sizes, islands, before, words]) => {
  const slots = new GpuSlots(node(sizes, islands));
  for (const each of before) slots.reserve(request(each));
  const snapshot = slots.snapshot();
  expect(() => slots.reserve(request(words))).toThrow(PenstockError);
  expect(slots.snapshot()).toEqual(snapshot);
});

/** The words of the refusal of `words`. */
function refusal(slots: GpuSlots, words: GpuRequest): string {
  try {
    slots.reserve(words);
  } catch (thrown) {
    if (thrown instanceof PenstockError && thrown.code === "insufficient_gpu_memory") return thrown.message;
    throw thrown;
  }
  throw new Error("the request was not refused");
}

test("a refusal shows the memory of every GPU and what to do", () => {
  const gpus = node([80, 80], [[0, 1]]);
  const slots = new GpuSlots(gpus.map((gpu) => ({ ...gpu, memoryUsedBytes: 1.25 * gib })));
  slots.reserve(request("1x40", "qwen-7b"));
  expect(refusal(slots, request("2x72!", "llama-70b"))).toBe(
    "llama-70b needs 2 GPUs with 72.0 GiB each, NVLink-connected; " +
      "GPU 0: 80.0 GiB total, 40.0 reserved by qwen-7b, 1.2 used by others, 38.7 free, NVLink to 1; " +
      "GPU 1: 80.0 GiB total, 0.0 reserved, 1.2 used by others, 78.7 free, NVLink to 0. " +
      "Unload a model, put one to sleep, or load it on another node.",
  );
});

test.for([
  ["no GPU", [], [], "1x1", "this node has no GPU. Load it on a node with GPUs."],
  ["too few GPUs", [80], [], "2x1!", "This node has only 1: lower the tensor-parallel size or use a larger node."],
  ["too small GPUs", [24], [], "1x40", "It would not fit even without other models"],
  ["only NVLink missing", [80, 80], [], "2x40!", "GPUs 0, 1 have the memory but no NVLink"],
] as const)("the remedy fits a node with %s", ([, sizes, islands, words, expected]) => {
  expect(refusal(new GpuSlots(node(sizes, islands)), request(words))).toContain(expected);
});

test("GPUs in MIG mode and GPUs of unknown size are never used, and the refusal says so", () => {
  const [first, second] = node([80, 0]);
  const slots = new GpuSlots([{ ...first, mig: true } as DiscoveredGpu, second as DiscoveredGpu]); // node(2) has two
  expect(refusal(slots, request("1x1"))).toMatch(/GPU 0: in MIG mode.*GPU 1: its driver does not say/);
});

test.for([
  [0, 1],
  [1.5, 1],
  [1, 0],
  [1, -1],
  [1, Number.NaN],
  [1, Number.POSITIVE_INFINITY],
] as const)("%d GPUs with %d bytes are a mistake of the caller", ([gpuCount, memoryBytesPerGpu]) => {
  const slots = new GpuSlots(node(four));
  expect(() => slots.reserve({ modelId: "m", gpuCount, memoryBytesPerGpu, needsNvLink: false })).toThrow(RangeError);
});

test("sizes are rounded up where they are needed and down where they are free", () => {
  const slots = new GpuSlots(node([80]));
  const words = refusal(slots, { ...request("1x80"), memoryBytesPerGpu: 80 * gib + 1 });
  expect(words).toContain("m needs 1 GPU with 80.1 GiB; GPU 0: 80.0 GiB total");
});

test("a reservation grows into what is free beside it, and no further", () => {
  const slots = new GpuSlots(node([80]));
  const engine = slots.reserve(request("1x50"));
  slots.reserve(request("1x10"));
  engine.resize(70 * gib);
  expect(() => engine.resize(70 * gib + 1)).toThrow(PenstockError);
  expect(engine.memoryBytesPerGpu).toBe(70 * gib);
});

test("an engine that sleeps gives its memory to others, and wakes only when it fits again", () => {
  const slots = new GpuSlots(node([80, 80], [[0, 1]]));
  const sleeper = slots.reserve(request("2x72!", "sleeper"));
  sleeper.resize(2 * gib);
  expect(sleeper.memoryBytesPerGpu).toBe(2 * gib);
  const guest = slots.reserve(request("1x60", "guest"));
  expect(guest.indices).toEqual([0]);
  expect(() => sleeper.resize(72 * gib)).toThrow(
    "sleeper needs 72.0 GiB on each of its GPUs again; " +
      "GPU 0: 80.0 GiB total, 2.0 reserved by sleeper, 60.0 reserved by guest, 0.0 used by others, 18.0 free. Unload",
  );
  expect(slots.snapshot().map(({ reservedBytes }) => reservedBytes / gib)).toEqual([62, 2]);
  guest[Symbol.dispose]();
  sleeper.resize(72 * gib);
  expect(slots.snapshot().map(({ reservedBytes }) => reservedBytes / gib)).toEqual([72, 72]);
  sleeper[Symbol.dispose]();
  sleeper[Symbol.dispose]();
  expect(slots.snapshot().map(({ reservedBytes }) => reservedBytes)).toEqual([0, 0]);
  expect(() => sleeper.resize(1)).toThrow("given back");
});

/** Takes in what the driver says: the GiB used on each GPU. */
function use(slots: GpuSlots, ...usedGiB: readonly number[]): number[] {
  return slots.update(
    usedGiB.map((each, at) => ({ uuid: `GPU-${at}`, memoryUsedBytes: each * gib, utilisationPercent: 50 })),
  );
}

/** The GiB that are free on GPU 0. */
function free(slots: GpuSlots): number {
  return Number(/([\d.]+) free/.exec(refusal(slots, request("1x1000")))?.[1]);
}

test("memory that another process uses is not given out, before, while and after our engine fills its own", () => {
  const slots = new GpuSlots(node([80]));
  use(slots, 30);
  expect(free(slots)).toBe(50);
  const engine = slots.reserve(request("1x40"));
  use(slots, 30); // the engine has not allocated yet
  expect(free(slots)).toBe(10);
  use(slots, 50);
  expect(free(slots)).toBe(10);
  use(slots, 70);
  expect(free(slots)).toBe(10);
  use(slots, 75); // the other process grew
  expect(free(slots)).toBe(5);
  engine[Symbol.dispose]();
  use(slots, 35);
  expect(free(slots)).toBe(45);
  use(slots, 0);
  expect(free(slots)).toBe(80);
});

test("a sample from before an engine fell asleep does not count its memory as another's", () => {
  const slots = new GpuSlots(node([80]));
  const engine = slots.reserve(request("1x70"));
  use(slots, 70);
  engine.resize(2 * gib);
  use(slots, 70);
  expect(free(slots)).toBe(78);
  use(slots, 2);
  expect(free(slots)).toBe(78);
  use(slots, 32); // now it is another's
  expect(free(slots)).toBe(48);
});

test("the snapshot has the last sample of each GPU, and GPUs that are gone are named", () => {
  const slots = new GpuSlots(node([80, 80], [[0, 1]]));
  expect(use(slots, 7)).toEqual([1]);
  expect(slots.snapshot()).toEqual([
    {
      index: 0,
      uuid: "GPU-0",
      name: "NVIDIA H100 80GB HBM3",
      memoryTotalBytes: 80 * gib,
      memoryUsedBytes: 7 * gib,
      reservedBytes: 0,
      utilisationPercent: 50,
      nvlinkPeers: [1],
    },
    expect.objectContaining({ index: 1, memoryUsedBytes: 0, utilisationPercent: 0, nvlinkPeers: [0] }),
  ]);
});

const machine = fc.constantFrom(
  node([24]),
  node([80, 48, 24]),
  node(four, twoPairs),
  node(four, [[1, 2, 3]]),
  node(eight, twoQuads),
  node(eight, nvswitch),
);
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("reserve" as const),
      gpuCount: fc.integer({ min: 1, max: 5 }),
      size: fc.integer({ min: 1, max: 90 }),
      exclusive: fc.boolean(),
      needsNvLink: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("release" as const), at: fc.nat(20) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("resize" as const), at: fc.nat(20), size: fc.nat(90) }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** Does one step; a refusal changes nothing. */
function perform(slots: GpuSlots, held: GpuReservation[], each: Step): void {
  try {
    if (each.kind === "reserve") {
      const memoryBytesPerGpu = each.size * gib;
      held.push(slots.reserve({ modelId: `m${held.length}`, ...each, memoryBytesPerGpu }));
    } else if (held.length > 0) {
      const [chosen] = held.slice(each.at % held.length);
      if (each.kind === "resize") chosen?.resize(each.size * gib);
      else for (const gone of held.splice(each.at % held.length, 1)) gone[Symbol.dispose]();
    }
  } catch (thrown) {
    if (!(thrown instanceof PenstockError)) throw thrown;
  }
}

test("no order of reservations, resizes and releases over-commits a GPU; giving all back restores everything", () => {
  fc.assert(
    fc.property(machine, fc.array(step, { maxLength: 40 }), fc.nat(10), (gpus, steps, othersGiB) => {
      const slots = new GpuSlots(gpus);
      use(slots, ...gpus.map(() => othersGiB));
      const start = slots.snapshot();
      const held: GpuReservation[] = [];
      for (const each of steps) {
        perform(slots, held, each);
        for (const gpu of slots.snapshot()) {
          const ours = held.filter(({ indices }) => indices.includes(gpu.index));
          expect(gpu.reservedBytes).toBe(ours.reduce((sum, { memoryBytesPerGpu }) => sum + memoryBytesPerGpu, 0));
          expect(gpu.reservedBytes + gpu.memoryUsedBytes).toBeLessThanOrEqual(gpu.memoryTotalBytes);
        }
      }
      for (const each of held) each[Symbol.dispose]();
      expect(slots.snapshot()).toEqual(start);
    }),
  );
});

/** Every set of `size` numbers, by brute force over bit masks. */
function subsets(numbers: readonly number[], size: number): number[][] {
  return Array.from({ length: 2 ** numbers.length }, (_, mask) => numbers.filter((_n, at) => (mask >> at) & 1)).filter(
    (set) => set.length === size,
  );
}

test("a request is refused only when no set would do, and gets a connected set whenever there is one", () => {
  const demand = fc.record({ gpuCount: fc.integer({ min: 1, max: 5 }), size: fc.integer({ min: 1, max: 80 }) });
  fc.assert(
    fc.property(machine, fc.array(step, { maxLength: 12 }), demand, (gpus, steps, { gpuCount, size }) => {
      const slots = new GpuSlots(gpus);
      const held: GpuReservation[] = [];
      for (const each of steps) perform(slots, held, each.kind === "reserve" ? { ...each, exclusive: false } : each);
      const report = slots.snapshot();
      const fits = report.filter((gpu) => gpu.memoryTotalBytes - gpu.reservedBytes >= size * gib);
      const possible = subsets(
        fits.map(({ index }) => index),
        gpuCount,
      );
      const linked = (set: readonly number[]) =>
        set.every((one) => set.every((other) => one === other || report[one]?.nvlinkPeers.includes(other) === true));
      const placedAt = held.length;
      perform(slots, held, { kind: "reserve", gpuCount, size, exclusive: false, needsNvLink: false });
      const placed = held[placedAt];
      expect(placed !== undefined).toBe(possible.length > 0);
      expect(placed !== undefined && linked(placed.indices)).toBe(possible.some(linked));
    }),
  );
});

test("the same requests get the same GPUs", () => {
  fc.assert(
    fc.property(machine, fc.array(step, { maxLength: 20 }), (gpus, steps) => {
      const [one, other] = [1, 2].map(() => {
        const held: GpuReservation[] = [];
        const slots = new GpuSlots(gpus);
        for (const each of steps) perform(slots, held, each);
        return held.map(({ indices, memoryBytesPerGpu }) => ({ indices, memoryBytesPerGpu }));
      });
      expect(one).toEqual(other);
    }),
  );
});
