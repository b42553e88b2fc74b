import { z } from "zod";
import { modelId } from "../../contracts/model.ts";
import { envNames } from "../../contracts/names.ts";
import { residency } from "../../contracts/tenant.ts";
import { modelPrice } from "../metering/prices.ts";
import { list, repeated } from "../problems.ts";

const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "must be 1 to 63 of a-z, 0-9 and `-`");

/** Our name of what a provider serves: a model, or `model:adapter`. */
const ourName = z.union([modelId, z.string().regex(/^[^:\s]+:[^:\s]+$/)]);

const ownSecrets: readonly string[] = Object.values(envNames);

/** Somebody else who answers requests: another Penstock gateway, or whoever speaks OpenAI's API. */
export const providerConfig = z.strictObject({
  name,
  /** `penstock`: is asked whether it is ready and which models are warm, and serves every endpoint. */
  kind: z.enum(["penstock", "openai"]),
  /** What comes in front of `/v1/...`. */
  url: z.string().refine(isPlainUrl, "must be an http or https address without user, query and fragment"),
  /** http to another machine: everybody on the way reads prompts and the key. */
  allowHttp: z.boolean().default(false),
  /** Name of the environment variable with the key. */
  keyEnv: z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, "must be the name of an environment variable")
    .refine((variable) => !ownSecrets.includes(variable), "names a secret of this gateway, which must not leave it")
    .optional(),
  headerStyle: z.enum(["bearer", "x-api-key"]).default("bearer"),
  /** Where it keeps and handles what it is sent. */
  residency,
  /** Our model, or `model:adapter`, by the provider's name of it. */
  models: z.record(ourName, z.string().min(1).max(256)),
  /** USD, by our name. What has none counts as free. */
  prices: z.record(ourName, modelPrice).default({}),
  maxConcurrent: z.int().min(1).default(64),
  /** How long it may take for a whole answer that does not stream, or for the first byte of one that does. */
  firstByteSeconds: z.number().positive().max(3_600).default(60),
});

/** When requests for a model leave, and where to. */
export const spillRule = z.strictObject({
  model: modelId,
  /** Names of providers. */
  to: z.array(name).min(1),
  when: z
    .strictObject({
      /** No replica is ready or will be in time, or none could answer. */
      noReplica: z.boolean().default(true),
      /** The queue of the model is full, or too long. */
      queueFull: z.boolean().default(true),
      /** What "in time" and "too long" mean. */
      expectedWaitSecondsAbove: z.number().min(0).max(86_400).default(5),
    })
    .prefault({}),
  /** Residencies that requests for this model may go to; absent for all. A tenant may allow less, never more. */
  residencies: z.array(residency).min(1).optional(),
  /** Whether the model is loaded here when a request leaves because it is not, so that later ones stay. */
  loadsAtHome: z.boolean().default(true),
});

export type ProviderConfig = z.infer<typeof providerConfig>;
export type SpillRule = z.infer<typeof spillRule>;

/** A provider with its key. */
export interface ProviderOptions extends Omit<ProviderConfig, "keyEnv"> {
  /** Null: it asks for none. */
  readonly key: string | null;
}

/** What a config says about providers, as far as it must agree with itself. */
interface SpillConfig {
  readonly providers: readonly ProviderConfig[];
  readonly spill: readonly SpillRule[];
  readonly models: readonly { readonly id: string; readonly adapters: readonly { readonly name: string }[] }[];
}

/** What one field says of another: one line for each problem. */
export function spillProblems({ providers, spill, models }: SpillConfig): string[] {
  const served = new Set(models.flatMap(({ id, adapters }) => [id, ...adapters.map((each) => `${id}:${each.name}`)]));
  return [
    ...repeated(providers.map((each) => each.name)).map((at) => `providers[${at}].name: is there twice`),
    ...providers.flatMap((provider, at) =>
      providerProblems(provider, served).map((line) => `providers[${at}].${line}`),
    ),
    ...repeated(spill.map(({ model }) => model)).map((at) => `spill[${at}].model: is there twice`),
    ...spill.flatMap((rule, at) => ruleProblems(rule, { providers, served }).map((line) => `spill[${at}].${line}`)),
  ];
}

function providerProblems({ url, allowHttp, models, prices }: ProviderConfig, served: ReadonlySet<string>): string[] {
  const { protocol, hostname } = new URL(url);
  const isLoopback = hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
  return [
    ...(protocol === "https:" || isLoopback || allowHttp
      ? []
      : ["url: must be https; `allowHttp: true` sends prompts and the key in the clear"]),
    ...Object.keys(models).flatMap((each) =>
      served.has(each) ? [] : [`models.${each}: no model named \`${each}\`; there are ${list(served)}`],
    ),
    ...Object.keys(prices).flatMap((each) =>
      Object.hasOwn(models, each) ? [] : [`prices.${each}: is not among the provider's models`],
    ),
  ];
}

interface Known {
  readonly providers: readonly ProviderConfig[];
  readonly served: ReadonlySet<string>;
}

function ruleProblems({ model, to, residencies }: SpillRule, { providers, served }: Known): string[] {
  const names = providers.map((each) => each.name);
  const named = providers.filter((provider) => to.includes(provider.name));
  const isDeadEnd = residencies !== undefined && !named.some((each) => residencies.includes(each.residency));
  return [
    ...(served.has(model) ? [] : [`model: no model named \`${model}\`; there are ${list(served)}`]),
    ...to.flatMap((each, at) =>
      names.includes(each) ? [] : [`to[${at}]: no provider named \`${each}\`; there are ${list(names)}`],
    ),
    ...named.flatMap((provider) =>
      Object.keys(provider.models).some((each) => each === model || each.startsWith(`${model}:`))
        ? []
        : [`to: \`${provider.name}\` does not serve \`${model}\`; name it in its \`models\``],
    ),
    ...(isDeadEnd && named.length > 0 ? ["residencies: none of the providers in `to` is in one of these"] : []),
  ];
}

function isPlainUrl(text: string): boolean {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) return false;
  return url.username === "" && url.password === "" && url.search === "" && url.hash === "";
}
