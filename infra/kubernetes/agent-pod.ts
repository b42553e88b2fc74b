import type { types } from "@pulumi/kubernetes";
import { defaultPorts, envNames } from "../../runtime/contracts/names.ts";
import type { PlannedFleet, PlannedPool } from "../plan/plan.ts";
import { agentDirectories, stopSeconds } from "./agent-config.ts";
import { addOn, variantsOf, type Cluster } from "./cluster.ts";
import { restrictedContainer, restrictedPod, scratch, secretEnv, volumesOf, type Mounted } from "./containers.ts";
import { agentName, fleetLabel, fleetSelector, modelFolder, podLabels, poolLabel } from "./names.ts";
import { priorities } from "./namespaces.ts";
import { secretNames } from "./secrets.ts";

type PodTemplate = types.input.core.v1.PodTemplateSpec;

/** Between a pod's removal from the Service and SIGTERM, so that no gateway sends it another request. */
const preStopSeconds = 10;
/** On top of what ends by itself. */
const marginSeconds = 20;
const probeSeconds = 10;

/** Longest that an agent's pod takes to stop: requests end, then engines. */
export function agentGraceSeconds({ drainSeconds }: PlannedFleet): number {
  return preStopSeconds + drainSeconds + stopSeconds + marginSeconds;
}

/** Seconds from an agent's start until its models answer, with empty disks. */
export function coldStartSeconds({ transitions }: PlannedFleet): number {
  return transitions.downloadSeconds + transitions.loadSeconds;
}

/** What a pod template needs to know beside its fleet. */
export interface AgentPodOptions {
  /** Changes when the config or a secret does, and then pods are replaced. */
  readonly checksums: types.input.meta.v1.ObjectMeta["annotations"];
  /** Where the fleet's config is. */
  readonly configMap: string;
}

/** A pod of a fleet: one agent with its GPUs. */
export function agentPod(cluster: Cluster, fleet: PlannedFleet, options: AgentPodOptions): PodTemplate {
  const { plan, cloud } = cluster;
  const mounted = agentVolumes(modelFolder(plan), fleet, options.configMap);
  const { volumes, volumeMounts } = volumesOf(mounted);
  return {
    metadata: {
      labels: {
        ...podLabels(plan, agentName, "agent"),
        [fleetLabel]: fleet.name,
        ...cloud.identityPodLabels,
      },
      annotations: options.checksums,
    },
    spec: {
      serviceAccountName: "agent",
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      priorityClassName: priorities.fleet.name,
      terminationGracePeriodSeconds: agentGraceSeconds(fleet),
      securityContext: restrictedPod(),
      ...placement(cluster, fleet),
      volumes,
      containers: [
        {
          name: "agent",
          image: fleet.pod.image,
          args: ["--config", "/etc/penstock/agent.yaml"],
          env: [secretEnv(envNames.agentToken, secretNames.agent), ...environment(cluster)],
          ports: [{ name: "agent", containerPort: defaultPorts.agent }],
          resources: resources(cluster, fleet),
          securityContext: restrictedContainer,
          ...probes(fleet),
          lifecycle: { preStop: { sleep: { seconds: preStopSeconds } } },
          volumeMounts,
        },
      ],
    },
  };
}

function environment({ cloud }: Cluster): types.input.core.v1.EnvVar[] {
  return [
    // Engines look for a home and a name of their user; the image's user has neither.
    { name: "HOME", value: agentDirectories.state },
    { name: "USER", value: "penstock" },
    ...Object.entries(cloud.storageEnv).map(([name, value]) => ({ name, value })),
  ];
}

function agentVolumes(folder: string, fleet: PlannedFleet, configMap: string): Mounted[] {
  const { models, state } = agentDirectories;
  return [
    {
      volume: { name: "config", configMap: { name: configMap } },
      mount: { name: "config", mountPath: "/etc/penstock", readOnly: true },
    },
    {
      // `Directory`: the pod waits until the node's disks are set up, instead of filling the system disk.
      volume: { name: "models", hostPath: { path: folder, type: "Directory" } },
      mount: { name: "models", mountPath: models },
    },
    scratch("state", state, "32Gi"),
    scratch("tmp", "/tmp", "8Gi"),
    {
      volume: { name: "shm", emptyDir: { medium: "Memory", sizeLimit: `${fleet.pod.sharedMemoryGiB}Gi` } },
      mount: { name: "shm", mountPath: "/dev/shm" },
    },
  ];
}

