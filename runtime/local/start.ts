import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { join } from "node:path";
import { loadLocalStack } from "../../infra/stack/load.ts";
import type { LocalStack as StackConfig } from "../../infra/stack/schema.ts";
import { startAgent, type Agent } from "../agent/agent.ts";
import type { SourceOptions } from "../agent/sources/index.ts";
import { PenstockError } from "../contracts/errors.ts";
import { startGateway, type Gateway } from "../gateway/gateway.ts";
import { locateHooks } from "../gateway/hooks/options.ts";
import type { GatewayOptions, ServedModel } from "../gateway/options.ts";
import { createLog } from "../lib/log.ts";
import { idOf, type LocalOptions } from "./options.ts";
import type { ProgressDisplay } from "./progress.ts";

/** What the environment adds to the command line. */
export interface LocalEnvironment {
  /** Folder for caches. */
  readonly home: string;
  /** Replaces the stack's key. */
  readonly apiKey: string | undefined;
  readonly sources: SourceOptions;
  /** Environment of the engine. */
  readonly engineEnv: Readonly<Record<string, string>>;
}

/** Gateway and agent on one machine. */
export interface LocalStack {
  readonly url: string;
  readonly apiKey: string;
  /** Ids of the models that are served, the first one first. */
  readonly models: readonly string[];
  /** Shows how warm models load. Throws the first one's error. */
  warmUp(display: ProgressDisplay): Promise<void>;
  /** Drains the gateway, then the agent, then stops the engine. */
  stop(): Promise<void>;
}

/** Between two drawings of the progress. */
const drawIntervalMs = 100;

/** On one machine all models are served by the one agent, whatever fleets the stack file has. */
const localFleet = "local";

/** A gateway on one machine waits for its own agent only. */
const agentDrainTimeoutMs = 1_000;

/** Brings up the local stack: one agent, one gateway, each as it runs on a cloud. Throws an error of the table. */
export async function startLocal(options: LocalOptions, environment: LocalEnvironment): Promise<LocalStack> {
  const stack = await loadLocalStack(options.stackPath);
  const apiKey = environment.apiKey ?? stack.gateway.apiKey;
  const host = options.host ?? stack.gateway.host;
  refusePublicKey(host, environment.apiKey);
  const models = servedModels(stack, options.modelSource);
  const agentToken = randomBytes(24).toString("base64url");
  const agent = await startAgent(
    {
      agentId: hostname(),
      listen: { host: "127.0.0.1", port: 0 },
      token: agentToken,
      cacheDirectory: stack.cache.directory ?? join(environment.home, "cache"),
      stateDirectory: join(environment.home, "agent"),
      sources: environment.sources,
      engineEnv: environment.engineEnv,
      engineLogLevel: options.logLevel,
      drainTimeoutMs: agentDrainTimeoutMs,
    },
    createLog("agent", options.logLevel),
  );
  const gatewayOptions: GatewayOptions = {
    ...gatewayOptionsOf(stack),
    hooks: locateHooks(stack.gateway.hooks, options.stackPath),
    listen: { host, port: options.port ?? stack.gateway.port },
    apiKey,
    fleets: [{ name: localFleet, agents: { kind: "static", urls: [agent.url] } }],
    agentToken,
    models,
  };
  const gateway = await startGateway(gatewayOptions, createLog("gateway", options.logLevel)).catch(async (error) => {
    await agent.stop();
    throw error;
  });
  return {
    url: gateway.url,
    apiKey,
    models: models.map(({ spec }) => spec.id),
    warmUp: (display) => warmUp(gateway, models, display),
    stop: () => stopBoth(gateway, agent),
  };
}

/** Whoever can reach the endpoint can read the key in the repository, so it guards a loopback address only. */
function refusePublicKey(host: string, ownKey: string | undefined): void {
  if (ownKey !== undefined || /^(127\.|localhost$|::1$)/.test(host)) return;
  throw new PenstockError(
    "invalid_config",
    `${host} opens the endpoint to the network, and the key in the stack file is public; set PENSTOCK_API_KEY to a secret of your own.`,
  );
}

function servedModels(stack: StackConfig, modelSource: string | undefined): ServedModel[] {
  const [firstFleet] = stack.fleets;
  if (modelSource !== undefined && firstFleet !== undefined) {
    const spec = { id: idOf(modelSource), source: modelSource, format: "gguf", adapters: [] } as const;
    return [{ spec: { ...spec, adapters: [] }, engine: firstFleet.engine, fleet: localFleet, warm: true }];
  }
  return stack.fleets.flatMap(({ engine, models }) =>
    stack.models
      .filter(({ id }) => models.includes(id))
      .map(({ warm, ...spec }): ServedModel => ({ spec, engine, fleet: localFleet, warm })),
  );
}

function gatewayOptionsOf({ gateway }: StackConfig) {
  const mebibyte = 1024 * 1024;
  return {
    hold: {
      maxRequests: gateway.hold.maxRequests,
      maxBytes: gateway.hold.maxMiB * mebibyte,
      maxSeconds: gateway.hold.maxSeconds,
    },
    maxBodyBytes: gateway.maxBodyMiB * mebibyte,
    drainTimeoutMs: gateway.drainSeconds * 1_000,
    // A CPU may think for minutes about an answer that does not stream.
    firstByteTimeoutMs: 10 * 60_000,
    betweenBytesTimeoutMs: 2 * 60_000,
  } satisfies Partial<GatewayOptions>;
}

async function warmUp(gateway: Gateway, models: readonly ServedModel[], display: ProgressDisplay): Promise<void> {
  for (const { spec, warm } of models) {
    if (!warm) continue;
    const started = performance.now();
    const load = gateway.registry.load(gateway.registry.catalog.resolve(spec.id).model);
    const drawing = setInterval(() => {
      if (load.progress !== null) display.show(spec.id, load.progress);
    }, drawIntervalMs);
    await load.done.finally(() => clearInterval(drawing));
    display.finish(`${spec.id}: ready after ${((performance.now() - started) / 1_000).toFixed(1)} s`);
  }
}

async function stopBoth(gateway: Gateway, agent: Agent): Promise<void> {
  await gateway.stop();
  await agent.stop();
}
