import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { engineEnvOf, isProxied } from "../agent/environment.ts";
import { toPenstockError } from "../contracts/errors.ts";
import { envNames } from "../contracts/names.ts";
import { banner } from "./banner.ts";
import { helpText, parseOptions, type LocalOptions } from "./options.ts";
import { ProgressDisplay } from "./progress.ts";
import { startLocal, type LocalEnvironment, type LocalStack } from "./start.ts";

/** npm passes an interrupt on to a process that the terminal has already told, so two within this time are one. */
const sameInterruptMs = 250;

const { env } = process;
let stack: LocalStack | undefined;
let stoppingSince: number | undefined;

function environment(): LocalEnvironment {
  return {
    home: resolve(env[envNames.home] ?? fileURLToPath(new URL("../../.penstock", import.meta.url))),
    apiKey: env[envNames.apiKey],
    sources: {
      hubToken: env[envNames.hubToken],
      hubEndpoint: env[envNames.hubEndpoint],
      proxied: isProxied(env),
      azure: { connectionString: env[envNames.azureConnection], sasToken: env[envNames.azureSas] },
    },
    engineEnv: engineEnvOf(env),
  };
}

function fail(thrown: unknown): never {
  const error = toPenstockError(thrown);
  const detail = error.code === "internal_error" && error.cause instanceof Error ? `\n${error.cause.stack}` : "";
  process.stderr.write(`\n${error.message}${detail}\n`);
  process.exit(error.code === "invalid_config" ? 2 : 1);
}

async function stop(): Promise<void> {
  const now = performance.now();
  if (stoppingSince !== undefined) {
    if (now - stoppingSince > sameInterruptMs) process.exit(130);
    return;
  }
  stoppingSince = now;
  process.stderr.write("\nStopping: open requests may end. Ctrl-C again stops at once.\n");
  await stack?.stop();
  process.exit(0);
}

async function run(options: LocalOptions): Promise<void> {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "disconnect"] as const) process.on(signal, () => void stop());
  stack = await startLocal(options, environment());
  try {
    await stack.warmUp(new ProgressDisplay(process.stderr));
  } catch (error) {
    if (stoppingSince !== undefined) return;
    await stack.stop();
    throw error;
  }
  process.stdout.write(banner(stack));
}

try {
  const options = parseOptions(process.argv.slice(2));
  if (options === "help") process.stdout.write(helpText);
  else if (options === "version") {
    const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
    process.stdout.write(`${version}\n`);
  } else await run(options);
} catch (error) {
  fail(error);
}
