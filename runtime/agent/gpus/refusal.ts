import { freeBytes, type Slot } from "./slot.ts";

/** A request that found no place. */
export interface Refused {
  readonly modelId: string;
  readonly gpuCount: number;
  readonly memoryBytesPerGpu: number;
  readonly exclusive?: boolean;
  readonly needsNvLink: boolean;
}

/** What would have made a difference. */
export interface Remedies {
  /** Whether there would be a place if no model of this agent held memory. */
  readonly fitsWhenEmpty: boolean;
  /** A set that only lacks NVLink; null when there is none. */
  readonly fitsWithoutNvLink: readonly number[] | null;
}

/** Why a request was refused, with the memory of every GPU, and what to do. */
export function refusalWords(request: Refused, slots: readonly Slot[], remedies: Remedies): string {
  const gpus = request.gpuCount === 1 ? "1 GPU" : `${request.gpuCount} GPUs`;
  const wishes = [
    request.exclusive === true ? ", shared with no other model" : "",
    request.needsNvLink && request.gpuCount > 1 ? ", NVLink-connected" : "",
  ].join("");
  const each = request.gpuCount === 1 ? "" : " each";
  const need = `${request.modelId} needs ${gpus} with ${gibAtLeast(request.memoryBytesPerGpu)} GiB${each}${wishes}`;
  const withLinks = request.needsNvLink && request.gpuCount > 1;
  return `${need}; ${slotWords(slots, withLinks)}. ${remedy(request, slots, remedies)}`;
}

/** Why a reservation cannot grow back. `short` are the GPUs that lack the memory. */
export function growthWords(modelId: string, bytes: number, short: readonly Slot[]): string {
  return (
    `${modelId} needs ${gibAtLeast(bytes)} GiB on each of its GPUs again; ${slotWords(short, false)}. ` +
    "Unload a model that came in the meantime, or put it to sleep."
  );
}

function remedy({ gpuCount }: Refused, slots: readonly Slot[], remedies: Remedies): string {
  if (slots.length === 0) return "Load it on a node with GPUs.";
  if (slots.length < gpuCount) {
    return `This node has only ${slots.length}: lower the tensor-parallel size or use a larger node.`;
  }
  if (remedies.fitsWithoutNvLink !== null) {
    return (
      `GPUs ${remedies.fitsWithoutNvLink.join(", ")} have the memory but no NVLink between every pair: ` +
      "allow tensor parallelism over PCIe, or unload models until a connected set is free."
    );
  }
  if (remedies.fitsWhenEmpty) return "Unload a model, put one to sleep, or load it on another node.";
  return "It would not fit even without other models: use more or larger GPUs, a smaller quantisation or less context.";
}

function slotWords(slots: readonly Slot[], withLinks: boolean): string {
  if (slots.length === 0) return "this node has no GPU";
  return slots
    .map((slot) => `GPU ${slot.gpu.index}: ${memoryWords(slot)}${withLinks ? linkWords(slot) : ""}`)
    .join("; ");
}

function memoryWords(slot: Slot): string {
  const { gpu, holdings, foreignBytes } = slot;
  if (gpu.mig) return "in MIG mode, which this agent does not use";
  if (gpu.memoryTotalBytes === 0) return "its driver does not say how much memory it has";
  const reserved = [...holdings].map(
    ({ modelId, bytes, exclusive }) => `${gib(bytes)} reserved by ${modelId}${exclusive ? " alone" : ""}`,
  );
  return [
    `${gib(gpu.memoryTotalBytes)} GiB total`,
    ...(reserved.length === 0 ? ["0.0 reserved"] : reserved),
    `${gib(foreignBytes)} used by others`,
    `${gib(freeBytes(slot))} free`,
  ].join(", ");
}

function linkWords({ gpu }: Slot): string {
  return gpu.nvlinkPeers.length === 0 ? ", no NVLink" : `, NVLink to ${gpu.nvlinkPeers.join(", ")}`;
}

/** Rounded down, so that what is free never looks enough when it is not. */
function gib(bytes: number): string {
  return (Math.floor(bytes / (2 ** 30 / 10)) / 10).toFixed(1);
}

/** Rounded up, for what is needed. */
function gibAtLeast(bytes: number): string {
  return (Math.ceil(bytes / (2 ** 30 / 10)) / 10).toFixed(1);
}
