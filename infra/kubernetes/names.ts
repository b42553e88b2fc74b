import type { CloudPlan, PlannedFleet } from "../plan/plan.ts";
import { namespaces } from "../cloud.ts";
import { defaultPorts } from "../../runtime/contracts/names.ts";

/** Name of the gateway's Deployment, of its Service, and of what belongs to it. */
export const gatewayName = "penstock-gateway";
/** Value of `app.kubernetes.io/name` of every agent, whatever its fleet. */
export const agentName = "penstock-agent";
/** Value of `app.kubernetes.io/name` of jobs that fill the cache. */
export const modelPushName = "penstock-model-push";
/** Service that KEDA asks for demand. */
export const scalerName = "penstock-gateway-scaler";

/** Where KEDA reaches the gateway's external scaler. */
export const scalerAddress = `${scalerName}.${namespaces.serving}.svc:${defaultPorts.scaler}`;

/** Ports of the gateway's pods and of its Service. */
export const gatewayPorts = { pod: 8443, service: 443 } as const;

/** Label of the pods of one fleet. */
export const fleetLabel = "penstock.dev/fleet";
/** Label of all nodes of a stack's pool. */
export const poolLabel = "penstock.dev/pool";
/** Label of the nodes of one planned pool. */
export const variantLabel = "penstock.dev/variant";
/** Namespaces with this label may reach the gateway from inside the cluster. */
export const clientLabel = "penstock.dev/client";

/** Name of a fleet's workload, and of what belongs to it. */
export function fleetName({ name }: Pick<PlannedFleet, "name">): string {
  return `fleet-${name}`;
}

/** Service whose endpoints are a fleet's agents. */
export function agentsService({ name }: Pick<PlannedFleet, "name">): string {
  return `agents-${name}`;
}

/** The one folder of a node that pods share: models. It is there once the node's disks are. */
export function modelFolder({ cache }: CloudPlan): string {
  return `${cache.nodeDirectory}/models`;
}

/** What pods are selected by. It can never change, so there is nothing in it that a stack might want to change. */
export function selectorLabels(name: string): Record<string, string> {
  return { "app.kubernetes.io/name": name };
}

/** Selects the agents of one fleet. */
export function fleetSelector(fleet: Pick<PlannedFleet, "name">): Record<string, string> {
  return { ...selectorLabels(agentName), [fleetLabel]: fleet.name };
}

/** What Kubernetes takes as the value of a label. */
const labelValue = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;

/**
 * Labels of an object: Kubernetes' recommended ones, and the stack's tags as far as they are legal label values. Pods do
 * not carry the tags: a changed tag would restart every GPU.
 */
export function labels(plan: CloudPlan, name: string, component: string): Record<string, string> {
  const tags = Object.entries(plan.tags).filter(([key, value]) => key.length <= 63 && labelValue.test(value));
  return { ...Object.fromEntries(tags), ...podLabels(plan, name, component) };
}

/** Labels of a pod. */
export function podLabels(plan: CloudPlan, name: string, component: string): Record<string, string> {
  return {
    ...selectorLabels(name),
    "app.kubernetes.io/instance": plan.prefix,
    "app.kubernetes.io/component": component,
    "app.kubernetes.io/part-of": "penstock",
    "app.kubernetes.io/managed-by": "pulumi",
  };
}
