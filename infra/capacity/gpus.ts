/** What a GPU can do at most: memory in GB/s, dense tensor operations in TFLOP/s. From the makers' data sheets. */
export interface GpuSpeed {
  readonly memoryGBps: number;
  /** BF16, or FP16 where the GPU has no BF16. */
  readonly halfTflops: number;
  /** Null: no FP8 units, so FP8 weights are computed with in 16 bits. */
  readonly fp8Tflops: number | null;
  /** Part of the memory's speed that a decoding engine reaches; see `derived.ts`. */
  readonly isRecent: boolean;
}

const recent = { isRecent: true } as const;
const older = { isRecent: false, fp8Tflops: null } as const;

/** By the catalogue's name of the GPU (`infra/catalog/sizes.json`). Sparse figures of data sheets are halved. */
export const gpuSpeeds: Readonly<Record<string, GpuSpeed>> = {
  "AMD Instinct MI300X": { memoryGBps: 5_300, halfTflops: 1_307, fp8Tflops: 2_615, ...recent },
  "NVIDIA A10": { memoryGBps: 600, halfTflops: 125, ...older },
  "NVIDIA A100 40GB SXM4": { memoryGBps: 1_555, halfTflops: 312, ...older },
  "NVIDIA A100 80GB PCIe": { memoryGBps: 1_935, halfTflops: 312, ...older },
  "NVIDIA A100 80GB SXM4": { memoryGBps: 2_039, halfTflops: 312, ...older },
  "NVIDIA A10G": { memoryGBps: 600, halfTflops: 70, ...older },
  "NVIDIA B200": { memoryGBps: 7_700, halfTflops: 2_250, fp8Tflops: 4_500, ...recent },
  "NVIDIA B300": { memoryGBps: 8_000, halfTflops: 2_250, fp8Tflops: 4_500, ...recent },
  "NVIDIA GB200 (Blackwell GPU)": { memoryGBps: 8_000, halfTflops: 2_500, fp8Tflops: 5_000, ...recent },
  "NVIDIA GB300 (Blackwell Ultra GPU)": { memoryGBps: 8_000, halfTflops: 2_500, fp8Tflops: 5_000, ...recent },
  "NVIDIA H100 80GB SXM5": { memoryGBps: 3_350, halfTflops: 989, fp8Tflops: 1_979, ...recent },
  "NVIDIA H100 NVL 94GB": { memoryGBps: 3_938, halfTflops: 835, fp8Tflops: 1_671, ...recent },
  "NVIDIA H200 141GB SXM5": { memoryGBps: 4_800, halfTflops: 989, fp8Tflops: 1_979, ...recent },
  "NVIDIA L4": { memoryGBps: 300, halfTflops: 121, fp8Tflops: 242, ...recent },
  "NVIDIA L40S": { memoryGBps: 864, halfTflops: 362, fp8Tflops: 733, ...recent },
  "NVIDIA RTX PRO 4500 Blackwell": { memoryGBps: 896, halfTflops: 211, fp8Tflops: 422, ...recent },
  "NVIDIA RTX PRO 6000 Blackwell Server Edition": {
    memoryGBps: 1_597,
    halfTflops: 500,
    fp8Tflops: 1_000,
    ...recent,
  },
  "NVIDIA T4": { memoryGBps: 320, halfTflops: 65, ...older },
};
