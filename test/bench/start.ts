import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { parseArgs, promisify } from "node:util";
import { temporaryFolder } from "../support/folders.ts";
import { residentMB, stackFile, startPenstock, type RunningStart } from "../support/penstock.ts";
import { repository } from "../support/repository.ts";
import { engineByHand } from "./engine-by-hand.ts";
import { printFigures, repeat, seconds, type Figure } from "./figures.ts";

const help = `Measures how long Penstock takes to serve the demo model, and what it keeps in memory.

Usage: npm run bench:start -- [--runs 5] [--no-fresh] [--json]

  --runs N     repeats of each measurement but the fresh clone; the median is printed
  --no-fresh   leaves out the fresh clone with a cold package cache, which downloads about 200 MB
`;

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "5" },
    fresh: { type: "boolean", default: true },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
  allowNegative: true,
});

/** Seconds from a request to its first streamed token. */
async function firstToken({ url, key }: Pick<RunningStart, "url" | "key">, model: string): Promise<number> {
  const started = performance.now();
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ model, stream: true, messages: [{ role: "user", content: "Hello!" }] }),
  });
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk, { stream: true });
    if (/"content":"[^"]/.test(text)) return seconds(started);
  }
  throw new Error(`no token came: ${text}`);
}

async function freshClone(): Promise<number> {
  await using folder = await temporaryFolder();
  const run = promisify(execFile);
  await run("git", ["clone", "--quiet", repository, `${folder.path}/clone`]);
  const started = performance.now();
  const child = spawn("npm", ["start", "--", "--port", "0"], {
    cwd: `${folder.path}/clone`,
    env: { ...process.env, npm_config_cache: `${folder.path}/cache`, PENSTOCK_HOME: `${folder.path}/home` },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let banner = "";
  for await (const text of child.stdout.setEncoding("utf8")) {
    banner += String(text);
    if (banner.includes("Ctrl-C")) break;
  }
  const url = /URL {2}(\S+)\/v1/.exec(banner)?.[1] ?? "";
  const key = /Key {2}(\S+)/.exec(banner)?.[1] ?? "";
  await firstToken({ url, key }, "penstock-demo");
  const elapsed = seconds(started);
  child.kill("SIGTERM");
  await once(child, "close");
  return elapsed;
}

/** `npm start` with everything installed and the model in the cache, until it says that it serves. */
async function warmStart(home: string): Promise<number> {
  const started = performance.now();
  await using _penstock = await startPenstock({ env: { PENSTOCK_HOME: home } });
  return seconds(started);
}

/** A request for a model that is nowhere but in the blob store: fetch, verify, launch, probe, answer. */
async function remoteToToken(): Promise<number> {
  await using folder = await temporaryFolder();
  await using penstock = await startPenstock({ args: ["--stack", await stackFile(folder.path, {})] });
  return await firstToken(penstock, "demo");
}

/** Resident memory of the process that is gateway and agent, after it served some requests. */
async function resident(): Promise<number> {
  await using penstock = await startPenstock();
  for (let request = 0; request < 20; request += 1) await firstToken(penstock, "penstock-demo");
  const { main } = await penstock.pids();
  return await residentMB(main);
}

async function measure(): Promise<Figure[]> {
  await using home = await temporaryFolder();
  await warmStart(home.path);
  const figures: Figure[] = [
    {
      what: "engine by hand to ready",
      value: await repeat(Number(values.runs), engineByHand),
      unit: "s",
      target: null,
    },
    {
      what: "warm `npm start` to ready",
      value: await repeat(Number(values.runs), () => warmStart(home.path)),
      unit: "s",
      target: 2,
    },
    {
      what: "REMOTE, request to first token",
      value: await repeat(Number(values.runs), remoteToToken),
      unit: "s",
      target: 2,
    },
    {
      what: "gateway and agent, resident",
      value: await repeat(Number(values.runs), resident),
      unit: "MB",
      target: 200,
    },
  ];
  if (values.fresh) {
    figures.push({
      what: "fresh clone, cold npm cache, to first token",
      value: await freshClone(),
      unit: "s",
      target: 90,
    });
  }
  return figures;
}

if (values.help) process.stdout.write(help);
else printFigures(await measure(), values.json);
