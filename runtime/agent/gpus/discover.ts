import type { DiscoveredGpu } from "./gpu.ts";
import { queryGpus } from "./query.ts";
import { GpuToolError, runTool, type GpuTool } from "./tool.ts";
import { parseTopology, topologyArguments } from "./topology.ts";

/** The GPUs of this node. */
export interface GpuInventory {
  /** In the order of their indices. Empty on a machine without `nvidia-smi`. */
  readonly gpus: readonly DiscoveredGpu[];
  /** Why NVLinks are not known, so that none are counted on; null when they are known. */
  readonly topologyProblem: string | null;
}

/**
 * Finds the GPUs of this node and the NVLinks between them.
 * Throws `GpuToolError`, fit to be shown, when the driver or its tool is broken; a machine without the tool has no GPUs.
 */
export async function discoverGpus(tool: GpuTool): Promise<GpuInventory> {
  const found = await queryGpus(tool).catch((thrown: unknown) => {
    if (thrown instanceof GpuToolError && thrown.missing) return [];
    throw thrown;
  });
  const { peers, problem } = found.length < 2 ? noLinks(null) : await nvlinks(tool);
  return {
    gpus: found.map((gpu) => ({
      ...gpu,
      nvlinkPeers: [...(peers.get(gpu.index) ?? [])].toSorted((a, b) => a - b),
    })),
    topologyProblem: problem,
  };
}

interface Links {
  readonly peers: ReadonlyMap<number, ReadonlySet<number>>;
  readonly problem: string | null;
}

async function nvlinks(tool: GpuTool): Promise<Links> {
  try {
    const { exitCode, stdout } = await runTool(tool, topologyArguments);
    if (exitCode !== 0) throw new GpuToolError(`${tool.command} topo -m failed with exit code ${exitCode}.`);
    return { peers: parseTopology(stdout), problem: null };
  } catch (thrown) {
    if (!(thrown instanceof GpuToolError)) throw thrown;
    return noLinks(thrown.message);
  }
}

function noLinks(problem: string | null): Links {
  return { peers: new Map(), problem };
}
