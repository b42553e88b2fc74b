import { readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import { discoverGpus } from "../../runtime/agent/gpus/discover.ts";
import { parseGpus } from "../../runtime/agent/gpus/query.ts";
import { GpuSampler } from "../../runtime/agent/gpus/sampler.ts";
import { GpuSlots } from "../../runtime/agent/gpus/slots.ts";
import { GpuToolError } from "../../runtime/agent/gpus/tool.ts";
import { parseTopology } from "../../runtime/agent/gpus/topology.ts";
import { createLog, type Logger } from "../../runtime/lib/log.ts";
import { FakeNvidiaSmi, fixture, type Machine } from "../fakes/nvidia-smi.ts";
import { temporaryFolder } from "../support/folders.ts";
import { alive } from "../support/repository.ts";

const mib = 2 ** 20;

const pairs = [[1], [0], [3], [2]];
const everyOther = [0, 1, 2, 3, 4, 5, 6, 7].map((index) => [0, 1, 2, 3, 4, 5, 6, 7].filter((peer) => peer !== index));

test.for([
  ["a10g", "NVIDIA A10G", 23_028, 526, "8.6", [[]]],
  ["a100-pairs", "NVIDIA A100 80GB PCIe", 81_920, 775, "8.0", pairs],
  ["h100-nvswitch", "NVIDIA H100 80GB HBM3", 81_559, 551, "9.0", everyOther],
  ["l40s-pcie", "NVIDIA L40S", 46_068, 9_722, "8.9", [[], [], [], []]],
] as const)(
  "the GPUs of %s are found with their NVLinks",
  async ([machine, name, totalMib, usedMib, capability, peers]) => {
    await using folder = await temporaryFolder();
    const { tool } = await FakeNvidiaSmi.of(machine, folder.path);
    const { gpus, topologyProblem } = await discoverGpus(tool);
    expect(topologyProblem).toBeNull();
    expect(gpus.map(({ index }) => index)).toEqual(peers.map((_, index) => index));
    expect(gpus.map(({ nvlinkPeers }) => nvlinkPeers)).toEqual(peers);
    expect(gpus[0]).toMatchObject({
      name,
      memoryTotalBytes: totalMib * mib,
      memoryUsedBytes: usedMib * mib,
      computeCapability: capability,
      mig: false,
    });
  },
);

test("fields that a GPU does not have are null, and a GPU without a size has size 0", async () => {
  const mig = parseGpus(await readFile(fixture("a100-mig", "query.csv"), "utf8"));
  expect(mig).toMatchObject([{ mig: true, utilisationPercent: null, memoryTotalBytes: 40_960 * mib }]);
  const unified = parseGpus(await readFile(fixture("gb10", "query.csv"), "utf8"));
  expect(unified).toMatchObject([{ name: "NVIDIA GB10", memoryTotalBytes: 0, memoryUsedBytes: 0, mig: false }]);
  const old = "0, GPU-79d7eede-aa01, Tesla K80, 11441, 11441, [Not Supported], 3.7, 470.256.02, [N/A]\n";
  expect(parseGpus(old)).toMatchObject([{ utilisationPercent: null, computeCapability: "3.7" }]);
});

test("a machine without nvidia-smi has no GPUs and no problem", async () => {
  await using folder = await temporaryFolder();
  const tool = { command: "nvidia-smi", env: { PATH: folder.path }, timeoutMs: 5_000 };
  expect(await discoverGpus(tool)).toEqual({ gpus: [], topologyProblem: null });
});

const noDriver =
  "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.";

test.for([
  ["without its driver", `echo "${noDriver}"; exit 9`, "exit code 9: NVIDIA-SMI has failed because it couldn't"],
  ["that finds no device", "echo 'No devices were found'; exit 6", "exit code 6: No devices were found"],
  ["that is too old", `echo 'Field "compute_cap" is not a valid field to query.'; exit 2`, `Field "compute_cap"`],
  ["that dies", "kill -9 $$", "exit code null: it said nothing"],
  ["that never stops printing", "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done", "printed more than"],
  ["that prints prose", "echo hello", "Line 1 of nvidia-smi has 1 fields instead of 9"],
] as const)("an nvidia-smi %s is an error that can be shown", async ([, script, words]) => {
  await using folder = await temporaryFolder();
  const fake = await FakeNvidiaSmi.of("a10g", folder.path);
  await fake.does(script);
  await expect(discoverGpus(fake.tool)).rejects.toThrow(GpuToolError);
  await expect(discoverGpus(fake.tool)).rejects.toMatchObject({
    missing: false,
    message: expect.stringContaining(words),
  });
});

test("an nvidia-smi that cannot be run is an error, not a machine without GPUs", async () => {
  await using folder = await temporaryFolder();
  await writeFile(`${folder.path}/nvidia-smi`, "not a program");
  const tool = { command: `${folder.path}/nvidia-smi`, env: {}, timeoutMs: 5_000 };
  await expect(discoverGpus(tool)).rejects.toMatchObject({
    missing: false,
    message: expect.stringContaining("EACCES"),
  });
});

test("an nvidia-smi for which the system has no room is an error like any other", async () => {
  const tool = { command: "/bin/true", env: { HUGE: "x".repeat(4 * mib) }, timeoutMs: 5_000 };
  await expect(discoverGpus(tool)).rejects.toMatchObject({ missing: false, message: expect.stringContaining("E2BIG") });
});

test("a damaged info ROM, which clouds have, hides no GPU", async () => {
  await using folder = await temporaryFolder();
  const fake = await FakeNvidiaSmi.of("a10g", folder.path);
  await fake.does(`cat "${folder.path}/query.csv"; echo "WARNING: infoROM is corrupted at gpu 0000:00:1E.0"; exit 14`);
  expect((await discoverGpus(fake.tool)).gpus).toMatchObject([{ name: "NVIDIA A10G" }]);
});

test("an nvidia-smi that hangs is killed at its time-out", async () => {
  await using folder = await temporaryFolder();
  const fake = await FakeNvidiaSmi.of("a10g", folder.path, 1_000);
  await fake.does(`echo $$ > "${folder.path}/pid"; exec sleep 600`);
  const error = await discoverGpus(fake.tool).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ message: expect.stringContaining("gave no answer for 1 s") });
  await (error instanceof GpuToolError ? error.gone : undefined);
  expect(alive(Number(await readFile(`${folder.path}/pid`, "utf8")))).toBe(false);
});

