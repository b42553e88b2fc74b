import { execFile, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, open, rm, stat, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { defaultLimits, download } from "../../runtime/agent/downloads/download.ts";
import { Crc64, crc64TableBytes, crc64Text } from "../../runtime/agent/downloads/direct/crc64.ts";
import { DirectEngine } from "../../runtime/agent/downloads/direct/engine.ts";
import { createSource } from "../../runtime/agent/sources/index.ts";
import type { Algorithm, Checksum } from "../../runtime/agent/sources/source.ts";
import { makeCertificate } from "../fakes/range-server-tls.ts";
import { freePort } from "../support/servers/free-port.ts";

const help = `Measures downloads from an nginx on this machine, in alternating rounds; the medians are printed.

Usage: npm run bench:download -- [--size-gib 4] [--rounds 3] [--directory /tmp] [--json]

  --size-gib N   size of the file
  --rounds N     how often each client runs
  --directory D  where the file is served from and written to: the disk to measure
  --json         prints the figures as JSON

Needs nginx; dd, curl and aria2c are compared with where they are installed.
`;

const { values } = parseArgs({
  options: {
    "size-gib": { type: "string", default: "4" },
    rounds: { type: "string", default: "3" },
    directory: { type: "string", default: tmpdir() },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
    /** What the bench starts itself with, to measure one download in a process of its own. */
    client: { type: "string" },
  },
});

const run = promisify(execFile);

// Debian has nginx where only root's PATH looks.
process.env["PATH"] = `${process.env["PATH"] ?? ""}:/usr/sbin`;

/** One run of one client. */
interface Sample {
  readonly seconds: number;
  readonly cpuSeconds: number;
}

/** A download by this repository's code, in a process of its own. */
interface Client {
  readonly url: string;
  /** Where to; null throws the bytes away. */
  readonly directory: string | null;
  readonly path: "sockets" | "undici";
  readonly checksum: Checksum | null;
}

interface Contender {
  readonly name: string;
  readonly goal?: string;
  readonly sample: () => Promise<Sample>;
}

async function downloadOnce({ url, directory, path, checksum }: Client): Promise<Sample> {
  const started = performance.now();
  const cpu = process.cpuUsage();
  const signal = AbortSignal.timeout(600_000);
  if (directory === null) await discardAll(url, signal);
  else {
    const source = createSource(url);
    const files = (await source.list(signal)).map((file) => (checksum === null ? file : { ...file, checksum }));
    const onFallback = (_: unknown, reason: string): void => {
      if (path === "sockets") throw new Error(`the fast path was not taken: ${reason}`);
    };
    const limits = path === "undici" ? { directFromBytes: Infinity } : {};
    await download({ source, files, directory, onProgress: () => undefined, signal, onFallback, limits });
  }
  const { user, system } = process.cpuUsage(cpu);
  return { seconds: (performance.now() - started) / 1_000, cpuSeconds: (user + system) / 1e6 };
}

/** The fast path's engine with `/dev/null` for a disk. */
async function discardAll(url: string, signal: AbortSignal): Promise<void> {
  const source = createSource(url);
  const [file] = await source.list(signal);
  if (file === undefined) throw new Error("nothing is served");
  const { sizeBytes, etag } = file;
  await using engine = new DirectEngine();
  const number = engine.open({ path: "/dev/null", sizeBytes, algorithm: null, onDisk: [] });
  const { rangeBytes } = defaultLimits;
  const starts = Array.from({ length: Math.ceil(sizeBytes / rangeBytes) }, (_, index) => index * rangeBytes).values();
  const worker = async (): Promise<void> => {
    for (const start of starts) {
      const end = Math.min(start + rangeBytes, sizeBytes);
      const order = { file: number, start, end, url, headers: {}, etag, stallTimeoutMs: 30_000 };
      const { outcome } = await engine.fetch(order, { signal, onBytes: () => undefined });
      if (outcome.kind !== "done") throw new Error(JSON.stringify(outcome));
    }
  };
  await Promise.all(Array.from({ length: 4 }, worker));
}

async function ours(client: Client, env: Record<string, string> = {}): Promise<Sample> {
  const { stdout } = await run(process.execPath, [fileURLToPath(import.meta.url), "--client", JSON.stringify(client)], {
    env: { ...process.env, ...env },
  });
  if (client.directory !== null) await rm(client.directory, { recursive: true });
  return JSON.parse(stdout) as Sample; // what this file prints
}

/** Another program, with the processor time that bash counts for it. */
async function program(command: string, target: string | null): Promise<Sample> {
  const started = performance.now();
  const { stdout } = await run("bash", ["-c", `${command} >/dev/null 2>&1 || exit 1; times`]);
  const seconds = (performance.now() - started) / 1_000;
  const [user = 0, system = 0] = [...(stdout.split("\n")[1] ?? "").matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, minutes, rest]) => Number(minutes) * 60 + Number(rest),
  );
  if (target !== null) await rm(target);
  return { seconds, cpuSeconds: user + system };
}

