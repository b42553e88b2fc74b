import { describe, expect, test } from "vitest";
import { chooseThreads, parseCpuMax, parsePhysicalCores, quotaCpus } from "../../runtime/embedded/threads.ts";

const large = 7_000_000_000;
const small = 2_000_000;

describe("chooseThreads", () => {
  test.each([
    ["a small model", { logicalCores: 64, physicalCores: 32, cgroupCpus: undefined, parameters: small }, 1],
    ["one core stays free", { logicalCores: 8, physicalCores: 8, cgroupCpus: undefined, parameters: large }, 7],
    ["hyperthreads do not count", { logicalCores: 16, physicalCores: 8, cgroupCpus: undefined, parameters: large }, 8],
    ["two cores", { logicalCores: 2, physicalCores: 2, cgroupCpus: undefined, parameters: large }, 1],
    ["one core", { logicalCores: 1, physicalCores: 1, cgroupCpus: undefined, parameters: large }, 1],
    ["a quota of 4 on 64 cores", { logicalCores: 64, physicalCores: 32, cgroupCpus: 4, parameters: large }, 4],
    ["a quota of 2.5", { logicalCores: 64, physicalCores: 32, cgroupCpus: 2.5, parameters: large }, 2],
    ["a quota below one", { logicalCores: 64, physicalCores: 32, cgroupCpus: 0.5, parameters: large }, 1],
    ["just small", { logicalCores: 8, physicalCores: 8, cgroupCpus: undefined, parameters: 49_999_999 }, 1],
    ["just large", { logicalCores: 8, physicalCores: 8, cgroupCpus: undefined, parameters: 50_000_000 }, 7],
  ])("%s", (_, { parameters, ...facts }, threads) => {
    expect(chooseThreads(facts, parameters)).toBe(threads);
  });
});

test.each([
  ["max 100000\n", undefined],
  ["150000 100000\n", 1.5],
  ["400000 100000", 4],
  ["", undefined],
])("cgroup v2 cpu.max %j is %s CPUs", (text, cpus) => {
  expect(parseCpuMax(text)).toBe(cpus);
});

test.each([
  ["-1\n", "100000\n", undefined],
  ["200000\n", "100000\n", 2],
  [undefined, undefined, undefined],
])("cgroup v1 quota %j of %j is %s CPUs", (quota, period, cpus) => {
  expect(quotaCpus(quota, period)).toBe(cpus);
});

test("physical cores are pairs of socket and core", () => {
  const block = (socket: number, core: number) => `processor\t: 0\nphysical id\t: ${socket}\ncore id\t\t: ${core}\n`;
  expect(parsePhysicalCores([block(0, 0), block(0, 0), block(0, 1), block(1, 0)].join("\n"))).toBe(3);
  expect(parsePhysicalCores("processor\t: 0\nBogoMIPS\t: 50\n")).toBeUndefined();
});
