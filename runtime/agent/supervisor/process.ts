import { spawn, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { EngineLaunch } from "../../engines/engine.ts";
import type { Logger } from "../../lib/log.ts";
import { EngineOutput } from "./output.ts";

const lifeline = fileURLToPath(new URL("lifeline.sh", import.meta.url));

/** What an engine whose agent has died may take to stop before it is killed. Nobody waits for its answers any more. */
const orphanGraceSeconds = 5;

/** A child process of the agent: an engine, or a step before one. */
export interface EngineProcess {
  readonly pid: number;
  readonly output: EngineOutput;
  /** Resolves with what it said last, once the process is gone, for whatever reason. */
  readonly exited: Promise<string>;
  readonly isGone: boolean;
  /** SIGTERM, then SIGKILL to its whole group after `deadlineMs`. Resolves when the process is gone. */
  stop(deadlineMs: number): Promise<void>;
}

/** Starts a program in a process group of its own: Ctrl-C in a terminal reaches the agent alone, which then drains. */
export function spawnEngine(
  { command, lifeline: kind }: Pick<EngineLaunch, "command" | "lifeline">,
  { env, cwd, log }: { env: Readonly<Record<string, string>>; cwd: string; log: Logger },
): EngineProcess {
  const [program, ...argv] = kind === "stdin" ? command : ["/bin/sh", lifeline, String(orphanGraceSeconds), ...command];
  // The open stdin is the lifeline: it closes when the agent is gone, however it went.
  const child = spawn(program, argv, { env, cwd, detached: true, stdio: ["pipe", "pipe", "pipe"] });
  // A child that ends with its stdin open makes the pipe fail; its exit says more.
  child.stdin.on("error", () => undefined);
  const output = new EngineOutput();
  for (const stream of [child.stdout, child.stderr]) {
    output.follow(stream, (line) => log.debug({ pid: child.pid }, line));
  }
  const exited = lastWords(child, output);
  return {
    pid: child.pid ?? -1,
    output,
    exited,
    get isGone() {
      return isGone(child);
    },
    stop: (deadlineMs) => stop(child, exited, deadlineMs),
  };
}

function isGone(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null || child.pid === undefined;
}

function lastWords(child: ChildProcess, output: EngineOutput): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  child.once("error", (error) => resolve(`it could not be started: ${error.message}`));
  // `exit`, and not `close`: a worker that an engine left behind keeps the pipes open.
  child.once("exit", (code, signal) => {
    // Whatever killed the shell in front did not kill the engine behind it.
    killGroup(child);
    const ending = signal === null ? `exit code ${code}` : `signal ${signal}`;
    const finish = (): void => {
      const reason = output.reason();
      resolve(reason === undefined ? `it ended with ${ending}` : `${reason} (${ending})`);
    };
    const patience = setTimeout(finish, 500);
    child.once("close", () => {
      clearTimeout(patience);
      finish();
    });
  });
  return promise;
}

async function stop(child: ChildProcess, exited: Promise<string>, deadlineMs: number): Promise<void> {
  if (isGone(child)) return;
  child.kill("SIGTERM");
  const kill = setTimeout(() => killGroup(child), deadlineMs);
  await exited;
  clearTimeout(kill);
}

/** The engine, its workers, and the shell in front. Windows has no groups; there the engine itself must do. */
function killGroup(child: ChildProcess): void {
  try {
    if (process.platform === "win32" || child.pid === undefined) child.kill("SIGKILL");
    else process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has gone by itself.
  }
}
