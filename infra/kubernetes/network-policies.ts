import * as k8s from "@pulumi/kubernetes";
import { defaultPorts } from "../../runtime/contracts/names.ts";
import { namespaces } from "../cloud.ts";
import type { CloudPlan } from "../plan/plan.ts";
import { addOn, declare, type Cluster } from "./cluster.ts";
import {
  agentName,
  clientLabel,
  fleetName,
  fleetSelector,
  gatewayName,
  gatewayPorts,
  labels,
  modelPushName,
  selectorLabels,
} from "./names.ts";
import { stores } from "./stores.ts";

type Spec = k8s.types.input.networking.v1.NetworkPolicySpec;
type Peer = k8s.types.input.networking.v1.NetworkPolicyPeer;
type Port = k8s.types.input.networking.v1.NetworkPolicyPort;

/** Link-local addresses: on both clouds the instance metadata, which hands out the node's own identity. */
const linkLocal = "169.254.0.0/16";
/** Azure's host, which answers for a VM's extensions. */
const azureHost = "168.63.129.16/32";

/** Where pods get their cloud identity from, where that is not an ordinary https address. */
const identity = {
  azure: [],
  // EKS Pod Identity's agent on each node.
  aws: [{ to: [{ ipBlock: { cidr: "169.254.170.23/32" } }], ports: [tcp(80)] }],
} as const satisfies Record<CloudPlan["cloud"], NonNullable<Spec["egress"]>>;

/** Ports of managed Redis (Azure Managed Redis, ElastiCache) and PostgreSQL. */
const managedStorePorts = [5_432, 6_379, 6_380, 10_000];

/** Nothing may talk in the serving namespace but what is listed here; agents hear the gateway alone. */
export function networkPolicies(cluster: Cluster): void {
  const { plan } = cluster;
  const dns = {
    namespaceSelector: inNamespace("kube-system"),
    podSelector: { matchLabels: { "k8s-app": "kube-dns" } },
  };
  policy(cluster, "default-deny", { podSelector: {}, policyTypes: ["Ingress", "Egress"] });
  policy(cluster, "dns", {
    podSelector: {},
    policyTypes: ["Egress"],
    egress: [{ to: [dns], ports: [tcp(53), { port: 53, protocol: "UDP" }] }],
  });
  policy(cluster, gatewayName, gatewayRules(plan));
  policy(cluster, agentName, agentRules(plan));
  policy(cluster, modelPushName, {
    podSelector: pods(modelPushName),
    policyTypes: ["Egress"],
    egress: [{ to: [elsewhere()], ports: [tcp(443)] }, ...identity[plan.cloud]],
  });
  for (const fleet of plan.fleets.filter(({ nodesPerReplica }) => nodesPerReplica > 1)) {
    const group = { podSelector: { matchLabels: fleetSelector(fleet) } };
    // Ray and NCCL choose their ports.
    policy(cluster, fleetName(fleet), {
      ...group,
      policyTypes: ["Ingress", "Egress"],
      ingress: [{ from: [group] }],
      egress: [{ to: [group] }],
    });
  }
  for (const { name, port } of storesInCluster(cluster)) {
    policy(cluster, name, {
      podSelector: pods(name),
      policyTypes: ["Ingress"],
      ingress: [{ from: [{ podSelector: pods(gatewayName) }], ports: [tcp(port)] }],
    });
  }
}

