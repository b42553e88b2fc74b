import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { heartbeat, type Heartbeat } from "../../runtime/contracts/agent.ts";
import packageJson from "../../package.json" with { type: "json" };
import { repository } from "../support/repository.ts";

/** The agent's program, as an operator runs it. */
export interface AgentProcess extends AsyncDisposable {
  readonly pid: number;
  readonly url: string;
  /** Everything on standard error so far. */
  log(): string;
  post(path: string, body?: unknown): Promise<Response>;
  beat(known?: string): Promise<Heartbeat>;
  kill(signal: NodeJS.Signals): void;
  readonly exited: Promise<number | null>;
}

/** Node's own options in `npm run agent`. */
const nodeFlags = packageJson.scripts.agent.split(" ").filter((word) => word.startsWith("--"));

const token = "a-token-of-the-tests";

/** Starts `runtime/agent/main.ts` with a config and waits until it listens. Throws what it said when it does not. */
export async function startAgentProcess(folder: string, config: object, env: object = {}): Promise<AgentProcess> {
  const path = join(folder, "agent.yaml");
  await writeFile(path, JSON.stringify(config));
  const child = spawn(process.execPath, [...nodeFlags, "runtime/agent/main.ts", "--config", path, "--port", "0"], {
    cwd: repository,
    // As `npm run agent` sets it.
    env: {
      NODE_COMPILE_CACHE: join(repository, "node_modules/.cache/node"),
      PATH: process.env["PATH"],
      PENSTOCK_AGENT_TOKEN: token,
      ...env,
    },
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
  void exited.then((code) => listening.reject(new Error(`the agent ended with ${code}: ${errors}`)));
  const url = await listening.promise;
  const agent: AgentProcess = {
    pid: child.pid ?? -1,
    url,
    log: () => errors + output,
    post: (where, body = {}) =>
      fetch(url + where, {
        method: "POST",
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        body: JSON.stringify(body),
      }),
    beat: async (known) => {
      const answer = await agent.post("/heartbeat", known === undefined ? {} : { known_cache_revision: known });
      return heartbeat.parse(await answer.json());
    },
    kill: (signal) => void child.kill(signal),
    exited,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await exited;
    },
  };
  return agent;
}
