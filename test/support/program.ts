import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { repository } from "./repository.ts";

/** A program of ours that listens, as an operator runs it. */
export interface Program extends AsyncDisposable {
  readonly pid: number;
  readonly url: string;
  /** Everything that it wrote so far. */
  output(): string;
  kill(signal: NodeJS.Signals): void;
  readonly exited: Promise<number | null>;
}

type Script = "agent" | "gateway";

/** Starts the program behind `npm run <script>` and waits until it listens. Throws what it said when it does not. */
export async function startProgram(
  script: Script,
  { args, env }: { readonly args: readonly string[]; readonly env: object },
): Promise<Program> {
  const [, , ...words] = packageJson.scripts[script].split(" ");
  const child = spawn(process.execPath, [...words, ...args], {
    cwd: repository,
    // As `npm run` sets it.
    env: { NODE_COMPILE_CACHE: join(repository, "node_modules/.cache/node"), PATH: process.env["PATH"], ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exited = once(child, "exit").then(([code]) => code as number | null); // as Node's types have it
  let errors = "";
  let output = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
  const listening = Promise.withResolvers<string>();
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    const found = /\{"url":"([^"]+)"\}/.exec(output)?.[1];
    if (found !== undefined) listening.resolve(found);
  });
  void exited.then((code) => listening.reject(new Error(`the ${script} ended with ${code}: ${errors}`)));
  return {
    pid: child.pid ?? -1,
    url: await listening.promise,
    output: () => errors + output,
    kill: (signal) => void child.kill(signal),
    exited,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}
