import { readFileSync } from "node:fs";
import { z } from "zod";
import { PenstockError, toPenstockError } from "../contracts/errors.ts";
import { envNames } from "../contracts/names.ts";
import type { EngineGroup } from "../engines/engine.ts";
import { createLog } from "../lib/log.ts";
import { startAgent, type AgentOptions } from "./agent.ts";
import type { AgentConfig } from "./config.ts";
import { engineEnvOf, isProxied, streamEnvOf } from "./environment.ts";
import { helpText, parseAgentCommand } from "./options.ts";

const { env } = process;
const gib = 2 ** 30;

/** What LeaderWorkerSet tells its pods. */
const groupEnv = z.object({
  LWS_LEADER_ADDRESS: z.string().min(1),
  LWS_GROUP_SIZE: z.coerce.number().int().min(1).max(1_024),
  LWS_WORKER_INDEX: z.coerce.number().int().min(0).max(1_023),
});

function groupOf(): EngineGroup | null {
  if (env["LWS_LEADER_ADDRESS"] === undefined) return null;
  const group = groupEnv.safeParse(env);
  if (!group.success) {
    throw new PenstockError(
      "invalid_config",
      "LWS_LEADER_ADDRESS is set; LWS_GROUP_SIZE and LWS_WORKER_INDEX must be too.",
    );
  }
  const { LWS_LEADER_ADDRESS, LWS_GROUP_SIZE, LWS_WORKER_INDEX } = group.data;
  return LWS_GROUP_SIZE === 1
    ? null
    : { leaderAddress: LWS_LEADER_ADDRESS, size: LWS_GROUP_SIZE, index: LWS_WORKER_INDEX };
}

function sourcesOf({ stores }: AgentConfig): AgentOptions["sources"] {
  return {
    hubToken: env[envNames.hubToken],
    hubEndpoint: env[envNames.hubEndpoint],
    proxied: isProxied(env),
    azure: {
      ...stores.azure,
      connectionString: env[envNames.azureConnection],
      sasToken: env[envNames.azureSas],
    },
    s3: { ...stores.s3 },
  };
}

function optionsOf(config: AgentConfig): AgentOptions {
  const token = env[envNames.agentToken];
  if (token === undefined || token.length < 16) {
    throw new PenstockError(
      "invalid_config",
      `${envNames.agentToken} must be a secret of 16 characters or more: gateways send it as bearer token.`,
    );
  }
  const { cache } = config;
  return {
    agentId: config.agentId,
    listen: { host: config.host, port: config.port },
    token,
    cacheDirectory: cache.directory,
    stateDirectory: config.stateDirectory,
    cache: {
      budgetBytes: cache.budgetGiB === undefined ? null : Math.floor(cache.budgetGiB * gib),
      ttlMs: cache.ttlHours === undefined ? null : cache.ttlHours * 3_600_000,
      ...(cache.reserveGiB === undefined ? {} : { reserveFreeBytes: Math.floor(cache.reserveGiB * gib) }),
    },
    prefetch: config.prefetch,
    serve: config.serve.map((each) => ({ ...each, model_id: each.model.id, stream: false })),
    sources: sourcesOf(config),
    engineEnv: engineEnvOf(env),
    streamEnv: streamEnvOf(env),
    engineCommands: config.engineCommands,
    engineLogLevel: config.logLevel,
    drainTimeoutMs: config.drainSeconds * 1_000,
    readyTimeoutMs: config.readySeconds * 1_000,
    stopTimeoutMs: config.stopSeconds * 1_000,
    reclaim: { source: config.reclaim },
    group: groupOf(),
  };
}

async function run(config: AgentConfig): Promise<void> {
  const log = createLog("agent", config.logLevel);
  const agent = await startAgent(optionsOf(config), log);
  let isStopping = false;
  const stop = (reason: NodeJS.Signals): void => {
    if (isStopping) process.exit(130);
    isStopping = true;
    log.info({ reason, drainSeconds: config.drainSeconds }, "draining; a second signal stops at once");
    void agent.stop().then(() => process.exit(0));
  };
  process
    .on("SIGTERM", stop)
    .on("SIGINT", stop)
    .on("disconnect", () => stop("SIGTERM"));
  log.info({ url: agent.url }, "listening");
  process.stdout.write(`${JSON.stringify({ url: agent.url })}\n`);
}

try {
  const command = await parseAgentCommand(process.argv.slice(2));
  switch (command.kind) {
    case "help":
      process.stdout.write(helpText);
      break;
    case "version": {
      const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
      process.stdout.write(`${version}\n`);
      break;
    }
    case "check":
      process.stdout.write(`${JSON.stringify(command.config, null, 2)}\n`);
      break;
    case "run":
      await run(command.config);
      break;
  }
} catch (thrown) {
  const error = toPenstockError(thrown);
  const detail = error.code === "internal_error" && error.cause instanceof Error ? `\n${error.cause.stack}` : "";
  process.stderr.write(`agent: ${error.message}${detail}\n`);
  process.exit(error.code === "invalid_config" ? 2 : 1);
}
