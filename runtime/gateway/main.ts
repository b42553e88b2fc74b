import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { PenstockError, toPenstockError } from "../contracts/errors.ts";
import { envNames } from "../contracts/names.ts";
import { createLog } from "../lib/log.ts";
import { readGatewayConfig, type GatewayConfig } from "./config.ts";
import { startGateway } from "./gateway.ts";
import { checkHooks } from "./hooks/hooks.ts";
import { locateHooks } from "./hooks/options.ts";
import type { GatewayOptions, Reloadable } from "./options.ts";
import type { ProviderOptions } from "./providers/options.ts";
import { tracingOf, type TracingEnvironment } from "./telemetry/options.ts";

const help = `The OpenAI endpoint in front of a fleet of agents.

Usage: npm run gateway -- --config gateway.yaml

  --config FILE   what is served, by whom, for whom (docs/operations.md shows one)
  --check         print the config that would be used, as JSON, and end
  --help

Environment: PENSTOCK_AGENT_TOKEN is the bearer token of the agents (required). PENSTOCK_API_KEY is a key that may do
everything, to create the first keys. PENSTOCK_REDIS_URL and PENSTOCK_POSTGRES_URL name the stores that several gateways
share. A provider's \`keyEnv\` names the variable with its key.
SIGTERM lets open requests end; SIGHUP reads the config again without dropping one.
`;

const { env } = process;
const mebibyte = 2 ** 20;

const tracingEnvironment: TracingEnvironment = {
  disabled: env[envNames.otelDisabled],
  endpoint: env[envNames.otelEndpoint],
  tracesEndpoint: env[envNames.otelTracesEndpoint],
  serviceName: env[envNames.otelServiceName],
  sampler: env[envNames.otelSampler],
  samplerArg: env[envNames.otelSamplerArg],
};

async function optionsOf(config: GatewayConfig, path: string): Promise<GatewayOptions> {
  const agentToken = env[envNames.agentToken];
  if (agentToken === undefined || agentToken === "") {
    throw new PenstockError("invalid_config", `${envNames.agentToken} must be the bearer token of the agents.`);
  }
  const { hold } = config;
  return {
    ...config,
    ...servedBy(config, path),
    tracing: tracingOf(config.tracing, tracingEnvironment),
    listen: { host: config.host, port: config.port },
    apiKey: env[envNames.apiKey] ?? null,
    agentToken,
    stores: await storesOf(config),
    hold: { ...hold, maxBytes: hold.maxMiB * mebibyte },
    maxBodyBytes: config.maxBodyMiB * mebibyte,
    firstByteTimeoutMs: config.firstByteSeconds * 1_000,
    betweenBytesTimeoutMs: config.betweenBytesSeconds * 1_000,
    drainTimeoutMs: config.drainSeconds * 1_000,
  };
}

/** What a reload may change. */
function servedBy(
  config: GatewayConfig,
  path: string,
): Reloadable & { readonly providers: readonly ProviderOptions[] } {
  const { models, aliases, tenants, prices, routing, providers, spill, hedging } = config;
  return {
    spill,
    hedging,
    providers: providersOf(providers),
    hooks: locateHooks(config.hooks, path),
    aliases,
    tenants,
    prices,
    routing,
    models: models.map(({ fleet, engine, warm, idle, pinned, ...spec }) => ({
      spec,
      fleet,
      engine,
      warm,
      idle,
      pinned,
    })),
  };
}

/** Providers with their keys. Throws `invalid_config` that names every variable that is missing. */
function providersOf(providers: GatewayConfig["providers"]): ProviderOptions[] {
  const missing = providers.flatMap(({ name, keyEnv }) =>
    keyEnv === undefined || (env[keyEnv] ?? "") !== "" ? [] : [`${keyEnv} must be the key of provider \`${name}\`.`],
  );
  if (missing.length > 0) throw new PenstockError("invalid_config", missing.join("\n"));
  return providers.map(({ keyEnv, ...provider }) => ({
    ...provider,
    key: keyEnv === undefined ? null : (env[keyEnv] ?? null),
  }));
}

async function storesOf({ stores }: GatewayConfig): Promise<NonNullable<GatewayOptions["stores"]>> {
  const directory = resolve(stores.directory);
  const redis = env[envNames.redisUrl];
  const postgres = env[envNames.postgresUrl];
  if (redis === undefined || postgres === undefined) await mkdir(directory, { recursive: true });
  return {
    hot:
      redis === undefined
        ? { kind: "memory", file: join(directory, "limits.sqlite") }
        : { kind: "redis", url: redis, onStoreFailure: stores.onRedisFailure },
    record:
      postgres === undefined
        ? { kind: "sqlite", file: join(directory, "records.sqlite") }
        : { kind: "postgres", url: postgres },
  };
}

async function run(path: string, config: GatewayConfig): Promise<void> {
  const log = createLog("gateway", config.logLevel);
  const gateway = await startGateway(await optionsOf(config, path), log);
  let isStopping = false;
  const stop = (reason: NodeJS.Signals): void => {
    if (isStopping) process.exit(130);
    isStopping = true;
    log.info({ reason, drainSeconds: config.drainSeconds }, "draining; a second signal stops at once");
    void gateway.stop().then(() => process.exit(0));
  };
  const reload = async (): Promise<void> => {
    try {
      await gateway.reload(servedBy(await readGatewayConfig(path), path));
      log.info("config was read again");
    } catch (thrown) {
      log.error({ reason: toPenstockError(thrown).message }, "the new config is not used; the old one stays");
    }
  };
  process
    .on("SIGTERM", stop)
    .on("SIGINT", stop)
    .on("disconnect", () => stop("SIGTERM"));
  process.on("SIGHUP", () => void reload());
  log.info({ url: gateway.url }, "listening");
  process.stdout.write(`${JSON.stringify({ url: gateway.url })}\n`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { config: { type: "string" }, check: { type: "boolean" }, help: { type: "boolean", short: "h" } },
  });
  if (values.help === true) {
    process.stdout.write(help);
    return;
  }
  if (values.config === undefined)
    throw new PenstockError("invalid_config", "Name a config with --config; see --help.");
  const config = await readGatewayConfig(values.config);
  if (values.check === true) {
    tracingOf(config.tracing, tracingEnvironment);
    await checkHooks(locateHooks(config.hooks, values.config));
    process.stdout.write(`${JSON.stringify(config, null, 2)}\n`);
  } else await run(values.config, config);
}

try {
  await main();
} catch (thrown) {
  const isUsage = thrown instanceof TypeError && "code" in thrown;
  const error = isUsage
    ? new PenstockError("invalid_config", `${thrown.message}; see --help`)
    : toPenstockError(thrown);
  const detail = error.code === "internal_error" && error.cause instanceof Error ? `\n${error.cause.stack}` : "";
  process.stderr.write(`gateway: ${error.message}${detail}\n`);
  process.exit(error.code === "invalid_config" ? 2 : 1);
}
