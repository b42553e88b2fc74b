import type { EngineKind } from "../../runtime/contracts/engine.ts";
import type { Cloud } from "../stack/schema.ts";

/*
 * Seconds that things take until one has measured them: agents report their own times, and operators declare theirs.
 */

/** From a pending pod to a node that is ready, drivers included. */
export const nodeSeconds: Readonly<Record<Cloud, { readonly seconds: number; readonly source: string }>> = {
  azure: { seconds: 300, source: "node ready in 3 to 8 min (KAITO); about 4.5 min in AKS's own sample" },
  aws: { seconds: 240, source: "node ready in 3 to 8 min (KAITO); NVIDIA images need no driver installation" },
};

/** Seconds to pull and unpack a GB of image: a vLLM image of 10 GB takes 1 to 2 min (KAITO). */
export const imageSecondsPerGB = { seconds: 9, source: "an image of 10 GB in 1 to 2 min (KAITO)" } as const;

/** One node's share of a blob store, in GB/s: 32 ranges at 85 MB/s each (S3 performance guide). */
export const storeGBPerSecond = { value: 2.7, source: "32 ranges at 85 MB/s (S3 performance guide)" } as const;

/** What a range reader gets of the network interface. */
export const networkShare = 0.8;

/** Weights from local NVMe to the GPUs, in GB/s: safetensors on an H100 host, 29.4 GB/s disk (ServerlessLLM: 3.2 GB/s). */
export const diskGBPerSecond = { value: 3, source: "64 GB of safetensors in 20.6 s (ServerlessLLM)" } as const;

/** Weights from RAM to each GPU when a sleeping engine wakes, in GB/s. */
export const wakeGBPerSecond = { value: 25, source: "half of PCIe 5; 3B woke in 0.28 s on an H100" } as const;

/** Seconds that an engine needs beside its weights: compilation, CUDA graphs, peer checks. */
export const engineStartSeconds: Readonly<
  Record<EngineKind, { readonly oneGpu: number; readonly severalGpus: number; readonly source: string }>
> = {
  embedded: { oneGpu: 2, severalGpus: 2, source: "measured on a CPU" },
  llamacpp: { oneGpu: 5, severalGpus: 10, source: "no compilation" },
  vllm: { oneGpu: 60, severalGpus: 150, source: "compile 20 to 90 s; 70B on 8 GPUs: peers, compile and graphs 205 s" },
  triton: { oneGpu: 75, severalGpus: 165, source: "as vLLM, and Triton's own start" },
  trtllm: { oneGpu: 60, severalGpus: 120, source: "as vLLM: warm-up and CUDA graphs" },
};
