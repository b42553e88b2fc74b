import { join } from "node:path";
import { freePorts } from "../../runtime/agent/supervisor/ports.ts";
import { startEngine } from "../../runtime/agent/supervisor/start.ts";
import { engineSpec } from "../../runtime/contracts/engine.ts";
import { engineOf } from "../../runtime/engines/index.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { temporaryFolder } from "../support/folders.ts";
import { demoModel, repository } from "../support/repository.ts";
import { seconds } from "./figures.ts";

/** Seconds from starting the embedded engine with the demo model, without an agent, until it is ready. */
export async function engineByHand(): Promise<number> {
  const ports = await freePorts();
  await using folder = await temporaryFolder();
  const spec = engineSpec.parse({ kind: "embedded" });
  const described = engineOf(spec);
  const launch = described.launch(spec, {
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
  const elapsed = seconds(started);
  await engine.stop(5_000);
  return elapsed;
}
