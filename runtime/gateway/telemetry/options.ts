import { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";

/** `tracing` in the gateway's config. What it leaves out comes from the standard variables of OpenTelemetry. */
export const tracingConfig = z.strictObject({
  /** Where spans go, by OTLP over HTTP: `http://collector:4318/v1/traces`. */
  endpoint: z
    .url({ protocol: /^https?$/, error: "must be an address such as http://collector:4318/v1/traces" })
    .optional(),
  /** Part of the requests that are traced, when the client does not say whether its trace is sampled. */
  sampleRatio: z.number().min(0).max(1).optional(),
});

export type TracingConfig = z.infer<typeof tracingConfig>;

/** Values of the standard variables. The exporter itself reads those of its headers, certificates and compression. */
export interface TracingEnvironment {
  readonly disabled: string | undefined;
  readonly endpoint: string | undefined;
  readonly tracesEndpoint: string | undefined;
  readonly serviceName: string | undefined;
  readonly sampler: string | undefined;
  readonly samplerArg: string | undefined;
}

/** Where spans go, and which. */
export interface TracingOptions {
  /** The full address, with its path. */
  readonly endpoint: string;
  readonly serviceName: string;
  readonly sampling: Sampling;
}

/** `ratio` is 0 to 1; `parentBased`: a client that sampled its trace, or did not, decides for its requests. */
export interface Sampling {
  readonly ratio: number;
  readonly parentBased: boolean;
}

/** Names of `OTEL_TRACES_SAMPLER`; a null ratio is `OTEL_TRACES_SAMPLER_ARG`. */
const samplers: Readonly<Record<string, { readonly ratio: number | null; readonly parentBased: boolean }>> = {
  always_on: { ratio: 1, parentBased: false },
  always_off: { ratio: 0, parentBased: false },
  traceidratio: { ratio: null, parentBased: false },
  parentbased_always_on: { ratio: 1, parentBased: true },
  parentbased_always_off: { ratio: 0, parentBased: true },
  parentbased_traceidratio: { ratio: null, parentBased: true },
};

/** What the config and the environment say together, the config first. Undefined: no tracing. Throws `invalid_config`. */
export function tracingOf(config: TracingConfig | undefined, env: TracingEnvironment): TracingOptions | undefined {
  if (env.disabled?.toLowerCase() === "true") return undefined;
  const endpoint = config?.endpoint ?? env.tracesEndpoint ?? tracesPathOf(env.endpoint);
  if (endpoint === undefined || endpoint === "") {
    if (config === undefined) return undefined;
    throw new PenstockError("invalid_config", "tracing.endpoint: name it, or set OTEL_EXPORTER_OTLP_ENDPOINT.");
  }
  if (!URL.canParse(endpoint)) {
    throw new PenstockError(
      "invalid_config",
      "OTEL_EXPORTER_OTLP_ENDPOINT: is no address; http://collector:4318 is one.",
    );
  }
  const sampling =
    config?.sampleRatio === undefined ? samplingOf(env) : { ratio: config.sampleRatio, parentBased: true };
  return { endpoint, serviceName: env.serviceName ?? "penstock-gateway", sampling };
}

function tracesPathOf(endpoint: string | undefined): string | undefined {
  return endpoint === undefined || endpoint === "" ? undefined : `${endpoint.replace(/\/$/, "")}/v1/traces`;
}

function samplingOf({ sampler = "parentbased_always_on", samplerArg = "1" }: TracingEnvironment): Sampling {
  const known = Object.hasOwn(samplers, sampler) ? samplers[sampler] : undefined;
  if (known === undefined) {
    const names = Object.keys(samplers).join(", ");
    throw new PenstockError("invalid_config", `OTEL_TRACES_SAMPLER: there is no such sampler; use one of ${names}.`);
  }
  const ratio = known.ratio ?? Number(samplerArg);
  if (!(ratio >= 0 && ratio <= 1)) {
    throw new PenstockError("invalid_config", "OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1.");
  }
  return { ratio, parentBased: known.parentBased };
}
