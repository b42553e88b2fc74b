import { readFile } from "node:fs/promises";
import { quantile } from "./figures.ts";
import {
  cpuSeconds,
  startContender,
  startEngine,
  startFastEngine,
  type Contender,
  type Server,
} from "./gateway-contenders.ts";
import { largeBody, smallBody, streamBody } from "./gateway-messages.ts";
import { beyondEngine, closedLoop, openStreams, type Load } from "./load.ts";

/** One figure of one proxy: the median of its rounds. */
export interface Row {
  readonly workload: Workload;
  readonly figure: string;
  readonly contender: string;
  readonly value: number;
}

export const workloads = ["small", "large", "streams", "memory"] as const;
export type Workload = (typeof workloads)[number];

export interface Plan {
  /** Of each sample. */
  readonly seconds: number;
  readonly rounds: number;
  readonly idleStreams: number;
  readonly folder: string;
  readonly contenders: (engineUrl: string) => readonly Contender[];
}

/** The engine itself, without a proxy. */
export const direct = "no proxy";

interface Target extends Pick<Load, "url" | "headers"> {
  readonly name: string;
  /** Whose processor time is counted. */
  readonly pid: number;
}

type Sample = (target: Target, seconds: number) => Promise<Readonly<Record<string, number>>>;

/** Names of the figures. */
export const figures = {
  perCore: "requests/s per core",
  perSecond: "requests/s",
  p50: "p50 at 1 connection, µs",
  p99: "p99 beyond the engine at 100 concurrent, ms",
  chunks: "chunks/s per core",
  arrived: "chunks/s",
  memory: "KB per idle stream",
} as const;

const path = "/v1/chat/completions";

/** The round that is not counted: until Node has compiled what is hot, also on a machine that is busy. */
const warmUpSeconds = 12;

export function measure(workload: Workload, plan: Plan): Promise<Row[]> {
  return { small, large, streams, memory }[workload](plan);
}

async function small(plan: Plan): Promise<Row[]> {
  await using engine = await startFastEngine(plan.folder);
  const load = { body: smallBody, folder: plan.folder };
  return await compare("small", { plan, engine }, async (target, seconds) => {
    const busy = await throughput({ ...load, ...target, seconds, connections: 64 }, target.pid);
    const { p50Us } = await closedLoop({ ...load, ...target, seconds: plan.seconds, connections: 1 });
    return { ...busy, [figures.p50]: p50Us };
  });
}

async function large(plan: Plan): Promise<Row[]> {
  const load = { body: largeBody, folder: plan.folder };
  await using engine = await startFastEngine(plan.folder);
  const busy = await compare("large", { plan, engine }, (target, seconds) =>
    throughput({ ...load, ...target, seconds, connections: 16 }, target.pid),
  );
  await using slow = await startEngine("delay");
  const latency = await compare("large", { plan, engine: slow }, async (target, seconds) => {
    const times = await beyondEngine({ ...load, ...target, connections: 100, seconds: Math.max(5, seconds) });
    return { [figures.p99]: quantile(times, 0.99) };
  });
  return [...busy, ...latency];
}

/** Requests a second, and for each second of the proxy's processor time: the same where nothing else runs on its core. */
async function throughput(load: Load, pid: number): Promise<Record<string, number>> {
  const before = await cpuSeconds(pid);
  const { requests, perSecond } = await closedLoop(load);
  const used = (await cpuSeconds(pid)) - before;
  return { [figures.perSecond]: perSecond, [figures.perCore]: requests / used };
}

/** 200 streams with 100 events a second each. */
async function streams(plan: Plan): Promise<Row[]> {
  await using engine = await startEngine("stream");
  return await compare("streams", { plan, engine, probe: streamBody }, async (target, seconds) => {
    using open = await openStreams({ ...target, body: streamBody }, 200);
    await sleep(500);
    const before = { cpu: await cpuSeconds(target.pid), events: open.events(), at: performance.now() };
    await sleep(seconds * 1_000);
    const events = open.events() - before.events;
    const cpu = (await cpuSeconds(target.pid)) - before.cpu;
    return {
      [figures.arrived]: (events / (performance.now() - before.at)) * 1_000,
      [figures.chunks]: events / cpu,
    };
  });
}

async function memory(plan: Plan): Promise<Row[]> {
  await using engine = await startEngine("idle");
  const rows: Row[] = [];
  for await (const [contender, starting] of started(plan, { workload: "memory", url: engine.url, probe: streamBody })) {
    await using server = starting;
    const target = { url: server.url + path, headers: contender.headers };
    // What a proxy needs once, such as compiled code, belongs to no stream.
    (await openStreams({ ...target, body: streamBody }, 200))[Symbol.dispose]();
    await sleep(2_000);
    const before = await residentKB(server.pid);
    using _open = await openStreams({ ...target, body: streamBody }, plan.idleStreams);
    await sleep(3_000);
    const value = ((await residentKB(server.pid)) - before) / plan.idleStreams;
    rows.push({ workload: "memory", figure: figures.memory, contender: contender.name, value });
  }
  return rows;
}

/** Measures every proxy and the engine in turns, so that a machine that is busy for a while is unfair to none. */
async function compare(
  workload: Workload,
  { plan, engine, probe = smallBody }: { readonly plan: Plan; readonly engine: Server; readonly probe?: string },
  sample: Sample,
): Promise<Row[]> {
  await using running = new AsyncDisposableStack();
  const targets: Target[] = [{ name: direct, url: `${engine.url}${path}`, headers: {}, pid: engine.pid }];
  for await (const [contender, server] of started(plan, { workload, url: engine.url, probe })) {
    running.use(server);
    targets.push({ ...contender, url: server.url + path, pid: server.pid });
  }
  const samples = new Map<string, { target: Target; values: number[]; figure: string }>();
  // The first round lets every program compile its code.
  for (let round = 0; round <= plan.rounds; round += 1) {
    for (const target of targets) {
      for (const [figure, value] of Object.entries(await sample(target, round === 0 ? warmUpSeconds : plan.seconds))) {
        const key = `${figure} ${target.name}`;
        const known = samples.get(key) ?? { target, figure, values: [] };
        if (round > 0) known.values.push(value);
        samples.set(key, known);
      }
    }
  }
  return [...samples.values()].map(({ target: { name }, figure, values }) => ({
    workload,
    figure,
    contender: name,
    value: quantile(values),
  }));
}

/** The proxies that are installed and relay `probe`; says of the others why they are missing. */
async function* started(
  plan: Plan,
  { workload, url, probe }: { readonly workload: Workload; readonly url: string; readonly probe: string },
): AsyncGenerator<readonly [Contender, Server]> {
  for (const contender of plan.contenders(url)) {
    if (contender.missing !== undefined || (contender.isBound === true && workload !== "small")) continue;
    try {
      yield [contender, await startContender(contender, { engineUrl: url, folder: plan.folder, probe })];
    } catch (error) {
      if (contender.name === "penstock") throw error;
      process.stderr.write(`MISSING: ${contender.name}: ${String(error)}\n`);
    }
  }
}

async function residentKB(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return (Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1_024) / 1_000;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
