import { execFile } from "node:child_process";
import { PenstockError } from "../../contracts/errors.ts";
import type { EngineKind } from "../../contracts/engine.ts";
import type { Command, Version } from "../../engines/engine.ts";
import { engines } from "../../engines/index.ts";

/** `vllm --version` imports all of PyTorch; ten seconds on a cold disk are usual. */
const versionTimeoutMs = 120_000;

/** Reads each engine's version once: programs do not change under a running agent. */
export class EngineVersions {
  readonly #env: Readonly<Record<string, string>>;
  readonly #known = new Map<EngineKind, Promise<Version | null>>();

  constructor(env: Readonly<Record<string, string>>) {
    this.#env = env;
  }

  /**
   * The version of the program that runs engines of `kind`; null for an engine that comes with Penstock.
   * Throws `engine_start_failed` when it cannot be run, says nothing readable, or is too old.
   */
  async of(kind: EngineKind, command: Command): Promise<Version | null> {
    const known = this.#known.get(kind);
    if (known !== undefined) return known;
    const reading = this.#read(kind, command);
    this.#known.set(kind, reading);
    // A program that was missing may be installed before the next try.
    reading.catch(() => this.#known.delete(kind));
    return reading;
  }

  async #read(kind: EngineKind, [program, ...first]: Command): Promise<Version | null> {
    const { version } = engines[kind];
    if (version === null) return null;
    const said = await run(program, [...first, ...version.argv], this.#env);
    const found = parseVersion(said.out) ?? parseVersion(said.err);
    if (found === undefined) {
      throw new PenstockError(
        "engine_start_failed",
        `\`${program} ${version.argv.join(" ")}\` told no version; it said: ${(said.out + said.err).trim().slice(-300) || "nothing"}`,
      );
    }
    if (compareVersions(found, version.minimum) >= 0) return found;
    throw new PenstockError(
      "engine_start_failed",
      `${kind} ${found.join(".")} is too old; Penstock needs ${version.minimum.join(".")} or newer.`,
    );
  }
}

/**
 * The version in the last line that speaks of one, or else in the last line that has one, since warnings come before it:
 * `1.2.3`, `1.2`, or llama.cpp's build number (`version: 1234`) as 0.0.1234. What it was built with is not meant.
 */
export function parseVersion(text: string): Version | undefined {
  const lines = text.split("\n").filter((line) => !/^\s*built with/i.test(line));
  const [named, others] = [
    lines.filter((line) => /version/i.test(line)),
    lines.filter((line) => !/version/i.test(line)),
  ];
  for (const line of [...named.toReversed(), ...others.toReversed()]) {
    const triple = /(?:^|[\s=v])(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?/.exec(line);
    if (triple !== null) return [Number(triple[1]), Number(triple[2]), Number(triple[3] ?? 0)];
    const build = /\bversion:?\s+b?(\d{1,6})\b/.exec(line);
    if (build !== null) return [0, 0, Number(build[1])];
  }
  return undefined;
}

/** Below 0 when `a` is older than `b`. */
export function compareVersions(a: Version, b: Version): number {
  return a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
}

interface Said {
  readonly out: string;
  readonly err: string;
}

async function run(program: string, argv: readonly string[], env: Readonly<Record<string, string>>): Promise<Said> {
  const { promise, resolve, reject } = Promise.withResolvers<Said>();
  execFile(
    program,
    argv,
    { env, timeout: versionTimeoutMs, killSignal: "SIGKILL", maxBuffer: 2 ** 20 },
    (error, out, err) => {
      if (error === null) return resolve({ out, err });
      const why = error.code === "ENOENT" ? "it is not installed" : (err.trim().split("\n").at(-1) ?? error.message);
      reject(
        new PenstockError(
          "engine_start_failed",
          `\`${program}\` cannot be run (${why}); install it, or name another.`,
          {
            cause: error,
          },
        ),
      );
    },
  );
  return promise;
}
