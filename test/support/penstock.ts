import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI from "openai";
import { z } from "zod";
import { temporaryFolder } from "./folders.ts";
import { demoModel, repository } from "./repository.ts";

/** `npm start` and all that it started. */
export interface RunningStart extends AsyncDisposable {
  readonly url: string;
  readonly key: string;
  readonly client: OpenAI;
  /** What it wrote to stdout, as a person sees it. */
  readonly banner: string;
  /** Process id of npm itself. */
  readonly npm: number;
  /** Sends a signal to every process that a terminal would send it to. */
  interrupt(): void;
  readonly exited: Promise<number | null>;
  /** Process ids of npm's child (the gateway and agent) and of the engine. */
  pids(): Promise<{ main: number; engine: number }>;
}

/** How a start that never served ended. */
export interface FailedStart {
  readonly code: number | null;
  readonly output: string;
}

export interface StartOptions {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

function spawnStart({ args = [], env = {} }: StartOptions): ChildProcess {
  return spawn("npm", ["start", "--silent", "--", ...args], {
    cwd: repository,
    // A process group of its own, so that a test can interrupt it as a terminal would.
    detached: true,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** Runs `npm start` on a free port with a cache of its own and waits for its banner. */
export async function startPenstock(options: StartOptions = {}): Promise<RunningStart> {
  const home = await temporaryFolder();
  const child = spawnStart({
    args: ["--port", "0", ...(options.args ?? [])],
    env: { PENSTOCK_HOME: home.path, ...options.env },
  });
  const exited = once(child, "close").then(([code]) => code as number | null); // as Node's types have it
  let banner = "";
  let errors = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (banner += text));
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (errors += text));
  const failed = exited.then((code) => {
    throw new Error(`npm start ended with ${code}: ${errors}`);
  });
  failed.catch(() => undefined);
  const { promise: served, resolve: onServed } = Promise.withResolvers<void>();
  child.stdout?.on("data", () => {
    if (banner.includes("Ctrl-C")) onServed();
  });
  await Promise.race([failed, served]);
  const url = /URL {2}(\S+)\/v1/.exec(banner)?.[1] ?? "";
  const key = /Key {2}(\S+)/.exec(banner)?.[1] ?? "";
  return {
    url,
    key,
    banner,
    exited,
    client: new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 }),
    npm: groupOf(child),
    interrupt: () => void process.kill(-groupOf(child), "SIGINT"),
    pids: () => pidsOf(url, key),
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) process.kill(-groupOf(child), "SIGTERM");
      await exited;
      await home[Symbol.asyncDispose]();
    },
  };
}

/** Runs `npm start` that is expected to end by itself. */
export async function failToStart(options: StartOptions): Promise<FailedStart> {
  await using home = await temporaryFolder();
  const child = spawnStart({ ...options, env: { PENSTOCK_HOME: home.path, ...options.env } });
  let output = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (output += text));
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (output += text));
  const [code] = (await once(child, "close")) as [number | null]; // as Node's types have it
  return { code, output };
}

const stats = z.object({
  agents: z.array(z.object({ last: z.object({ engines: z.array(z.object({ pid: z.number() })) }).nullable() })),
  pid: z.number(),
});

async function pidsOf(url: string, key: string): Promise<{ main: number; engine: number }> {
  const response = await fetch(`${url}/stats`, { headers: { authorization: `Bearer ${key}` } });
  const { pid, agents } = stats.parse(await response.json());
  return { main: pid, engine: agents[0]?.last?.engines[0]?.pid ?? -1 };
}

function groupOf(child: ChildProcess): number {
  if (child.pid === undefined) throw new Error("npm could not be started");
  return child.pid;
}

/** A stack file like the local one, with parts replaced. */
export async function stackFile(folder: string, replace: Readonly<Record<string, unknown>>): Promise<string> {
  const path = join(folder, "Pulumi.test.yaml");
  const stack = {
    version: 1,
    cloud: "local",
    gateway: { apiKey: "a-key-for-tests" },
    models: [{ id: "demo", source: `file://${demoModel}` }],
    fleets: [{ name: "local", engine: { kind: "embedded" }, models: ["demo"] }],
    ...replace,
  };
  // JSON is YAML.
  await writeFile(path, JSON.stringify({ config: { "penstock:stack": stack } }));
  return path;
}

/** Resident memory of a process in MB (1e6 bytes). */
export async function residentMB(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return (Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1_024) / 1e6;
}
