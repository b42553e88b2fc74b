import { defaultPorts } from "../../runtime/contracts/names.ts";
import { namespaces } from "../cloud.ts";
import type { CloudPlan, PlannedFleet } from "../plan/plan.ts";
import { agentsService, gatewayPorts } from "./names.ts";

/** Where the certificate is mounted. */
export const tlsDirectory = "/etc/penstock-tls";

/** The gateway's config file: `runtime/gateway/config.ts` says what is in one. No secret is. */
export function gatewayConfigOf(plan: CloudPlan): Readonly<Record<string, unknown>> {
  const { config } = plan.gateway;
  const { tracesEndpoint } = plan.observability;
  return {
    host: "0.0.0.0",
    port: gatewayPorts.pod,
    tls: { certFile: `${tlsDirectory}/tls.crt`, keyFile: `${tlsDirectory}/tls.key` },
    fleets: plan.fleets.map((fleet) => ({ name: fleet.name, agents: agentsOf(fleet) })),
    models: plan.fleets.flatMap((fleet) => modelsOf(plan, fleet)),
    aliases: config.aliases,
    tenants: config.tenants,
    issuers: config.issuers.map(issuerOf),
    stores: { directory: "/var/lib/penstock" },
    ...(config.routing === undefined ? {} : { routing: config.routing }),
    prices: Object.fromEntries(plan.models.flatMap(({ id, price }) => (price === null ? [] : [[id, price]]))),
    ...(tracesEndpoint === null ? {} : { tracing: { endpoint: tracesEndpoint } }),
    scaler: { host: "0.0.0.0", port: defaultPorts.scaler },
    hold: config.hold,
    ...(config.hooks === undefined ? {} : { hooks: config.hooks }),
    ...(config.responseCache === undefined ? {} : { responseCache: config.responseCache }),
    maxBodyMiB: config.maxBodyMiB,
    drainSeconds: config.drainSeconds,
  };
}

/** EndpointSlices of the fleet's headless Service. */
function agentsOf(fleet: PlannedFleet) {
  return { kind: "kubernetes", namespace: namespaces.serving, service: agentsService(fleet), port: defaultPorts.agent };
}

function modelsOf({ models }: CloudPlan, fleet: PlannedFleet) {
  return models
    .filter((model) => model.fleet === fleet.name)
    .map(({ spec, warm, pinned }) => ({
      ...spec,
      fleet: fleet.name,
      engine: fleet.engine,
      warm,
      pinned,
      ...(fleet.idle === null ? {} : { idle: fleet.idle }),
    }));
}

function issuerOf({ issuer, audience, tenantClaim, tenantPrefix }: CloudPlan["gateway"]["config"]["issuers"][number]) {
  return {
    issuer,
    audience,
    tenant: { claim: tenantClaim, ...(tenantPrefix === "" ? {} : { prefix: tenantPrefix }) },
  };
}
