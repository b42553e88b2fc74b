// The first thing that `npm start`, `npm test` and `npm run engine` run, on whatever Node the machine has (>= 20).
// Installs what is missing, then runs the given script with the project's own Node 24, and hands signals on to it.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const node = join(root, "node_modules/node/bin", process.platform === "win32" ? "node.exe" : "node");
const stamp = join(root, "node_modules/.penstock-lock");

function lockHash() {
  return createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
}

function installed() {
  return existsSync(node) && existsSync(stamp) && readFileSync(stamp, "utf8") === lockHash();
}

function install() {
  process.stderr.write("Installing Penstock's packages (once, about half a minute) ...\n");
  const npm = process.env.npm_execpath;
  const args = ["ci", "--loglevel=error", "--engine-strict=false"];
  const options = { cwd: root, stdio: ["ignore", 2, 2] };
  const done = npm ? spawnSync(process.execPath, [npm, ...args], options) : spawnSync("npm", args, options);
  if (done.status !== 0) {
    process.stderr.write("npm ci failed: see its lines above. It needs the npm registry and about 700 MB of disk.\n");
    process.exit(1);
  }
  writeFileSync(stamp, lockHash());
}

if (!installed()) install();

// Options before the script are Node's own.
const words = process.argv.slice(2);
const at = words.findIndex((word) => !word.startsWith("--"));
const [script, ...args] = words.slice(at);
if (at !== -1) {
  // The channel tells the script that this process is gone, however it went.
  const child = spawn(node, [...words.slice(0, at), join(root, script), ...args], {
    stdio: ["inherit", "inherit", "inherit", "ipc"],
    // Compiled code is kept between starts, the engine's too: it takes a third off the time to load the packages.
    env: { NODE_COMPILE_CACHE: join(root, "node_modules/.cache/node"), ...process.env },
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  // npm runs scripts in a shell that a SIGTERM ends without passing it on; a new parent shows that this has happened.
  const parent = process.ppid;
  const orphaned = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(orphaned);
    child.kill("SIGTERM");
  }, 200);
  child.on("error", (error) => {
    process.stderr.write(`Cannot run ${node}: ${error.message}\n`);
    process.exit(1);
  });
  child.on("exit", (code, signal) => process.exit(signal === null ? code : 1));
}
