import { fileURLToPath } from "node:url";
import type { EngineSpec } from "../contracts/engine.ts";
import type { Engine } from "./engine.ts";

const program = fileURLToPath(new URL("../embedded/main.ts", import.meta.url));

/**
 * The embedded llama.cpp engine (runtime/embedded).
 * Consumes a GGUF file. Cannot sleep, split a model over GPUs, or read safetensors.
 * On failure it prints one line that names the remedy and exits with 1.
 */
export const embedded: Engine<Extract<EngineSpec, { kind: "embedded" }>> = {
  capabilities: { embeddings: true, tools: true, runtimeLora: true, sleep: false, tensorParallel: false },
  launch(spec, place) {
    const flags: Record<string, string> = {
      "--model-path": place.modelPath,
      "--served-model-name": place.servedName,
      "--host": "127.0.0.1",
      "--port": String(place.port),
      "--n-ctx": String(spec.nCtx),
      "--n-gpu-layers": String(spec.nGpuLayers),
      "--max-concurrent-requests": String(spec.maxConcurrentRequests),
      "--parallel": String(spec.parallelSequences),
      "--memory": spec.memory,
      "--log-level": place.logLevel,
    };
    if (spec.threads !== undefined) flags["--threads"] = String(spec.threads);
    const adapters = Object.entries(place.adapters).flatMap(([name, path]) => ["--lora", `${name}=${path}`]);
    return {
      command: process.execPath,
      argv: [program, ...Object.entries(flags).flat(), ...adapters, "--stop-with-stdin"],
      env: {},
      readyPath: "/ready",
      healthPath: "/health",
    };
  },
};
