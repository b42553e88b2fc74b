import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { SimState } from "./control.ts";

/** The simulator's program, to be put in place of an engine's command: `[process.execPath, simulatorProgram, ...]`. */
export const simulatorProgram = fileURLToPath(new URL("main.ts", import.meta.url));

/** A simulator as a process of its own. */
export interface SimulatorProcess extends AsyncDisposable {
  readonly pid: number;
  /** Standard output and error so far. */
  output(): string;
  /** Resolves when the process is gone. */
  readonly exited: Promise<{ readonly code: number | null; readonly signal: string | null }>;
  kill(signal: NodeJS.Signals): void;
}

/** Starts `main.ts` with `argv`; it is killed when the test lets go of it. */
export function spawnSimulator(argv: readonly string[], env: Readonly<Record<string, string>> = {}): SimulatorProcess {
  const child = spawn(process.execPath, [simulatorProgram, ...argv], {
    // The compile cache halves the time of a start.
    env: { PATH: process.env["PATH"], NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"], ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    // A flood of logs must not fill the test's memory.
    stream.setEncoding("utf8").on("data", (text: string) => (output = (output + text).slice(-1_000_000)));
  }
  const { promise: exited, resolve } = Promise.withResolvers<{ code: number | null; signal: string | null }>();
  child.once("close", (code, signal) => resolve({ code, signal }));
  return {
    pid: child.pid ?? -1,
    output: () => output,
    exited,
    kill: (signal) => void child.kill(signal),
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

/** `GET /sim/state` of a simulator. */
export async function readState(url: string): Promise<SimState> {
  const response = await fetch(`${url}/sim/state`);
  return (await response.json()) as SimState; // the simulator's own answer, typed where it is made
}

/** `POST /sim/faults`. */
export async function setFaults(url: string, faults: SimState["faults"]): Promise<void> {
  const response = await fetch(`${url}/sim/faults`, { method: "POST", body: JSON.stringify(faults) });
  if (!response.ok) throw new Error(`the simulator refused the faults: ${await response.text()}`);
}
