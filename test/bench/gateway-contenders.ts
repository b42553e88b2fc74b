import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { delimiter, join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { newApiKey } from "../../runtime/gateway/identity/api-key.ts";
import { freePort } from "../support/servers/free-port.ts";
import { heartbeat } from "./gateway-heartbeat.ts";
import { answer } from "./gateway-messages.ts";

/** The proxies have one core; engines and the load have another. */
export const proxyCore = "0";
export const loadCore = "1";

/** A program that serves. */
export interface Server extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
}

/** A proxy that is measured. */
export interface Contender {
  readonly name: string;
  /** Why it cannot be measured here; undefined when it can. */
  readonly missing?: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  /** Answers by itself: only a bound for what any proxy can do, with small bodies. */
  readonly isBound?: boolean;
  /** Starts it in front of an engine at this URL. `folder` is for its files. */
  start(engineUrl: string, folder: string): Promise<Server>;
}

// Debian has nginx where only root's PATH looks.
process.env["PATH"] = [process.env["PATH"], "/usr/sbin"].join(delimiter);

const portkey = fileURLToPath(
  new URL("./gateway/node_modules/@portkey-ai/gateway/build/start-server.js", import.meta.url),
);
const key = newApiKey();

export const contenders = (engineUrl: string): readonly Contender[] => [
  {
    name: "nginx",
    missing: installed("nginx") ? undefined : "nginx is not installed (Debian: apt-get install nginx)",
    headers: {},
    start: (url, folder) => startNginx(proxyCore, join(folder, "proxy"), proxyConfig(url)),
  },
  { name: "bare Node proxy", headers: {}, start: (url) => startProgram(proxyCore, "gateway-bare.ts", [url]) },
  {
    name: "bare Node server",
    headers: {},
    isBound: true,
    start: () => startProgram(proxyCore, "gateway-bare.ts", []),
  },
  {
    name: "@portkey-ai/gateway",
    missing: existsSync(portkey) ? undefined : "not installed: npm ci --prefix test/bench/gateway",
    headers: {
      authorization: "Bearer any",
      "x-portkey-provider": "openai",
      "x-portkey-custom-host": `${engineUrl}/v1`,
    },
    start: startPortkey,
  },
  {
    name: "penstock",
    headers: { authorization: `Bearer ${key.key}` },
    start: (url, folder) => startProgram(proxyCore, "gateway-ours.ts", [url, folder, JSON.stringify(key)]),
  },
];

/** Whether a program is in the PATH. */
export function installed(program: string): boolean {
  return (process.env["PATH"] ?? "").split(delimiter).some((folder) => existsSync(join(folder, program)));
}

/** The engine that answers at once: nginx with a fixed body, which is faster than any proxy here. */
export function startFastEngine(folder: string): Promise<Server> {
  const config = (url: string): string => `
    location / { default_type application/json; return 200 '${answer}'; }
    location = /heartbeat { default_type application/json; return 200 '${heartbeat(url)}'; }`;
  return startNginx(loadCore, join(folder, "engine"), config);
}

/** An engine of `gateway-engine.ts`. */
export function startEngine(kind: "delay" | "stream" | "idle"): Promise<Server> {
  return startProgram(loadCore, "gateway-engine.ts", [kind]);
}

/** Starts a proxy and waits until it relays `probe`. Rejects when it does not. */
export async function startContender(
  contender: Contender,
  { engineUrl, folder, probe }: { readonly engineUrl: string; readonly folder: string; readonly probe: string },
): Promise<Server> {
  const server = await contender.start(engineUrl, folder);
  for (let attempt = 0; attempt < 50; attempt += 1) {
    const headers = await headersOf(`${server.url}/v1/chat/completions`, contender.headers, probe).catch(() => null);
    if (headers !== null) {
      if (contender.name !== "penstock" || headers.has("x-ratelimit-limit-tokens")) return server;
      await server[Symbol.asyncDispose]();
      throw new Error("penstock runs without limits: its figures would be too good");
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await server[Symbol.asyncDispose]();
  throw new Error(`${contender.name} does not relay`);
}

/** The headers of an answer that is a success. */
async function headersOf(url: string, headers: Readonly<Record<string, string>>, body: string): Promise<Headers> {
  const left = new AbortController();
  const timer = setTimeout(() => left.abort(), 5_000);
  try {
    const all = { "content-type": "application/json", ...headers };
    const response = await fetch(url, { method: "POST", headers: all, body, signal: left.signal });
    if (!response.ok) throw new Error(`${url}: ${response.status}`);
    return response.headers;
  } finally {
    clearTimeout(timer);
    left.abort();
  }
}

async function startProgram(core: string, file: string, args: readonly string[]): Promise<Server> {
  const path = fileURLToPath(new URL(file, import.meta.url));
  const { child, ...server } = start(core, process.execPath, [...nodeOptions(file), path, ...args]);
  for await (const line of child.stdout.setEncoding("utf8")) {
    const { url } = JSON.parse(String(line)) as { url: string }; // what these programs print
    child.stdout.resume();
    return { ...server, url };
  }
  throw new Error(`${file} did not start`);
}

/** `PENSTOCK_BENCH_NODE_OPTIONS` goes to this gateway alone, for a profile: `--cpu-prof --cpu-prof-dir=/tmp/profile`. */
function nodeOptions(file: string): string[] {
  const given = process.env["PENSTOCK_BENCH_NODE_OPTIONS"];
  return file === "gateway-ours.ts" && given !== undefined ? given.split(" ") : [];
}

async function startPortkey(): Promise<Server> {
  const port = await freePort();
  const { child, ...server } = start(proxyCore, process.execPath, [portkey, `--port=${port}`, "--headless"]);
  child.stdout.resume();
  await listens(port);
  return { ...server, url: `http://127.0.0.1:${port}` };
}

function proxyConfig(engineUrl: string): (url: string) => string {
  return () => `
    location / {
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      client_body_buffer_size 1m;
    }
  }
  upstream engine { server ${new URL(engineUrl).host}; keepalive 256;`;
}

/** One process of nginx; `config` says what is in its `server`. */
async function startNginx(core: string, prefix: string, config: (url: string) => string): Promise<Server> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const path = `${prefix}-${port}.conf`;
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  await writeFile(
    path,
    `daemon off; master_process off; pid ${prefix}-${port}.pid; error_log stderr crit; worker_rlimit_nofile 20000;
events { worker_connections 30000; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 16m;
  ${temporary.map((name) => `${name}_temp_path ${prefix}-${port}-${name};`).join(" ")}
  server { listen 127.0.0.1:${port} backlog=8192;${config(url)} }
}
`,
  );
  const { child, ...server } = start(core, "nginx", ["-p", prefix, "-e", "stderr", "-c", path]);
  child.stdout.resume();
  await listens(port);
  return { ...server, url };
}

function start(core: string, command: string, args: readonly string[]) {
  const child = spawn("taskset", ["-c", core, command, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const errors = text(child.stderr);
  const ended = once(child, "close");
  void errors.then(
    (said) => void (said.trim() === "" || process.stderr.write(`${command}: ${said.slice(0, 2_000)}\n`)),
  );
  return {
    child,
    pid: child.pid ?? -1,
    async [Symbol.asyncDispose](): Promise<void> {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 5_000);
      await ended;
      clearTimeout(timer);
    },
  };
}

async function listens(port: number): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const socket = connect(port, "127.0.0.1");
    const up = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (up) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`nothing listens on port ${port}`);
}

/** Processor time that a process has used, in seconds. Linux counts it in hundredths. */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
