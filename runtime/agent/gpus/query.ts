import { z } from "zod";
import { problemLines } from "../../contracts/validate.ts";
import { maxGpus, type Gpu, type GpuSample } from "./gpu.ts";
import { GpuToolError, runTool, type GpuTool } from "./tool.ts";

/** Fields of the query, in the order of their columns. `compute_cap` and this `memory.free` need driver 510 (2022). */
const columns = [
  "index",
  "uuid",
  "name",
  "memory.total",
  "memory.free",
  "utilization.gpu",
  "compute_cap",
  "driver_version",
  "mig.mode.current",
] as const;

/** Arguments that list the GPUs, a line each. */
export const queryArguments: readonly string[] = [`--query-gpu=${columns.join(",")}`, "--format=csv,noheader,nounits"];

/**
 * `nvidia-smi` ends with 14 when the info ROM of a GPU is damaged, which is common in clouds and harms nothing: the
 * answer is complete (NVIDIA's manual, "return value").
 */
const fineExitCodes: ReadonlySet<number | null> = new Set([0, 14]);

/** Values of a field that this GPU or its driver does not have. */
const absent: ReadonlySet<string> = new Set(["[N/A]", "N/A", "[Not Supported]", "[Not Found]"]);

/** A cell that may be absent. */
const optional = <Cell extends z.ZodType>(cell: Cell) =>
  z.preprocess((value) => (typeof value === "string" && absent.has(value) ? null : value), cell.nullable());

const mebibytes = z
  .string()
  .regex(/^\d{1,9}$/, "is no number of MiB")
  .transform((text) => Number(text) * 2 ** 20);

const row = z.object({
  index: z
    .string()
    .regex(/^\d{1,2}$/, "is no index")
    .transform(Number),
  uuid: z.string().regex(/^GPU-[0-9a-fA-F-]{8,64}$/, "is no UUID"),
  name: z.string().regex(/^[\x20-\x7e]{1,96}$/, "is no name"),
  "memory.total": optional(mebibytes),
  "memory.free": optional(mebibytes),
  "utilization.gpu": optional(
    z
      .string()
      .regex(/^(\d{1,2}|100)$/, "is no percentage")
      .transform(Number),
  ),
  compute_cap: optional(z.string().regex(/^\d{1,2}\.\d$/, "is no compute capability")),
  driver_version: optional(z.string().regex(/^\d[\d.]{2,31}$/, "is no driver version")),
  "mig.mode.current": optional(z.enum(["Enabled", "Disabled"])),
});

/** Asks the driver for its GPUs, in the order of their indices. Throws `GpuToolError`. */
export async function queryGpus(tool: GpuTool, signal?: AbortSignal): Promise<(Gpu & GpuSample)[]> {
  const { exitCode, stdout, stderr } = await runTool(tool, queryArguments, signal);
  if (!fineExitCodes.has(exitCode)) {
    throw new GpuToolError(`${tool.command} failed with exit code ${exitCode}: ${firstWords(stdout, stderr)}`);
  }
  return parseGpus(stdout);
}

/** The GPUs in the tool's answer. Throws `GpuToolError` that names the line and the field. */
export function parseGpus(csv: string): (Gpu & GpuSample)[] {
  // Drivers put warnings of this form among the rows.
  const lines = csv.split(/\r?\n/).filter((line) => line.trim() !== "" && !line.startsWith("WARNING:"));
  if (lines.length > maxGpus) {
    throw new GpuToolError(`nvidia-smi lists ${lines.length} GPUs; at most ${maxGpus} in a node are supported.`);
  }
  const gpus = lines.map(parseRow).toSorted((a, b) => a.index - b.index);
  for (const key of ["index", "uuid"] as const) {
    if (new Set(gpus.map((gpu) => gpu[key])).size !== gpus.length) {
      throw new GpuToolError(`nvidia-smi lists two GPUs with the same ${key}.`);
    }
  }
  return gpus;
}

function parseRow(line: string, number: number): Gpu & GpuSample {
  const cells = line.split(",").map((cell) => cell.trim());
  if (cells.length !== columns.length) {
    throw new GpuToolError(`Line ${number + 1} of nvidia-smi has ${cells.length} fields instead of ${columns.length}.`);
  }
  const fault = cells.find((cell) => cell.startsWith("[") && !absent.has(cell));
  if (fault !== undefined) {
    // Such as [GPU requires reset], [Unknown Error], [Insufficient Permissions].
    throw new GpuToolError(`nvidia-smi reports ${printable(fault)} for GPU ${printable(cells[0] ?? "")}.`);
  }
  const { data, error } = row.safeParse(Object.fromEntries(columns.map((column, at) => [column, cells[at]])));
  if (error !== undefined) {
    throw new GpuToolError(`Line ${number + 1} of nvidia-smi cannot be read: ${problemLines(error).join("; ")}.`);
  }
  const { "memory.total": total, "memory.free": free } = data;
  return {
    index: data.index,
    uuid: data.uuid,
    name: data.name,
    memoryTotalBytes: total === null || free === null ? 0 : total,
    memoryUsedBytes: total === null || free === null ? 0 : Math.max(0, total - free),
    utilisationPercent: data["utilization.gpu"],
    computeCapability: data.compute_cap,
    driverVersion: data.driver_version,
    mig: data["mig.mode.current"] === "Enabled",
  };
}

/** The first line that says what went wrong, short enough to show. */
function firstWords(stdout: string, stderr: string): string {
  const line = [...stderr.split("\n"), ...stdout.split("\n")].find((each) => each.trim() !== "");
  return line === undefined ? "it said nothing." : printable(line);
}

function printable(text: string): string {
  return text
    .replaceAll(/[^\x20-\x7e]/g, " ")
    .trim()
    .slice(0, 200);
}
