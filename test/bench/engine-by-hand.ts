import { join } from "node:path";
import { freePorts } from "../../runtime/agent/supervisor/ports.ts";
import { startEngine } from "../../runtime/agent/supervisor/start.ts";
import { engineSpec } from "../../runtime/contracts/engine.ts";
import { engineOf } from "../../runtime/engines/index.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { temporaryFolder } from "../support/folders.ts";
import { demoModel, repository } from "../support/repository.ts";
import { seconds } from "./figures.ts";

/** An engine without an agent. */
export interface EngineByHand extends AsyncDisposable {
  readonly origin: string;
  /** From its start until it was ready. */
  readonly readySeconds: number;
}

/** Seconds from starting the embedded engine with the demo model, without an agent, until it is ready. */
export async function engineByHand(): Promise<number> {
  await using engine = await startByHand();
  return engine.readySeconds;
}

/** The embedded engine with the demo model, named `demo`. `spec` is what differs from the engine's defaults. */
export async function startByHand(spec: object = {}): Promise<EngineByHand> {
  const ports = await freePorts();
  const folder = await temporaryFolder();
  const embedded = engineSpec.parse({ kind: "embedded", ...spec });
  const described = engineOf(embedded);
  const launch = described.launch(embedded, {
    command: described.command,
    version: null,
    modelPath: demoModel,
    servedName: "demo",
    ports,
    adapters: {},
    gpus: [],
    workDirectory: folder.path,
    compileCacheDirectory: folder.path,
    group: null,
    logLevel: "silent",
  });
  const started = performance.now();
  const engine = await startEngine({
    launch,
    ports,
    workDirectory: `${folder.path}/work`,
    // As the agent's engines get it.
    env: { PATH: process.env["PATH"] ?? "", NODE_COMPILE_CACHE: join(repository, "node_modules/.cache/node") },
    readyTimeoutMs: 60_000,
    signal: new AbortController().signal,
    log: createLog("bench", "silent"),
  });
  return {
    origin: engine.origin,
    readySeconds: seconds(started),
    async [Symbol.asyncDispose]() {
      await engine.stop(5_000);
      await folder[Symbol.asyncDispose]();
    },
  };
}
