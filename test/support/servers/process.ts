import { spawn, type SpawnOptions } from "node:child_process";
import { once } from "node:events";

/** A server of another project that runs for a test. */
export interface RunningServer extends AsyncDisposable {
  /** What the `ready` expression found in the server's output: its address. */
  readonly match: RegExpExecArray;
}

interface ServerProcess {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Looked for in what the server writes, until it is there. */
  readonly ready: RegExp;
}

/** A server that is not ready by then never will be; a cold start on a busy machine takes a few seconds. */
const startTimeoutMs = 60_000;

/** What is kept of a server's output for the message when it does not start. */
const keptCharacters = 4_000;

/** Starts a server and waits until it says that it is ready. It is killed on dispose, and when this process ends. */
export async function startServer({ command, args, env, ready }: ServerProcess): Promise<RunningServer> {
  const options: SpawnOptions = { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } };
  const child = spawn(command, args, options);
  const exited = once(child, "close").catch(() => undefined);
  const kill = () => void child.kill("SIGKILL");
  process.once("exit", kill);
  const stop = async () => {
    process.off("exit", kill);
    kill();
    await exited;
  };
  const found = Promise.withResolvers<RegExpExecArray>();
  let output = "";
  const failed = (why: string) => found.reject(new Error(`${command} ${why}: ${output.trim()}`));
  const timer = setTimeout(() => failed(`did not start within ${startTimeoutMs / 1000} s`), startTimeoutMs);
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-keptCharacters);
      const match = ready.exec(output);
      if (match !== null) found.resolve(match);
    });
  }
  child.on("error", (error) => failed(`cannot be run (${error.message})`));
  child.on("close", (code, signal) => failed(`ended with ${code ?? signal}`));
  try {
    return { match: await found.promise, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