test("GPUs whose NVLinks are not known are used without them, and the reason is kept", async () => {
  await using folder = await temporaryFolder();
  const fake = await FakeNvidiaSmi.of("a100-pairs", folder.path);
  await writeFile(`${folder.path}/topo.txt`, "Failed to get topology\n");
  const { gpus, topologyProblem } = await discoverGpus(fake.tool);
  expect(gpus.map(({ nvlinkPeers }) => nvlinkPeers)).toEqual([[], [], [], []]);
  expect(topologyProblem).toContain("printed no matrix");
});

const row = "0, GPU-79d7eede-aa01, NVIDIA L4, 23034, 22000, 5, 8.9, 570.1.1, [N/A]";

test.for([
  ["a size in words", row.replace("23034", "lots"), "memory.total: is no number of MiB"],
  ["a unit", row.replace("23034", "23034 MiB"), "memory.total: is no number of MiB"],
  ["a negative size", row.replace("23034", "-1"), "memory.total"],
  ["an index like a path", row.replace("0,", "../0,"), "index: is no index"],
  ["a UUID with a space", row.replace("-aa01", " aa01"), "uuid: is no UUID"],
  ["a name with an escape", row.replace("L4", "\u001b[31mL4"), "name: is no name"],
  ["more than 100 %", row.replace(" 5,", " 101,"), "utilization.gpu"],
  ["another MIG mode", row.replace("[N/A]", "Perhaps"), "mig.mode.current"],
  ["a GPU that is broken", row.replace("22000", "[GPU requires reset]"), "reports [GPU requires reset] for GPU 0"],
  ["the same GPU twice", `${row}\n${row}`, "same index"],
  ["the same UUID twice", `${row}\n${row.replace("0,", "1,")}`, "same uuid"],
  ["17 GPUs", Array.from({ length: 17 }, (_, at) => row.replace("0,", `${at},`)).join("\n"), "lists 17 GPUs"],
] as const)("%s in the rows is refused", ([, csv, words]) => {
  expect(() => parseGpus(csv)).toThrow(words);
});

const topology = (machine: Machine) => readFileSync(fixture(machine, "topo.txt"), "utf8");

test.for([
  ["nothing", "", "no matrix"],
  ["a row that is gone", topology("a100-pairs").replace(/^GPU2.*\n/m, ""), "GPU 2"],
  ["a pair that disagrees", topology("a100-pairs").replace("NV12", "SYS"), "contradicts itself"],
  ["a cell that is gone", topology("a100-pairs").replaceAll("SYS\tNV12\t X ", "SYS"), "cannot be read"],
  ["a GPU that is another one", topology("a100-pairs").replaceAll("NV12", " X "), "cannot be read"],
  ["a cell that is prose", topology("a100-pairs").replaceAll("NV12", "fast"), "cannot be read"],
] as const)("%s in the matrix is refused", ([, text, words]) => {
  expect(() => parseTopology(text)).toThrow(words);
});

