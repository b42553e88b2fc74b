import { spawn, type ChildProcess } from "node:child_process";
import { createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { EngineLaunch } from "../contracts/engine.ts";
import { PenstockError } from "../contracts/errors.ts";
import type { Logger } from "../lib/log.ts";

/** A started engine process that answered its readiness probe. */
export interface RunningEngine {
  readonly pid: number;
  /** `http://127.0.0.1:port`: engines listen on loopback only. */
  readonly origin: string;
  /** Resolves with the last thing it said once the process is gone, for whatever reason. */
  readonly exited: Promise<string>;
  /** SIGTERM, then SIGKILL after `deadlineMs`. Resolves when the process is gone. */
  stop(deadlineMs: number): Promise<void>;
}

/** How the supervisor starts one engine. */
export interface StartOptions {
  readonly launch: EngineLaunch;
  readonly port: number;
  /** Environment that every engine gets; never the agent's own, which holds credentials. */
  readonly env: Readonly<Record<string, string>>;
  /** How long the engine may take until it is ready. */
  readonly readyTimeoutMs: number;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** Between two readiness probes. The embedded engine is ready in about 300 ms, so this is under a tenth of it. */
const probeIntervalMs = 20;

/** Lines of an engine's output that are kept to explain its death. */
const keptLines = 50;

/**
 * Starts an engine and waits until it is ready.
 * Throws `engine_start_failed` with the engine's own last words when it ends or stays silent.
 */
export async function startEngine(options: StartOptions): Promise<RunningEngine> {
  const { launch, log } = options;
  const child = spawn(launch.command, launch.argv, {
    env: { ...options.env, ...launch.env },
    // Its own process group: Ctrl-C in a terminal reaches the agent alone, which then drains before it stops engines.
    detached: true,
    // The open stdin is the engine's lifeline: it ends when its agent does, however the agent ended.
    stdio: ["pipe", "pipe", "pipe"],
  });
  const output = captureOutput(child, log);
  const exited = waitForExit(child, output);
  const engine: RunningEngine = {
    pid: child.pid ?? -1,
    origin: `http://127.0.0.1:${options.port}`,
    exited,
    stop: (deadlineMs) => stop(child, exited, deadlineMs),
  };
  try {
    await untilReady(engine, options);
    return engine;
  } catch (error) {
    await engine.stop(1_000);
    throw error;
  }
}

/** A loopback port that is free now. Another process may take it first: the engine then fails and is started again. */
export async function freePort(): Promise<number> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen({ host: "127.0.0.1", port: 0 }, resolve);
  await promise;
  const address = server.address();
  const { promise: closed, resolve: close } = Promise.withResolvers<void>();
  server.close(() => close());
  await closed;
  if (address === null || typeof address === "string") throw new Error("a TCP server has an address with a port");
  return address.port;
}

function captureOutput(child: ChildProcess, log: Logger): string[] {
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    let rest = "";
    stream?.setEncoding("utf8").on("data", (text: string) => {
      const parts = (rest + text).split("\n");
      // An engine that never ends its line must not fill the memory.
      rest = (parts.pop() ?? "").slice(-4_096);
      for (const line of parts) {
        if (line.trim() === "") continue;
        lines.push(line);
        log.debug({ pid: child.pid }, line);
      }
      lines.splice(0, Math.max(0, lines.length - keptLines));
    });
  }
  return lines;
}

function waitForExit(child: ChildProcess, output: readonly string[]): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  child.once("error", (error) => resolve(`it could not be started: ${error.message}`));
  child.once("close", (code, signal) => {
    const ending = signal === null ? `exit code ${code}` : `signal ${signal}`;
    const words = output.findLast((line) => !line.startsWith("{"));
    resolve(words === undefined ? `it ended with ${ending}` : `${words} (${ending})`);
  });
  return promise;
}

async function untilReady(engine: RunningEngine, options: StartOptions): Promise<void> {
  let lastWords: string | undefined;
  void engine.exited.then((words) => (lastWords = words));
  const deadline = performance.now() + options.readyTimeoutMs;
  while (performance.now() < deadline) {
    options.signal.throwIfAborted();
    if (lastWords !== undefined) {
      throw new PenstockError("engine_start_failed", `The engine did not start: ${lastWords}`);
    }
    if (await answersOk(engine.origin + options.launch.readyPath)) return;
    await delay(probeIntervalMs);
  }
  throw new PenstockError(
    "engine_start_failed",
    `The engine was not ready after ${options.readyTimeoutMs / 1_000} s; a larger model needs a longer readyTimeoutMs.`,
  );
}

async function answersOk(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(1_000) });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

async function stop(child: ChildProcess, exited: Promise<string>, deadlineMs: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  child.kill("SIGTERM");
  const kill = setTimeout(() => child.kill("SIGKILL"), deadlineMs);
  await exited;
  clearTimeout(kill);
}
