import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { repository } from "../repository.ts";
import { exclusively } from "./exclusively.ts";

const folder = join(repository, "test/servers");
const stamp = join(folder, "node_modules/.penstock-lock");

/**
 * Installs the npm packages of `test/servers` unless they are there as its lock file has them.
 * They are apart from Penstock's own packages because users need none of their 200 MB.
 */
export async function installPackages(): Promise<void> {
  const lock = await readFile(join(folder, "package-lock.json"));
  const wanted = createHash("sha256").update(lock).digest("hex");
  if (await isInstalled(wanted)) return;
  await exclusively(join(repository, "node_modules/.cache/test-servers.lock"), async () => {
    if (await isInstalled(wanted)) return;
    process.stderr.write("Installing the object stores that the tests run against (once, about half a minute) ...\n");
    const npm = spawn("npm", ["ci", "--ignore-scripts", "--loglevel=error", "--engine-strict=false"], {
      cwd: folder,
      stdio: ["ignore", "inherit", "inherit"],
    });
    const [code] = (await once(npm, "close")) as [number | null]; // as Node's types have it
    if (code !== 0) throw new Error("npm ci of test/servers failed: see its lines above. It needs the npm registry.");
    await writeFile(stamp, wanted);
  });
}

async function isInstalled(wanted: string): Promise<boolean> {
  return (await readFile(stamp, "utf8").catch(() => "")) === wanted;
}

/** Path of a script of one of the packages. */
export async function packageScript(path: string): Promise<string> {
  await installPackages();
  return join(folder, "node_modules", path);
}
