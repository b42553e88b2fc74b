import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { Agent } from "undici";
import { installed } from "./gateway-contenders.ts";
import { quantile } from "./figures.ts";

const run = promisify(execFile);

/** Requests to send, over and over. */
export interface Load {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly connections: number;
  readonly seconds: number;
  readonly folder: string;
}

export interface LoadResult {
  readonly requests: number;
  readonly perSecond: number;
  readonly p50Us: number;
}

/** What sends the closed-loop load. */
export const generator = installed("wrk") ? "wrk" : "undici (install wrk for a lighter one)";

/** Keeps every connection busy. Throws when an answer is not a success. */
export function closedLoop(load: Load): Promise<LoadResult> {
  return generator === "wrk" ? wrk(load) : undiciLoop(load);
}

async function wrk({ url, headers, body, connections, seconds, folder }: Load): Promise<LoadResult> {
  const script = join(folder, "load.lua");
  const lines = Object.entries({ "content-type": "application/json", ...headers }).map(
    ([name, value]) => `wrk.headers[${JSON.stringify(name)}] = ${JSON.stringify(value)}`,
  );
  await writeFile(join(folder, "body.json"), body);
  lines.push(
    'wrk.method = "POST"',
    `wrk.body = io.open(${JSON.stringify(join(folder, "body.json"))}):read("*a")`,
    'done = function(summary, latency) io.write(string.format("RESULT %d %d %d %d\\n", summary.requests, ' +
      "summary.duration, latency:percentile(50), summary.errors.status + summary.errors.connect + summary.errors.read)) end",
  );
  await writeFile(script, lines.join("\n"));
  const { stdout } = await run("wrk", [
    "-t1",
    `-c${connections}`,
    `-d${seconds}s`,
    "--timeout",
    "30s",
    "-s",
    script,
    url,
  ]);
  const [requests = 0, microseconds = 0, p50Us = 0, failed = 0] = (/RESULT (.*)/.exec(stdout)?.[1] ?? "")
    .split(" ")
    .map(Number);
  if (requests === 0 || failed > 0) throw new Error(`${url}: ${failed} of ${requests} requests failed\n${stdout}`);
  return { requests, perSecond: requests / (microseconds / 1e6), p50Us };
}

async function undiciLoop({ url, headers, body, connections, seconds }: Load): Promise<LoadResult> {
  const times: number[] = [];
  const started = performance.now();
  await forEachConnection({ connections, seconds, spreadMs: 0 }, async (agent) => {
    const sent = performance.now();
    await post(agent, { url, headers, body });
    times.push((performance.now() - sent) * 1_000);
  });
  const elapsed = (performance.now() - started) / 1_000;
  return { requests: times.length, perSecond: times.length / elapsed, p50Us: quantile(times) };
}

/** What a request of the engine `delay` takes at most: connections that begin over this time do not meet again. */
const delaySpreadMs = 600;

/**
 * What requests take beyond the time that the engine says it took, in ms. Connections begin one after the other: those
 * that all begin at once tell how long a burst of them takes, and nothing of one request.
 */
export async function beyondEngine({
  url,
  headers,
  body,
  connections,
  seconds,
}: Omit<Load, "folder">): Promise<number[]> {
  const times: number[] = [];
  const load = { connections, seconds, spreadMs: delaySpreadMs };
  await forEachConnection(load, async (agent) => {
    const sent = performance.now();
    const { tookMs } = JSON.parse(await post(agent, { url, headers, body })) as { tookMs: number }; // our own engine
    times.push(performance.now() - sent - tookMs);
  });
  return times;
}

async function forEachConnection(
  { connections, seconds, spreadMs }: Pick<Load, "connections" | "seconds"> & { readonly spreadMs: number },
  send: (agent: Agent) => Promise<void>,
): Promise<void> {
  const agent = new Agent({ connections });
  const untilMs = performance.now() + spreadMs + seconds * 1_000;
  const loop = async (_: unknown, at: number): Promise<void> => {
    await delay((at / connections) * spreadMs);
    while (performance.now() < untilMs) await send(agent);
  };
  await Promise.all(Array.from({ length: connections }, loop));
  await agent.close();
}

async function post(agent: Agent, { url, headers, body }: Pick<Load, "url" | "headers" | "body">): Promise<string> {
  const { origin, pathname: path } = new URL(url);
  const answer = await agent.request({
    origin,
    path,
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
  const said = await answer.body.text();
  if (answer.statusCode !== 200) throw new Error(`${url}: ${answer.statusCode} ${said.slice(0, 500)}`);
  return said;
}

/** Streams that are open. */
export interface OpenStreams extends Disposable {
  /** Events that came so far. */
  readonly events: () => number;
}

const mark = Buffer.from("data: {");

/** Opens `count` streams and waits until each has its first event. Plain sockets, so that the client costs little. */
export async function openStreams(
  { url, headers, body }: Pick<Load, "url" | "headers" | "body">,
  count: number,
): Promise<OpenStreams> {
  const { hostname, port, pathname } = new URL(url);
  const all = { host: hostname, "content-type": "application/json", "content-length": String(body.length), ...headers };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  const request = `POST ${pathname} HTTP/1.1\r\n${lines.join("")}\r\n${body}`;
  const sockets: Socket[] = [];
  let events = 0;
  const open = (): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = connect(Number(port), hostname);
    sockets.push(socket);
    socket.on("data", (chunk) => {
      for (let at = chunk.indexOf(mark); at !== -1; at = chunk.indexOf(mark, at + mark.length)) {
        events += 1;
        resolve();
      }
    });
    socket.on("error", reject);
    socket.on("close", () => reject(new Error(`${url} closed a stream before its first event`)));
    socket.setTimeout(30_000, () => reject(new Error(`${url} sent no event in 30 s`)));
    socket.write(request);
    return promise.finally(() => socket.setTimeout(0));
  };
  while (sockets.length < count) {
    await Promise.all(Array.from({ length: Math.min(100, count - sockets.length) }, open));
  }
  return {
    events: () => events,
    [Symbol.dispose]: () => sockets.forEach((socket) => socket.destroy()),
  };
}
