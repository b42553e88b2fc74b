import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { copyFile, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import { repository } from "../repository.ts";
import { exclusively } from "./exclusively.ts";
import { lacking } from "./tools.ts";

/** The llama-server of the llama.cpp release that node-llama-cpp carries. */
export interface LlamaServer {
  /** Path of the program. */
  readonly command: string;
  /** What it says of its version, such as `0.4.0-dev (build 1, commit 80fb11a)`. */
  readonly version: string;
  /** What `--help` prints. */
  readonly helpText: string;
}

const carried = join(repository, "node_modules/node-llama-cpp/llama");
const releaseFile = z.object({ release: z.string().regex(/^[\w.-]+$/) });

/** Release of llama.cpp, such as `v0.4.0`. */
export const llamaRelease = releaseFile.parse(
  JSON.parse(readFileSync(join(carried, "binariesGithubRelease.json"), "utf8")),
).release;

const cache = process.env["PENSTOCK_TEST_CACHE"] ?? join(homedir(), ".cache/penstock-test");
const home = join(cache, `llama-server-${llamaRelease}-${process.platform}-${process.arch}`);
const command = join(home, "llama-server");
const tools = ["git", "cmake", "ninja", "c++", "nice"];

/** For hooks that wait for `llamaServer()`: a build takes 2.5 minutes on two free cores, and other work comes first. */
export const buildTimeoutMs = 20 * 60_000;

/** Why tests that need llama-server cannot run here; undefined when they can. In CI that is an error. */
export function lackingLlamaServer(): string | undefined {
  return existsSync(command) ? undefined : lacking(...tools);
}

/**
 * llama-server, built from source unless an earlier run has done that. One process builds, others wait for it.
 * Set `PENSTOCK_TEST_CACHE` to keep it elsewhere than in `~/.cache/penstock-test`.
 */
export async function llamaServer(signal?: AbortSignal): Promise<LlamaServer> {
  if (!existsSync(command)) {
    const buildOnce = async () => {
      if (!existsSync(command)) await build(signal);
    };
    await exclusively(`${home}.lock`, buildOnce, signal);
  }
  const [about, help] = await Promise.all([run("--version"), run("--help")]);
  const version = /version: (.+)/.exec(about)?.[1];
  if (version === undefined) throw new Error(`${command} --version said: ${about}`);
  return { command, version, helpText: help };
}

async function run(option: string): Promise<string> {
  const { stdout, stderr } = await promisify(execFile)(command, [option], { maxBuffer: 2 ** 22 });
  return stdout + stderr;
}

/** Builds in a folder that stays when the build is cut off, so that the next one goes on where it was. */
async function build(signal: AbortSignal | undefined): Promise<void> {
  const folder = `${home}.build`;
  const source = join(folder, "source");
  const output = join(folder, "output");
  const log = join(cache, "llama-server.log");
  process.stderr.write(
    `Building llama-server ${llamaRelease} for the contract tests (once, 2 to 10 minutes, beside the other tests; ${log}) ...\n`,
  );
  await mkdir(folder, { recursive: true });
  const step = (name: string, args: readonly string[]) => runStep([name, ...args], { log, signal });
  try {
    if (!existsSync(output)) {
      await rm(source, { recursive: true, force: true });
      await step("git", ["clone", "--quiet", join(carried, "gitRelease.bundle"), source]);
    }
    await step("cmake", ["-S", source, "-B", output, "-G", "Ninja", ...settings]);
    await step("ninja", ["-C", output, "llama-server"]);
  } catch (error) {
    // What was half built may be why.
    if (signal?.aborted !== true) await rm(folder, { recursive: true, force: true });
    throw error;
  }
  await mkdir(`${home}.new`, { recursive: true });
  await copyFile(join(output, "bin/llama-server"), join(`${home}.new`, "llama-server"));
  await rename(`${home}.new`, home);
  await rm(folder, { recursive: true, force: true });
}

/**
 * All of the server's features but TLS and its web page, whose files are not in the source. Speed is of no account with the
 * models of the tests: code of little optimisation, for any processor of this kind, is built in a fraction of the time.
 */
const settings = Object.entries({
  CMAKE_BUILD_TYPE: "Release",
  CMAKE_C_FLAGS_RELEASE: "-O1 -DNDEBUG",
  CMAKE_CXX_FLAGS_RELEASE: "-O1 -DNDEBUG",
  "CMAKE_PROJECT_llama.cpp_INCLUDE": join(repository, "test/support/servers/llama-server.cmake"),
  BUILD_SHARED_LIBS: "OFF",
  LLAMA_BUILD_TESTS: "OFF",
  LLAMA_BUILD_EXAMPLES: "OFF",
  LLAMA_BUILD_APP: "OFF",
  LLAMA_BUILD_UI: "OFF",
  LLAMA_USE_PREBUILT_UI: "OFF",
  LLAMA_OPENSSL: "OFF",
  GGML_NATIVE: "OFF",
  GGML_LLAMAFILE: "OFF",
  GGML_CPU_REPACK: "OFF",
}).map(([name, value]) => `-D${name}=${value}`);

/** Runs one command of the build behind the tests that run meanwhile; an abort ends it. */
async function runStep(words: readonly string[], { log, signal }: { log: string; signal: AbortSignal | undefined }) {
  signal?.throwIfAborted();
  await using output = await open(log, "w");
  // A group of its own, so that an abort reaches the compilers as well.
  const child = spawn("nice", ["-n", "10", ...words], { stdio: ["ignore", output.fd, output.fd], detached: true });
  const stop = () => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) process.kill(-child.pid);
  };
  signal?.addEventListener("abort", stop);
  process.once("exit", stop);
  const [code] = (await once(child, "close")) as [number | null]; // as Node's types have it
  signal?.removeEventListener("abort", stop);
  process.off("exit", stop);
  signal?.throwIfAborted();
  if (code === 0) return;
  const lines = (await readFile(log, "utf8")).trimEnd().split("\n").slice(-30);
  throw new Error(`Building llama-server failed at \`${words[0]}\` (${code}); it ended with:\n${lines.join("\n")}`);
}
