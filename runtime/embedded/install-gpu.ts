import { spawn } from "node:child_process";
import { once } from "node:events";
import { lstat, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { getLlama, getModuleVersion } from "node-llama-cpp";
import { PenstockError } from "../contracts/errors.ts";

export type GpuBuild = "cuda" | "vulkan";

/** Packages of each GPU build. Metal is part of the ordinary package for Apple silicon. */
const builds: Readonly<Record<string, Readonly<Record<GpuBuild, readonly string[]>>>> = {
  "linux-x64": { cuda: ["linux-x64-cuda", "linux-x64-cuda-ext"], vulkan: ["linux-x64-vulkan"] },
  "win32-x64": { cuda: ["win-x64-cuda", "win-x64-cuda-ext"], vulkan: ["win-x64-vulkan"] },
};

/** Names of the packages for a platform (`linux-x64`). Throws `unsupported` where there is no such build. */
export function gpuPackages(platform: string, build: GpuBuild): readonly string[] {
  const packages = builds[platform]?.[build];
  if (packages !== undefined) return packages;
  const why =
    platform === "darwin-arm64"
      ? "Apple silicon needs no GPU package: Metal is installed already"
      : `There is no ${build} build of llama.cpp for ${platform}; build it from source with node-llama-cpp`;
  throw new PenstockError("unsupported", `${why}.`);
}

/**
 * Fetches a GPU build of llama.cpp with npm into a folder of its own, and puts it in place of the empty package that
 * stands in for it. `npm ci` puts the empty package back. `say` gets a line for each thing done.
 */
export async function installGpuBuild(build: GpuBuild, say: (line: string) => void): Promise<void> {
  const packages = gpuPackages(`${process.platform}-${process.arch}`, build);
  const version = await getModuleVersion();
  // .../node_modules/node-llama-cpp/dist/index.js
  const modules = dirname(dirname(dirname(fileURLToPath(import.meta.resolve("node-llama-cpp")))));
  const folder = join(modules, ".penstock-gpu");
  const wanted = packages.map((name) => `@node-llama-cpp/${name}@${version}`);
  say(`Fetching ${wanted.join(" and ")} into ${folder}`);
  await fetchPackages(folder, wanted);
  for (const name of packages) {
    await replace(join(modules, "@node-llama-cpp", name), join(folder, "node_modules", "@node-llama-cpp", name));
    say(`Put in place: ${join(modules, "@node-llama-cpp", name)}`);
  }
  const llama = await getLlama({ gpu: "auto", build: "never", progressLogs: false });
  const found = llama.gpu === false ? "the CPU (no usable GPU, driver or runtime library was found)" : llama.gpu;
  say(`llama.cpp starts on this machine with: ${found}`);
  await llama.dispose();
}

async function fetchPackages(folder: string, wanted: readonly string[]): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "package.json"), '{ "private": true }\n');
  const argv = [
    "install",
    "--prefix",
    folder,
    "--no-audit",
    "--no-fund",
    "--ignore-scripts",
    "--save-exact",
    ...wanted,
  ];
  const isWindows = process.platform === "win32";
  const npm = spawn(isWindows ? "npm.cmd" : "npm", argv, { cwd: folder, stdio: "inherit", shell: isWindows });
  let code: unknown;
  try {
    [code] = await once(npm, "exit");
  } catch (cause) {
    throw new PenstockError("engine_start_failed", "npm cannot be started; install npm and run this again.", { cause });
  }
  if (code !== 0) {
    throw new PenstockError("engine_start_failed", "npm could not fetch the GPU build; its output above says why.");
  }
}

/** Lets `place` lead to `target`, unless something other than the stand-in is there. */
async function replace(place: string, target: string): Promise<void> {
  const there = await lstat(place).catch(() => undefined);
  if (there !== undefined && !there.isSymbolicLink()) {
    const manifest: unknown = JSON.parse(await readFile(join(place, "package.json"), "utf8"));
    const isStandIn = typeof manifest === "object" && manifest !== null && "name" in manifest;
    if (!isStandIn || manifest.name !== "@penstock/no-gpu") return;
  }
  await rm(place, { recursive: true, force: true });
  // A junction needs no rights on Windows, but a whole path; elsewhere the folder may be moved or copied.
  const isWindows = process.platform === "win32";
  await symlink(isWindows ? target : relative(dirname(place), target), place, "junction");
}
