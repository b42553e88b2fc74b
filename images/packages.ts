// Leaves in package.json what one program imports, so that `npm ci` installs that from the project's lock file and no more:
// the cloud SDKs that Pulumi needs are half a gigabyte. Usage: node images/packages.ts gateway|agent
import { readFileSync, writeFileSync } from "node:fs";

const [, , program = ""] = process.argv;
const lists: Record<string, readonly string[]> = JSON.parse(
  readFileSync(new URL("packages.json", import.meta.url), "utf8"),
);
const wanted = lists[program];
if (wanted === undefined) throw new Error(`${program}: one of ${Object.keys(lists).join(", ")}`);

const manifest: { dependencies: Record<string, string> } = JSON.parse(readFileSync("package.json", "utf8"));
const dependencies = Object.fromEntries(
  Object.entries(manifest.dependencies).filter(([name]) => wanted.includes(name)),
);
const missing = wanted.filter((name) => !(name in dependencies));
if (missing.length > 0) throw new Error(`not among the dependencies of package.json: ${missing.join(", ")}`);
writeFileSync("package.json", `${JSON.stringify({ ...manifest, dependencies, devDependencies: {} }, null, 2)}\n`);