test("the matrix of an older tool, with named cards and no colours, is read too", () => {
  const text = [
    "\tGPU0\tGPU1\tmlx5_0\tCPU Affinity",
    "GPU0\t X \tNV3\tNODE\t0-63",
    "GPU1\tNV3\t X \tSYS\t0-63",
    "mlx5_0\tNODE\tSYS\t X \t",
  ].join("\r\n");
  expect(parseTopology(text)).toEqual(
    new Map([
      [0, new Set([1])],
      [1, new Set([0])],
    ]),
  );
});

/** A sampler to be started; each of its calls may take `timeoutMs`. */
async function sampling(machine: Machine, folder: string, timeoutMs = 20_000) {
  const fake = await FakeNvidiaSmi.of(machine, folder);
  const slots = new GpuSlots((await discoverGpus(fake.tool)).gpus);
  const warn = vi.fn<Logger["warn"]>();
  const log = Object.assign(createLog("test", "silent"), { warn });
  const start = () => new GpuSampler({ slots, tool: { ...fake.tool, timeoutMs }, intervalMs: 20, log });
  return { fake, slots, start, warn };
}

test("the sampler brings new numbers into the snapshot and stops when asked", async () => {
  await using folder = await temporaryFolder();
  const { fake, slots, start } = await sampling("a10g", folder.path);
  const sampler = start();
  const csv = await readFile(fixture("a10g", "query.csv"), "utf8");
  await fake.rows(csv.replace("22502, 0", "3028, 97"));
  await expect
    .poll(() => slots.snapshot())
    .toMatchObject([{ index: 0, memoryUsedBytes: 20_000 * mib, utilisationPercent: 97, reservedBytes: 0 }]);
  expect(sampler.problem).toBeNull();
  await sampler.stop();
  const calls = () => readFileSync(`${folder.path}/calls`, "utf8").split("\n").length;
  const before = calls();
  await delay(200);
  expect(calls()).toBe(before);
});

test("a sampler whose tool fails keeps the last numbers, says so once, and recovers", async () => {
  await using folder = await temporaryFolder();
  const { fake, slots, start, warn } = await sampling("a100-pairs", folder.path);
  const csv = await readFile(fixture("a100-pairs", "query.csv"), "utf8");
  await fake.rows(csv.replace(/^3,.*\n/m, ""));
  const sampler = start();
  await expect.poll(() => sampler.problem).toContain("no longer lists GPU 3");
  expect(slots.snapshot()[3]).toMatchObject({ memoryUsedBytes: 775 * mib });
  await fake.rows(csv.replace("81145, 0", "[Unknown Error], 0"));
  await expect.poll(() => sampler.problem).toContain("[Unknown Error] for GPU 0");
  const failures = () => readFileSync(`${folder.path}/calls`, "utf8").split("\n").length;
  const before = failures();
  await expect.poll(failures).toBeGreaterThan(before + 3);
  expect(warn).toHaveBeenCalledTimes(2);
  await fake.rows(csv);
  await expect.poll(() => sampler.problem).toBeNull();
  await sampler.stop();
});

test("a tool that hangs is not started a second time beside itself, and stopping does not wait for it", async () => {
  await using folder = await temporaryFolder();
  const { fake, slots, start } = await sampling("a10g", folder.path, 250);
  await fake.does(`echo $$ >> "${folder.path}/pids"; exec sleep 600`);
  const sampler = start();
  await expect.poll(() => sampler.problem).toContain("gave no answer for 0.25 s");
  await expect.poll(() => readFileSync(`${folder.path}/pids`, "utf8").trim().split("\n").length).toBeGreaterThan(2);
  const pids = readFileSync(`${folder.path}/pids`, "utf8").trim().split("\n").map(Number);
  expect(pids.filter(alive).length).toBeLessThanOrEqual(1);
  expect(slots.snapshot()).toMatchObject([{ memoryUsedBytes: 526 * mib }]);
  await sampler.stop();
  await expect
    .poll(() => readFileSync(`${folder.path}/pids`, "utf8").trim().split("\n").map(Number).filter(alive))
    .toEqual([]);
});

test("stopping ends the call that is under way, which is no problem of the GPUs", async () => {
  await using folder = await temporaryFolder();
  const { fake, start, warn } = await sampling("a10g", folder.path, 600_000);
  await fake.does(`echo $$ >> "${folder.path}/pids"; exec sleep 600`);
  const sampler = start();
  const pid = () => Number(readFileSync(`${folder.path}/pids`, "utf8"));
  await expect.poll(pid).toBeGreaterThan(0);
  await sampler.stop();
  await expect.poll(() => alive(pid())).toBe(false);
  expect(sampler.problem).toBeNull();
  expect(warn).not.toHaveBeenCalled();
});