/** Requests and limits are the same: nothing of a GPU node is shared with what nobody planned. */
function resources({ plan }: Cluster, fleet: PlannedFleet): types.input.core.v1.ResourceRequirements {
  const efa = fleet.nodesPerReplica > 1 && addOn(plan, "aws-efa-k8s-device-plugin") !== undefined;
  const interfaces = Math.min(...variantsOf(plan, fleet.pool).map(({ node }) => node.efaInterfaces));
  const all = {
    cpu: `${fleet.pod.cpuMillis}m`,
    memory: `${fleet.pod.memoryGiB}Gi`,
    ...(fleet.gpusPerNode === 0 ? {} : { "nvidia.com/gpu": String(fleet.gpusPerNode) }),
    ...(efa && interfaces > 0 ? { "vpc.amazonaws.com/efa": String(interfaces) } : {}),
  };
  return { requests: all, limits: all };
}

/**
 * The agent answers from its first second; what takes long is the model, which it loads meanwhile. The start-up probe has
 * the whole cold start nevertheless, so that an agent that is slow on a busy disk is not killed for it.
 */
function probes(
  fleet: PlannedFleet,
): Pick<types.input.core.v1.Container, "startupProbe" | "readinessProbe" | "livenessProbe"> {
  const get = (path: string) => ({ httpGet: { path, port: "agent" }, periodSeconds: probeSeconds, timeoutSeconds: 5 });
  return {
    startupProbe: {
      ...get("/health"),
      failureThreshold: Math.max(6, Math.ceil(coldStartSeconds(fleet) / probeSeconds)),
    },
    readinessProbe: { ...get("/ready"), periodSeconds: 5, failureThreshold: 2 },
    livenessProbe: { ...get("/health"), failureThreshold: 6 },
  };
}

/** On its pool's nodes, the first sizes first, over zones and nodes as far as there are any. */
function placement(
  { plan }: Cluster,
  fleet: PlannedFleet,
): Pick<types.input.core.v1.PodSpec, "affinity" | "tolerations" | "topologySpreadConstraints"> {
  const variants = variantsOf(plan, fleet.pool).filter(({ capacity }) => capacity !== "spot" || fleet.spot);
  const group = { key: poolLabel, operator: "In", values: [fleet.pool] };
  return {
    tolerations: tolerationsOf(variants),
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: [group] }] },
        ...(variants.length < 2 ? {} : { preferredDuringSchedulingIgnoredDuringExecution: variants.map(preference) }),
      },
      ...(fleet.nodesPerReplica > 1 ? { podAffinity: sameZone(fleet) } : {}),
    },
    topologySpreadConstraints:
      fleet.nodesPerReplica > 1
        ? []
        : ["topology.kubernetes.io/zone", "kubernetes.io/hostname"].map((topologyKey) => ({
            topologyKey,
            maxSkew: 1,
            whenUnsatisfiable: "ScheduleAnyway",
            nodeTaintsPolicy: "Honor",
            labelSelector: { matchLabels: fleetSelector(fleet) },
          })),
  };
}

/** Tolerates the taints of these pools, and no others: a spot node only for a fleet that may run on one. */
export function tolerationsOf(pools: readonly Pick<PlannedPool, "taints">[]): types.input.core.v1.Toleration[] {
  const all = pools.flatMap(({ taints }) => taints.map((taint) => ({ operator: "Equal", ...taint })));
  return all.filter((each, at) => all.findIndex(({ key, value }) => key === each.key && value === each.value) === at);
}

function preference({ labels }: PlannedPool, order: number) {
  const matchExpressions = Object.entries(labels).map(([key, value]) => ({ key, operator: "In", values: [value] }));
  return { weight: Math.max(1, 100 - 10 * order), preference: { matchExpressions } };
}

/** All pods of one replica in one zone: their GPUs talk to each other for every token. */
function sameZone(fleet: PlannedFleet): types.input.core.v1.PodAffinity {
  return {
    requiredDuringSchedulingIgnoredDuringExecution: [
      {
        topologyKey: "topology.kubernetes.io/zone",
        labelSelector: { matchLabels: fleetSelector(fleet) },
        matchLabelKeys: ["leaderworkerset.sigs.k8s.io/group-key"],
      },
    ],
  };
}
