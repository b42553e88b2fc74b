import { chmod, copyFile, rename, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { GpuTool } from "../../runtime/agent/gpus/tool.ts";

/** Nodes whose outputs are in the fixtures. */
export type Machine = "a10g" | "a100-pairs" | "h100-nvswitch" | "l40s-pcie" | "a100-mig" | "gb10";

/** Where an output of a node's `nvidia-smi` is. */
export function fixture(machine: Machine, file: "query.csv" | "topo.txt"): string {
  return fileURLToPath(new URL(`../agent/fixtures/nvidia-smi/${machine}/${file}`, import.meta.url));
}

/** An `nvidia-smi` that answers as a node does, as a real program. Strict about its arguments, as the real one is. */
export class FakeNvidiaSmi {
  readonly tool: GpuTool;
  readonly #folder: string;

  private constructor(folder: string, timeoutMs: number) {
    this.#folder = folder;
    this.tool = { command: `${folder}/nvidia-smi`, env: { PATH: "/usr/bin:/bin" }, timeoutMs };
  }

  static async of(machine: Machine, folder: string, timeoutMs = 20_000): Promise<FakeNvidiaSmi> {
    const fake = new FakeNvidiaSmi(folder, timeoutMs);
    await copyFile(fixture(machine, "query.csv"), `${folder}/query.csv`);
    await copyFile(fixture(machine, "topo.txt"), `${folder}/topo.txt`).catch(() => undefined);
    await fake.does(`
      echo "$*" >> "${folder}/calls"
      fields=index,uuid,name,memory.total,memory.free,utilization.gpu,compute_cap,driver_version,mig.mode.current
      case "$*" in
        "--query-gpu=$fields --format=csv,noheader,nounits") cat "${folder}/query.csv" ;;
        "topo -m") cat "${folder}/topo.txt" ;;
        *) echo "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help."; exit 1 ;;
      esac`);
    return fake;
  }

  /** Replaces the rows of the query from now on. */
  async rows(csv: string): Promise<void> {
    await this.#write("query.csv", csv);
  }

  /** Replaces the program by a shell script from now on. */
  async does(script: string): Promise<void> {
    await this.#write("nvidia-smi", `#!/bin/sh\n${script}\n`);
  }

  /** A reader, or a process that starts, sees the old file or the new one, never a part. */
  async #write(name: string, content: string): Promise<void> {
    const path = `${this.#folder}/${name}`;
    await writeFile(`${path}.new`, content);
    await chmod(`${path}.new`, 0o755);
    await rename(`${path}.new`, path);
  }
}
