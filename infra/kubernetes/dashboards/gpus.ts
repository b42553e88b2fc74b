import type { Dashboard, Panel } from "./dashboard.ts";

const each = (expr: string) => [{ expr, legend: "{{Hostname}} GPU {{gpu}}" }];

const use: Panel[] = [
  {
    title: "Busy",
    about: "Share of the time in which any kernel ran. One request makes it 100 %: compare with power.",
    unit: "percent",
    queries: each("max by (Hostname, gpu) (DCGM_FI_DEV_GPU_UTIL)"),
  },
  {
    title: "Power",
    about: "How hard GPUs work, more truly than Busy says.",
    unit: "watt",
    queries: each("max by (Hostname, gpu) (DCGM_FI_DEV_POWER_USAGE)"),
  },
  {
    title: "Memory in use",
    about: "Share of each GPU's memory: weights and KV cache.",
    unit: "percentunit",
    queries: each(
      "max by (Hostname, gpu) (DCGM_FI_DEV_FB_USED) / (max by (Hostname, gpu) (DCGM_FI_DEV_FB_USED) + max by (Hostname, gpu) (DCGM_FI_DEV_FB_FREE))",
    ),
  },
  {
    title: "Promised by agents",
    about: "Memory that agents reserved for models, and what the driver sees used.",
    unit: "bytes",
    queries: [
      {
        expr: 'sum by (pod, kind) (penstock_agent_gpu_memory_bytes{kind=~"reserved|used"})',
        legend: "{{pod}} {{kind}}",
      },
    ],
  },
  {
    title: "Tensor cores",
    about: "Share of the time in which they were busy.",
    unit: "percentunit",
    queries: each("max by (Hostname, gpu) (DCGM_FI_PROF_PIPE_TENSOR_ACTIVE)"),
  },
  {
    title: "Memory bandwidth",
    about: "Share of it in use: what bounds decoding.",
    unit: "percentunit",
    queries: each("max by (Hostname, gpu) (DCGM_FI_PROF_DRAM_ACTIVE)"),
  },
];

const health: Panel[] = [
  {
    title: "Temperature",
    about: "Above 85 °C GPUs slow down.",
    unit: "celsius",
    queries: each("max by (Hostname, gpu) (DCGM_FI_DEV_GPU_TEMP)"),
  },
  {
    title: "XID errors",
    about: "Number of the last error; 0 for none. NVIDIA lists what each means.",
    unit: "short",
    queries: each("max by (Hostname, gpu) (DCGM_FI_DEV_XID_ERRORS)"),
  },
  {
    title: "Rows that could not be repaired",
    about: "Anything but 0: replace the node.",
    unit: "short",
    queries: each("max by (Hostname, gpu) (DCGM_FI_DEV_ROW_REMAP_FAILURE)"),
  },
  {
    title: "NVLink traffic",
    about: "Tensor parallelism at work.",
    unit: "short",
    queries: each("max by (Hostname, gpu) (DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL)"),
  },
];

/** The GPUs, as NVIDIA's exporter sees them. */
export const gpusDashboard: Dashboard = {
  uid: "penstock-gpus",
  title: "Penstock: GPUs",
  rows: [
    { title: "Use", panels: use },
    { title: "Health", panels: health },
  ],
};
