/** Ports that a service listens on unless told otherwise. The engine's is that of its command line. */
export const defaultPorts = { gateway: 8080, agent: 8081, engine: 8082, scaler: 8090 } as const;

/** Environment variables that Penstock reads; only a `main.ts` does so. */
export const envNames = {
  /** Replaces the API key of the stack file. */
  apiKey: "PENSTOCK_API_KEY",
  /** Bearer token between gateway and agent. */
  agentToken: "PENSTOCK_AGENT_TOKEN",
  /** API key that the agent gives its engine through the environment, so that it is on no command line. */
  engineKey: "PENSTOCK_ENGINE_KEY",
  /** Folder for caches, logs and sockets of `npm start`. */
  home: "PENSTOCK_HOME",
  /** Token for gated models of the Hugging Face hub. */
  hubToken: "HF_TOKEN",
  /** A mirror of the Hugging Face hub. */
  hubEndpoint: "HF_ENDPOINT",
  /** Azure Blob Storage without an Entra identity, as Azure's own tools name them. */
  azureConnection: "AZURE_STORAGE_CONNECTION_STRING",
  azureSas: "AZURE_STORAGE_SAS_TOKEN",
  /** Stores that several gateways share. */
  redisUrl: "PENSTOCK_REDIS_URL",
  postgresUrl: "PENSTOCK_POSTGRES_URL",
  /** OpenTelemetry's own: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables. */
  otelDisabled: "OTEL_SDK_DISABLED",
  otelEndpoint: "OTEL_EXPORTER_OTLP_ENDPOINT",
  otelTracesEndpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
  otelServiceName: "OTEL_SERVICE_NAME",
  otelSampler: "OTEL_TRACES_SAMPLER",
  otelSamplerArg: "OTEL_TRACES_SAMPLER_ARG",
  /** Where `npm run keys` finds keys and tenants: a file or a PostgreSQL URL. */
  recordStore: "PENSTOCK_RECORD_STORE",
} as const;

/** Response header with the id that logs carry for the request. */
export const requestIdHeader = "x-request-id";

/** Request header by which the gateway tells the agent which adapter a request uses: the agent reads no bodies. */
export const adapterHeader = "x-penstock-adapter";
