import { readFile } from "node:fs/promises";
import { parse } from "yaml";
import { z } from "zod";
import { idlePolicy } from "../contracts/agent.ts";
import { engineSpec } from "../contracts/engine.ts";
import { PenstockError } from "../contracts/errors.ts";
import { modelId, modelSpec } from "../contracts/model.ts";
import { defaultPorts } from "../contracts/names.ts";
import { tenant } from "../contracts/tenant.ts";
import { problemLines } from "../contracts/validate.ts";
import { logLevels } from "../lib/log.ts";
import { directoryOptions } from "./fleet/directory.ts";
import { AddressList } from "./identity/addresses.ts";
import { hookOptions } from "../contracts/hooks.ts";
import { issuer } from "./identity/issuer.ts";
import { modelPrice } from "./metering/prices.ts";
import { list, repeated } from "./problems.ts";
import { providerConfig, spillProblems, spillRule } from "./providers/options.ts";
import { defaultPolicy, policyNames } from "./routing/index.ts";
import { hedgingConfig } from "./stages/hedge.ts";
import { tracingConfig } from "./telemetry/options.ts";

const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "must be 1 to 63 of a-z, 0-9 and `-`");
const seconds = z.number().positive().max(86_400);
const addressRange = z.string().refine(AddressList.isRange, "is no IP address or range such as 10.0.0.0/8");

/** A gateway's config file. Only fleets and models must be there; an unknown field is an error. */
export const gatewayConfig = z.strictObject({
  host: z.string().min(1).default("127.0.0.1"),
  port: z.int().min(0).max(65_535).default(defaultPorts.gateway),
  /** PEM files; renewed ones are taken up while the gateway runs. */
  tls: z
    .strictObject({
      certFile: z.string().min(1),
      keyFile: z.string().min(1),
      clientCaFile: z.string().min(1).optional(),
    })
    .optional(),
  /** Groups of agents that serve the same models. */
  fleets: z.array(z.strictObject({ name, agents: directoryOptions })).min(1),
  models: z
    .array(
      modelSpec.extend({
        fleet: name,
        engine: engineSpec,
        /** Loaded when the gateway starts instead of at the first request. */
        warm: z.boolean().default(false),
        idle: idlePolicy.optional(),
        /** Never evicted for another model, and its files stay on disk. */
        pinned: z.boolean().optional(),
      }),
    )
    .min(1),
  /** Names that stand for several models, each as often as its weight says. */
  aliases: z
    .record(modelId, z.array(z.strictObject({ model: modelId, weight: z.number().positive() })).min(1))
    .default({}),
  tenants: z.array(tenant.extend({ allowedAddresses: z.array(addressRange).max(100).default([]) })).default([]),
  /** Who may issue tokens (OpenID Connect). */
  issuers: z.array(issuer).default([]),
  /** Addresses that may use this gateway at all. */
  allowedAddresses: z.array(addressRange).optional(),
  /** Proxies in front, and the header in which they tell the client's address. */
  proxies: z
    .strictObject({
      trusted: z.array(addressRange).min(1),
      header: z.enum(["x-forwarded-for", "forwarded"]).default("x-forwarded-for"),
    })
    .optional(),
  /** TCP load balancers in front that speak the PROXY protocol (1 or 2). Connections of others are closed. */
  proxyProtocol: z.strictObject({ trusted: z.array(addressRange).min(1) }).optional(),
  stores: z
    .strictObject({
      /** Folder of the embedded stores. PENSTOCK_REDIS_URL and PENSTOCK_POSTGRES_URL take their places. */
      directory: z.string().min(1).default(".penstock/gateway"),
      /** While Redis is away: keep limits in this gateway alone, or refuse requests. */
      onRedisFailure: z.enum(["local", "deny"]).default("local"),
    })
    .prefault({}),
  routing: z.enum(policyNames).default(defaultPolicy),
  /** USD, by model or by `model:adapter`. */
  prices: z.record(z.string(), modelPrice).default({}),
  /** Others who can answer: Penstock gateways elsewhere, and whoever speaks OpenAI's API. */
  providers: z.array(providerConfig).default([]),
  /** When requests for a model go to them. */
  spill: z.array(spillRule).default([]),
  /** Models whose slow requests are sent to a second replica; the first answer counts. */
  hedging: hedgingConfig.optional(),
  /** Models whose answers are given again when the same tenant sends the same request that samples nothing. */
  responseCache: z.strictObject({ models: z.array(modelId).min(1), seconds: seconds.default(3_600) }).optional(),
  /** Modules that see requests and answers, in this order. */
  hooks: z.array(hookOptions).max(32).default([]),
  /** Spans of requests, by OpenTelemetry. */
  tracing: tracingConfig.optional(),
  /** Usage as JSON lines. */
  usageFile: z.string().min(1).optional(),
  /** KEDA's external scaler: the demand of each fleet over gRPC. Plain text; let only KEDA reach it. */
  scaler: z
    .strictObject({
      host: z.string().min(1).default("127.0.0.1"),
      port: z.int().min(0).max(65_535).default(defaultPorts.scaler),
    })
    .optional(),
  /** Hosts that images and files of a request may be fetched from by the engine. */
  allowedHosts: z.array(z.string().min(1)).default([]),
  /** Requests that wait while their model loads. */
  hold: z
    .strictObject({
      maxRequests: z.int().min(1).default(10_000),
      maxMiB: z.number().positive().default(256),
      maxSeconds: seconds.default(600),
      /** Part of both that one tenant may take. */
      tenantShare: z.number().positive().max(1).default(0.5),
    })
    .prefault({}),
  maxBodyMiB: z.number().positive().max(1_024).default(16),
  /** Requests of a model that run at once on each of its replicas. */
  maxRunningPerReplica: z.int().min(1).optional(),
  /** Tokens that an answer without a bound of its own is taken to have when limits are reserved. */
  defaultMaxTokens: z.int().min(1).default(1_024),
  firstByteSeconds: seconds.default(600),
  betweenBytesSeconds: seconds.default(120),
  drainSeconds: z.number().min(0).max(86_400).default(60),
  logLevel: z.enum(logLevels).default("info"),
});

