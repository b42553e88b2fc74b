import { readFile } from "node:fs/promises";
import { cpus } from "node:os";

/** What decides how many threads pay off. */
export interface CpuFacts {
  /** Hardware threads that the operating system shows. */
  readonly logicalCores: number;
  /** Cores that do not share their arithmetic units. */
  readonly physicalCores: number;
  /** CPUs that the cgroup grants (1.5 is one and a half); undefined without a limit. */
  readonly cgroupCpus: number | undefined;
}

/** Below this many parameters a second thread costs more at its barriers than it computes. */
const smallModelParameters = 50_000_000;

/**
 * Threads for evaluation. The prebuilt CPU binary spins at every barrier, so one thread too many is far worse than one
 * too few (measured on 2 cores: 33 tokens/s with 1 thread, 0.4 with 4). One core stays free for HTTP and the system.
 */
export function chooseThreads(facts: CpuFacts, parameters: number): number {
  if (parameters < smallModelParameters) return 1;
  const quota = facts.cgroupCpus === undefined ? Number.POSITIVE_INFINITY : Math.floor(facts.cgroupCpus);
  return Math.max(1, Math.min(facts.physicalCores, quota, facts.logicalCores - 1));
}

/** CPUs granted by cgroup v2's `cpu.max` (`max 100000`, `150000 100000`); undefined without a limit. */
export function parseCpuMax(text: string): number | undefined {
  const [quota, period] = text.trim().split(/\s+/);
  return quotaCpus(quota, period);
}

/** CPUs granted by cgroup v1's two files; a quota of -1 is no limit. */
export function quotaCpus(quota: string | undefined, period: string | undefined): number | undefined {
  const granted = Number(quota) / Number(period);
  return Number.isFinite(granted) && granted > 0 ? granted : undefined;
}

/** Physical cores in `/proc/cpuinfo`: distinct pairs of socket and core; undefined where it does not say. */
export function parsePhysicalCores(cpuinfo: string): number | undefined {
  const cores = new Set<string>();
  for (const block of cpuinfo.split(/\n\s*\n/)) {
    const socket = /^physical id\s*:\s*(\d+)/m.exec(block)?.[1];
    const core = /^core id\s*:\s*(\d+)/m.exec(block)?.[1];
    if (socket !== undefined && core !== undefined) cores.add(`${socket}/${core}`);
  }
  return cores.size === 0 ? undefined : cores.size;
}

/** The facts of the machine (or container) that this process runs on. */
export async function readCpuFacts(): Promise<CpuFacts> {
  const logicalCores = Math.max(1, cpus().length);
  const [cpuinfo, cpuMax, quota, period] = await Promise.all(
    [
      "/proc/cpuinfo",
      "/sys/fs/cgroup/cpu.max",
      "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
      "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
    ].map(readIfThere),
  );
  return {
    logicalCores,
    physicalCores: Math.min(logicalCores, parsePhysicalCores(cpuinfo ?? "") ?? logicalCores),
    cgroupCpus: cpuMax === undefined ? quotaCpus(quota, period) : parseCpuMax(cpuMax),
  };
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return undefined;
  }
}