/** A file of random bytes, so that nothing is sparse or compressed, and its checksums. */
async function makeFile(path: string, sizeBytes: number): Promise<Record<Algorithm, Checksum>> {
  const chunkBytes = 16 * 2 ** 20;
  const memory = new WebAssembly.Memory({ initial: 300, maximum: 300, shared: true });
  if (memory.buffer.byteLength < chunkBytes + crc64TableBytes) throw new TypeError("too little memory");
  const chunk = new Uint8Array(memory.buffer, 0, chunkBytes);
  const crc64 = new Crc64(memory, chunkBytes);
  const sha256 = createHash("sha256");
  const md5 = createHash("md5");
  let crc = 0n;
  await using handle = await open(path, "w");
  for (let index = 0; index < chunkBytes; index += 65_536) {
    chunk.set(crypto.getRandomValues(new Uint8Array(65_536)), index);
  }
  for (let at = 0; at < sizeBytes; at += chunkBytes) {
    // Each piece differs, so that one in the wrong place would show.
    new DataView(memory.buffer).setFloat64(0, at);
    const bytes = Math.min(chunkBytes, sizeBytes - at);
    sha256.update(chunk.subarray(0, bytes));
    md5.update(chunk.subarray(0, bytes));
    crc = crc64.update(crc, 0, bytes);
    await handle.write(chunk, 0, bytes, at);
  }
  await handle.sync();
  return {
    sha256: { algorithm: "sha256", value: sha256.digest("hex") },
    md5: { algorithm: "md5", value: md5.digest("hex") },
    crc64nvme: { algorithm: "crc64nvme", value: crc64Text(crc) },
  };
}

interface Server extends AsyncDisposable {
  readonly plain: string;
  readonly tls: string;
  readonly caPath: string;
}

async function startNginx(folder: string, root: string): Promise<Server> {
  const [plain, tls] = [await freePort(), await freePort()];
  const { certPath: caPath, keyPath } = makeCertificate(folder);
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${folder}/${kind};`,
  );
  const conf = join(folder, "nginx.conf");
  await writeFile(
    conf,
    `worker_processes 2; daemon off; pid ${folder}/pid; error_log stderr error;
${process.getuid?.() === 0 ? "user root;" : ""}
events { worker_connections 256; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000; ${paths.join(" ")}
  server {
    listen 127.0.0.1:${plain}; listen 127.0.0.1:${tls} ssl;
    ssl_certificate ${caPath}; ssl_certificate_key ${keyPath}; ssl_protocols TLSv1.3;
    root ${root};
  }
}
`,
  );
  const child = spawn("nginx", ["-p", folder, "-c", conf], { stdio: ["ignore", "inherit", "inherit"] });
  const exited = new Promise<void>((resolve) => child.on("exit", () => resolve()));
  await listening(plain);
  return {
    plain: `http://127.0.0.1:${plain}`,
    tls: `https://localhost:${tls}`,
    caPath,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGTERM");
      await exited;
    },
  };
}

async function listening(port: number): Promise<void> {
  for (let tries = 0; tries < 200; tries += 1) {
    const listens = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1", () => resolve(true)).on("error", () => resolve(false));
      socket.on("connect", () => socket.destroy());
    });
    if (listens) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error("nginx does not listen");
}