export type GatewayConfig = z.infer<typeof gatewayConfig>;

/** Reads and checks a config file in YAML (or JSON). Throws `invalid_config` that names every problem at once. */
export async function readGatewayConfig(path: string): Promise<GatewayConfig> {
  const raw = parseYaml(await textOf(path), path);
  const parsed = gatewayConfig.safeParse(raw);
  const problems = parsed.success ? crossProblems(parsed.data) : problemLines(parsed.error);
  if (!parsed.success || problems.length > 0) throw new PenstockError("invalid_config", problems.join("\n"));
  return parsed.data;
}

/** What one field says of another. */
function crossProblems(config: GatewayConfig): string[] {
  const { fleets, models, aliases, responseCache, hedging, hooks } = config;
  const fleetNames = new Set(fleets.map((fleet) => fleet.name));
  const ids = new Set(models.map(({ id }) => id));
  return [
    ...repeated(fleets.map((fleet) => fleet.name)).map((at) => `fleets[${at}].name: is there twice`),
    ...repeated(models.map(({ id }) => id)).map((at) => `models[${at}].id: is there twice`),
    ...models.flatMap(({ fleet }, at) =>
      fleetNames.has(fleet) ? [] : [`models[${at}].fleet: no fleet named \`${fleet}\`; there are ${list(fleetNames)}`],
    ),
    ...(responseCache?.models ?? []).flatMap((model, at) =>
      ids.has(model) ? [] : [`responseCache.models[${at}]: no model named \`${model}\`; there are ${list(ids)}`],
    ),
    ...(hedging?.models ?? []).flatMap((model, at) =>
      ids.has(model) ? [] : [`hedging.models[${at}]: no model named \`${model}\`; there are ${list(ids)}`],
    ),
    ...hooks.flatMap((hook, at) =>
      (hook.models ?? []).flatMap((model, which) =>
        ids.has(model) ? [] : [`hooks[${at}].models[${which}]: no model named \`${model}\`; there are ${list(ids)}`],
      ),
    ),
    ...spillProblems(config),
    ...Object.entries(aliases).flatMap(([alias, choices]) => [
      ...(ids.has(alias) ? [`aliases.${alias}: a model has this name`] : []),
      ...choices.flatMap(({ model }, at) =>
        ids.has(model) ? [] : [`aliases.${alias}[${at}].model: no model named \`${model}\`; there are ${list(ids)}`],
      ),
    ]),
  ];
}

async function textOf(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new PenstockError("invalid_config", `--config: ${path} cannot be read.`, { cause });
  }
}

function parseYaml(text: string, path: string): unknown {
  try {
    return parse(text);
  } catch (cause) {
    const where = cause instanceof Error ? cause.message.split("\n")[0] : "";
    throw new PenstockError("invalid_config", `${path} is not YAML: ${where}`, { cause });
  }
}
