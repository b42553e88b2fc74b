import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { PenstockError } from "../../contracts/errors.ts";
import type { EngineCall, EngineLaunch, EnginePorts } from "../../engines/engine.ts";
import type { Logger } from "../../lib/log.ts";
import { messageOf, sendCall, type EngineAnswer } from "./call.ts";
import { spawnEngine, type EngineProcess } from "./process.ts";

/** A running engine process. */
export interface RunningEngine extends Pick<EngineProcess, "pid" | "exited" | "isGone" | "output" | "stop"> {
  /** `http://127.0.0.1:port`: engines listen on loopback only. */
  readonly origin: string;
  readonly ports: EnginePorts;
  readonly launch: EngineLaunch;
  /** One call of the agent's own. Throws `engine_died` when it cannot be reached within the time. */
  call(call: EngineCall, timeoutMs: number): Promise<EngineAnswer>;
  /** Calls in order; each must succeed. Throws `engine_died` with what the engine answered. */
  callAll(calls: readonly EngineCall[], timeoutMs: number): Promise<void>;
}

/** How the supervisor starts one engine. */
export interface StartOptions {
  readonly launch: EngineLaunch;
  readonly ports: EnginePorts;
  /** Environment that every engine gets; never the agent's own, which holds credentials. */
  readonly env: Readonly<Record<string, string>>;
  /** Folder of this engine alone: emptied, then filled with the launch's files. Removed when the engine is gone. */
  readonly workDirectory: string;
  /** How long the engine may take until it is ready. */
  readonly readyTimeoutMs: number;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** Between two readiness probes. The embedded engine is ready in about 300 ms, so this is under a tenth of it. */
const probeIntervalMs = 20;

/** A probe that takes longer is asked again: an engine that loads may not answer at all. */
const probeTimeoutMs = 2_000;

/** A step before the engine (`ray start`) is quick, or it is broken. */
const preludeTimeoutMs = 120_000;

/**
 * Starts an engine and waits until it is ready.
 * Throws `engine_start_failed` with the engine's own last words when it ends or stays silent, or the signal's reason.
 */
export async function startEngine(options: StartOptions): Promise<RunningEngine> {
  const { launch, ports, signal, log } = options;
  await fillFolder(options);
  const env = { ...options.env, ...launch.env };
  const place = { env, cwd: options.workDirectory, log };
  for (const command of launch.prelude) await runStep(spawnEngine({ command, lifeline: "stdin" }, place), signal);
  const child = spawnEngine(launch, place);
  void child.exited.then(() => rm(options.workDirectory, { recursive: true, force: true }).catch(() => undefined));
  const engine: RunningEngine = {
    ...child,
    get isGone() {
      return child.isGone;
    },
    origin: `http://127.0.0.1:${ports.api}`,
    ports,
    launch,
    call: (call, timeoutMs) => reach(call, { ports, child, timeoutMs }),
    callAll: (calls, timeoutMs) => callAll(calls, { ports, child, timeoutMs }),
  };
  try {
    await untilReady(engine, options);
    return engine;
  } catch (error) {
    await engine.stop(1_000);
    throw error;
  }
}

async function fillFolder({ workDirectory, launch }: StartOptions): Promise<void> {
  await rm(workDirectory, { recursive: true, force: true });
  await mkdir(workDirectory, { recursive: true });
  for (const [path, content] of Object.entries(launch.files)) {
    await mkdir(dirname(join(workDirectory, path)), { recursive: true });
    await writeFile(join(workDirectory, path), content);
  }
}

async function runStep(step: EngineProcess, signal: AbortSignal): Promise<void> {
  const outcome = await Promise.race([
    step.exited,
    delay(preludeTimeoutMs, undefined, { signal, ref: false }).catch(() => undefined),
  ]);
  if (outcome === undefined) {
    await step.stop(1_000);
    signal.throwIfAborted();
    throw new PenstockError("engine_start_failed", `A step before the engine took over ${preludeTimeoutMs / 1_000} s.`);
  }
  if (!outcome.endsWith("exit code 0)") && !outcome.endsWith("exit code 0")) {
    throw new PenstockError("engine_start_failed", `A step before the engine failed: ${outcome}`);
  }
}

async function untilReady(engine: RunningEngine, { readyTimeoutMs, signal, launch }: StartOptions): Promise<void> {
  const deadline = performance.now() + readyTimeoutMs;
  const { ready } = launch;
  while (performance.now() < deadline) {
    signal.throwIfAborted();
    if (engine.isGone) {
      throw new PenstockError("engine_start_failed", `The engine did not start: ${await engine.exited}`);
    }
    if (ready === null || (await answersOk(engine, ready))) return engine.callAll(launch.afterReady, readyTimeoutMs);
    await delay(probeIntervalMs);
  }
  const words = engine.output.reason();
  throw new PenstockError(
    "engine_start_failed",
    `The engine was not ready after ${readyTimeoutMs / 1_000} s${words === undefined ? "" : ` (it said last: ${words})`}; ` +
      "a larger model needs a longer --ready-timeout.",
  );
}

async function answersOk(engine: RunningEngine, call: EngineCall): Promise<boolean> {
  try {
    return (await sendCall(call, { ports: engine.ports, signal: AbortSignal.timeout(probeTimeoutMs) })).ok;
  } catch {
    return false;
  }
}

interface Reach {
  readonly ports: EnginePorts;
  readonly child: EngineProcess;
  readonly timeoutMs: number;
}

async function reach(call: EngineCall, { ports, child, timeoutMs }: Reach): Promise<EngineAnswer> {
  const gone = new AbortController();
  void child.exited.then(() => gone.abort());
  try {
    const signal = AbortSignal.any([gone.signal, AbortSignal.timeout(timeoutMs)]);
    return await sendCall(call, { ports, signal });
  } catch (cause) {
    const what = child.isGone ? `has stopped: ${await child.exited}` : `did not answer within ${timeoutMs / 1_000} s`;
    throw new PenstockError("engine_died", `${call.method} ${call.path}: the engine ${what}`, { cause });
  }
}

async function callAll(calls: readonly EngineCall[], options: Reach): Promise<void> {
  for (const call of calls) {
    const answer = await reach(call, options);
    if (answer.ok) continue;
    throw new PenstockError("engine_died", `${call.method} ${call.path}: the engine answered ${messageOf(answer)}`);
  }
}