function gatewayRules(plan: CloudPlan): Spec {
  const { allowedAddresses } = plan.gateway.config;
  // The network's own addresses too: a load balancer may ask pods how they are.
  const clients = allowedAddresses.length === 0 ? ["0.0.0.0/0"] : [...allowedAddresses, plan.network.cidr];
  const keda = addOn(plan, "keda")?.namespace ?? "kube-system";
  return {
    podSelector: pods(gatewayName),
    policyTypes: ["Ingress", "Egress"],
    ingress: [
      {
        from: [
          ...clients.map((cidr) => ({ ipBlock: { cidr } })),
          { namespaceSelector: { matchLabels: { [clientLabel]: "true" } } },
          prometheus(plan),
        ],
        ports: [tcp(gatewayPorts.pod)],
      },
      {
        from: [{ namespaceSelector: inNamespace(keda), podSelector: { matchLabels: { app: "keda-operator" } } }],
        ports: [tcp(defaultPorts.scaler)],
      },
    ],
    egress: [
      { to: [{ podSelector: pods(agentName) }], ports: [tcp(defaultPorts.agent)] },
      storeRule(plan),
      // The Kubernetes API, and issuers of tokens.
      { to: [elsewhere()], ports: [tcp(443)] },
      ...tracesRule(plan),
    ],
  };
}

function agentRules(plan: CloudPlan): Spec {
  return {
    podSelector: pods(agentName),
    policyTypes: ["Ingress", "Egress"],
    ingress: [{ from: [{ podSelector: pods(gatewayName) }, prometheus(plan)], ports: [tcp(defaultPorts.agent)] }],
    egress: [{ to: [elsewhere()], ports: [tcp(443)] }, ...identity[plan.cloud]],
  };
}

/** Prometheus scrapes from our own namespace; where Azure runs it, from the one pod that scrapes what clusters add. */
function prometheus(plan: CloudPlan): Peer {
  if (addOn(plan, "kube-prometheus-stack") !== undefined) {
    return {
      namespaceSelector: inNamespace(namespaces.monitoring),
      podSelector: { matchLabels: selectorLabels("prometheus") },
    };
  }
  return {
    namespaceSelector: inNamespace("kube-system"),
    podSelector: { matchLabels: { rsName: "ama-metrics" } },
  };
}

function storeRule({ redis, postgres, network }: CloudPlan): { to: Peer[]; ports: Port[] } {
  const planned = { redis, postgres };
  const inCluster = (["redis", "postgres"] as const).filter((kind) => planned[kind].mode === "in-cluster");
  const isAnyManaged = inCluster.length < 2;
  return {
    to: [
      ...inCluster.map((kind) => ({ podSelector: pods(stores[kind].name) })),
      ...(isAnyManaged ? [{ ipBlock: { cidr: network.cidr } }] : []),
    ],
    ports: (isAnyManaged ? managedStorePorts : inCluster.map((kind) => stores[kind].port)).map(tcp),
  };
}

function storesInCluster(cluster: Cluster) {
  const { cloud } = cluster;
  return [...(cloud.redisUrl === null ? [stores.redis] : []), ...(cloud.postgresUrl === null ? [stores.postgres] : [])];
}

function tracesRule({ observability }: CloudPlan): k8s.types.input.networking.v1.NetworkPolicyEgressRule[] {
  if (observability.tracesEndpoint === null) return [];
  const { port, protocol } = new URL(observability.tracesEndpoint);
  const isDefault = port === "";
  const number = isDefault ? (protocol === "https:" ? 443 : 80) : Number(port);
  return [{ to: [elsewhere(), { namespaceSelector: {} }], ports: [tcp(number)] }];
}

/** Any address but those that hand out a node's identity. */
function elsewhere(): Peer {
  return { ipBlock: { cidr: "0.0.0.0/0", except: [linkLocal, azureHost] } };
}

function pods(name: string) {
  return { matchLabels: selectorLabels(name) };
}

function inNamespace(name: string) {
  return { matchLabels: { "kubernetes.io/metadata.name": name } };
}

function tcp(port: number): Port {
  return { port, protocol: "TCP" };
}

function policy(cluster: Cluster, name: string, spec: Spec): void {
  const { plan } = cluster;
  declare(cluster, k8s.networking.v1.NetworkPolicy, {
    metadata: { name, namespace: namespaces.serving, labels: labels(plan, name, "network") },
    spec,
  });
}
