import { GpuToolError } from "./tool.ts";

/** Arguments that print the matrix of connections. */
export const topologyArguments: readonly string[] = ["topo", "-m"];

/** The tool underlines the header even when nobody reads it on a terminal. */
// oxlint-disable-next-line no-control-regex -- the escape character is what this looks for
const escapes = /\u001b\[[\d;]*m/g;

/**
 * Reads the matrix of `nvidia-smi topo -m`: for each GPU's index, the indices that it reaches over NVLink. `NV1` to
 * `NV18` count the links of a pair; through NVSwitch every pair has them. `PIX`, `PXB`, `PHB`, `NODE` and `SYS` go over
 * PCIe. Rows and columns of network cards and the affinity columns are left out. Throws `GpuToolError`.
 */
export function parseTopology(text: string): Map<number, Set<number>> {
  const lines = text.replaceAll(escapes, "").split(/\r?\n/);
  const headerAt = lines.findIndex((line) => /^\s+GPU\d+(\s|$)/.test(line));
  const header = lines[headerAt]?.split("\t").map((cell) => cell.trim());
  if (header === undefined) throw new GpuToolError("nvidia-smi topo -m printed no matrix of GPUs.");
  const columns = header.flatMap((cell, at) => (gpuIndex(cell) === null ? [] : [{ at, index: gpuIndex(cell) ?? 0 }]));
  const peers = new Map<number, Set<number>>();
  for (const line of lines.slice(headerAt + 1)) {
    const cells = line.split("\t").map((cell) => cell.trim());
    const index = gpuIndex(cells[0] ?? "");
    if (index !== null) peers.set(index, new Set(linked(columns, { index, cells })));
  }
  for (const { index } of columns) {
    for (const peer of peers.get(index) ?? missingRow(index)) {
      if (peers.get(peer)?.has(index) !== true) {
        throw new GpuToolError(`nvidia-smi topo -m contradicts itself about GPU ${index} and GPU ${peer}.`);
      }
    }
  }
  return peers;
}

function linked(
  columns: readonly { at: number; index: number }[],
  row: { index: number; cells: readonly string[] },
): number[] {
  return columns
    .filter(({ at, index }) => {
      const cell = row.cells[at] ?? "";
      if (!/^(X|[A-Z][A-Z0-9]{1,7})$/.test(cell) || (cell === "X") !== (index === row.index)) {
        throw new GpuToolError(`nvidia-smi topo -m cannot be read between GPU ${row.index} and GPU ${index}.`);
      }
      return /^NV[1-9]\d?$/.test(cell);
    })
    .map(({ index }) => index);
}

function gpuIndex(cell: string): number | null {
  const digits = /^GPU(\d{1,2})$/.exec(cell)?.[1];
  return digits === undefined ? null : Number(digits);
}

function missingRow(index: number): never {
  throw new GpuToolError(`nvidia-smi topo -m has a column but no row for GPU ${index}.`);
}