function has(command: string): boolean {
  try {
    execFileSync("bash", ["-c", `command -v ${command}`], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** A contender, or a line that says which tool is missing. */
function tool(name: string, { needs, ...rest }: { needs: string; sample: () => Promise<Sample> }): Contender[] {
  if (has(needs)) return [{ name, ...rest }];
  process.stderr.write(`${needs} is not installed; "${name}" is left out\n`);
  return [];
}

function contenders(folder: string, server: Server, sums: Record<Algorithm, Checksum>): Contender[] {
  const url = `${server.plain}/file.gguf`;
  const secure = `${server.tls}/file.gguf`;
  const out = join(folder, "out");
  const toDisk = (path: Client["path"], checksum: Checksum | null): Promise<Sample> =>
    ours({ url, directory: out, path, checksum });
  const dd = `dd if=${folder}/file.gguf of=${out} bs=16M oflag=direct`;
  const curlTls = `curl -s --cacert ${server.caPath} -o /dev/null ${secure}`;
  const aria2c = `aria2c -q -x16 -s16 -j16 -d ${folder} -o out ${url}`;
  return [
    ...tool("dd oflag=direct", { needs: "dd", sample: () => program(dd, out) }),
    ...tool("curl", { needs: "curl", sample: () => program(`curl -s -o ${out} ${url}`, out) }),
    ...tool("aria2c -x16", { needs: "aria2c", sample: () => program(aria2c, out) }),
    { name: "ours, undici path, sha256", sample: () => toDisk("undici", sums.sha256) },
    { name: "ours, no checksum", sample: () => toDisk("sockets", null) },
    { name: "ours, sha256", sample: () => toDisk("sockets", sums.sha256) },
    { name: "ours, crc64nvme", sample: () => toDisk("sockets", sums.crc64nvme) },
    ...tool("TLS: curl -o /dev/null", { needs: "curl", sample: () => program(curlTls, null) }),
    {
      name: "TLS: ours to /dev/null",
      sample: () =>
        ours({ url: secure, directory: null, path: "sockets", checksum: null }, { NODE_EXTRA_CA_CERTS: server.caPath }),
    },
  ];
}

interface Figure {
  readonly name: string;
  readonly gbPerSecond: number;
  readonly cpuSecondsPerGb: number;
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}

async function measure(): Promise<Figure[]> {
  const folder = await mkdtemp(join(values.directory, "penstock-bench-"));
  try {
    return await measureIn(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function measureIn(folder: string): Promise<Figure[]> {
  const sizeBytes = Math.round(Number(values["size-gib"]) * 2 ** 30);
  const path = join(folder, "file.gguf");
  const sums = await makeFile(path, sizeBytes);
  await using server = await startNginx(folder, folder);
  const all = contenders(folder, server, sums).map((contender) => ({ contender, samples: new Array<Sample>() }));
  for (let round = 0; round < Number(values.rounds); round += 1) {
    for (const { contender, samples } of all) {
      samples.push(await contender.sample());
      // What one left in the page cache shall not be written during the next.
      await run("sync", ["-f", folder]);
    }
  }
  const gb = (await stat(path)).size / 1e9;
  return all.map(({ contender: { name }, samples }) => ({
    name,
    gbPerSecond: gb / median(samples.map(({ seconds }) => seconds)),
    cpuSecondsPerGb: median(samples.map(({ cpuSeconds }) => cpuSeconds)) / gb,
  }));
}

function print(figures: readonly Figure[]): void {
  const speed = (name: string): number => figures.find((figure) => figure.name === name)?.gbPerSecond ?? Number.NaN;
  process.stdout.write(`${"client".padEnd(28)}   GB/s   CPU s/GB\n`);
  for (const { name, gbPerSecond, cpuSecondsPerGb } of figures) {
    process.stdout.write(
      `${name.padEnd(28)} ${gbPerSecond.toFixed(2).padStart(6)} ${cpuSecondsPerGb.toFixed(2).padStart(10)}\n`,
    );
  }
  const others = [speed("curl"), speed("aria2c -x16")].filter((value) => !Number.isNaN(value));
  const best = others.length === 0 ? Number.NaN : Math.max(...others);
  const goals = ["ours, sha256", "ours, crc64nvme"].flatMap((name) => [
    { what: `${name} / dd`, ratio: speed(name) / speed("dd oflag=direct"), goal: 1 },
    { what: `${name} / better of curl, aria2c`, ratio: speed(name) / best, goal: 3 },
  ]);
  const tls = speed("TLS: ours to /dev/null") / speed("TLS: curl -o /dev/null");
  for (const { what, ratio, goal } of [...goals, { what: "TLS: ours / curl", ratio: tls, goal: 0.8 }]) {
    const verdict = Number.isNaN(ratio) ? "not measured" : ratio >= goal ? "met" : "MISSED";
    process.stdout.write(`${what.padEnd(44)} ${ratio.toFixed(2).padStart(6)}  goal ${goal.toFixed(1)}: ${verdict}\n`);
  }
}

if (values.help) process.stdout.write(help);
else if (values.client !== undefined) {
  const sample = await downloadOnce(JSON.parse(values.client) as Client); // what this file passes
  process.stdout.write(JSON.stringify(sample));
} else if (!has("nginx") || !has("openssl")) {
  process.stderr.write("nginx and openssl are needed; install them and run this again.\n");
  process.exitCode = 1;
} else {
  const figures = await measure();
  if (values.json) process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`);
  else print(figures);
}
