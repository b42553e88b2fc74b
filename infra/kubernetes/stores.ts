import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { namespaces } from "../cloud.ts";
import type { CloudPlan, PlannedStore } from "../plan/plan.ts";
import { declare, type Cluster } from "./cluster.ts";
import { restrictedContainer, restrictedPod, scratch, volumesOf, type Mounted } from "./containers.ts";
import { labels, podLabels, selectorLabels } from "./names.ts";
import { password, secret, type StoreUrls } from "./secrets.ts";

/** Names of the stores in the cluster, and their ports. */
export const stores = {
  redis: { name: "penstock-redis", port: 6379 },
  postgres: { name: "penstock-postgres", port: 5432 },
} as const;

/** Class of the disks of what keeps its data in the cluster. */
export const storageClass = "penstock";

/** Encrypted disks of each cloud, made in the zone where the pod is. */
const disks = {
  azure: { provisioner: "disk.csi.azure.com", parameters: { skuName: "Premium_LRS" } },
  aws: { provisioner: "ebs.csi.aws.com", parameters: { type: "gp3", encrypted: "true" } },
} as const satisfies Record<CloudPlan["cloud"], unknown>;

/** User that the official images of Valkey and PostgreSQL (Debian) run as. */
const storeUser = 999;

/** The disk class that add-ons and stores in the cluster use. */
export function storage(cluster: Cluster): void {
  const { plan } = cluster;
  declare(cluster, k8s.storage.v1.StorageClass, {
    metadata: { name: storageClass, labels: labels(plan, storageClass, "storage") },
    ...disks[plan.cloud],
    volumeBindingMode: "WaitForFirstConsumer",
    allowVolumeExpansion: true,
    reclaimPolicy: "Retain",
  });
}

/** The managed stores' URLs, or stores in the cluster (for development: one pod each, one disk) and theirs. */
export function storeUrls(cluster: Cluster): StoreUrls {
  const { redisUrl, postgresUrl } = cluster.cloud;
  return { redisUrl: redisUrl ?? redis(cluster), postgresUrl: postgresUrl ?? postgres(cluster) };
}

function redis(cluster: Cluster): pulumi.Output<string> {
  const { name, port } = stores.redis;
  const { redis: planned } = cluster.plan;
  const secretPassword = password("redis-password", cluster.options);
  // Budgets must outlive a restart, and only what expires by itself may be dropped when memory is short.
  const config = pulumi.interpolate`requirepass ${secretPassword}
dir /data
appendonly yes
maxmemory ${Math.floor(planned.memoryGiB * 0.75 * 1024)}mb
maxmemory-policy volatile-ttl
`;
  secret(cluster, name, { data: { "store.conf": config } });
  store(cluster, {
    name,
    port,
    planned,
    dataDirectory: "/data",
    container: { args: ["/etc/store/store.conf"] },
    scratch: [scratch("tmp", "/tmp", "64Mi")],
  });
  return pulumi.interpolate`redis://:${secretPassword}@${name}.${namespaces.serving}.svc:${port}`;
}

function postgres(cluster: Cluster): pulumi.Output<string> {
  const { name, port } = stores.postgres;
  const { postgres: planned } = cluster.plan;
  const secretPassword = password("postgres-password", cluster.options);
  secret(cluster, name, { data: { password: secretPassword } });
  store(cluster, {
    name,
    port,
    planned,
    dataDirectory: "/var/lib/postgresql/data",
    container: {
      env: [
        { name: "POSTGRES_USER", value: "penstock" },
        { name: "POSTGRES_DB", value: "penstock" },
        { name: "POSTGRES_PASSWORD_FILE", value: "/etc/store/password" },
        // A folder of its own: a fresh disk has `lost+found`, and PostgreSQL wants an empty one.
        { name: "PGDATA", value: "/var/lib/postgresql/data/pgdata" },
      ],
    },
    scratch: [
      scratch("run", "/var/run/postgresql", "16Mi"),
      scratch("tmp", "/tmp", "1Gi"),
      {
        volume: { name: "shm", emptyDir: { medium: "Memory", sizeLimit: "256Mi" } },
        mount: { name: "shm", mountPath: "/dev/shm" },
      },
    ],
  });
  return pulumi.interpolate`postgres://penstock:${secretPassword}@${name}.${namespaces.serving}.svc:${port}/penstock`;
}

interface StoreOptions {
  readonly name: string;
  readonly port: number;
  readonly planned: PlannedStore;
  readonly dataDirectory: string;
  readonly container: Pick<k8s.types.input.core.v1.Container, "args" | "env">;
  readonly scratch: readonly Mounted[];
}

function store(cluster: Cluster, about: StoreOptions): void {
  const { plan } = cluster;
  const { name, port } = about;
  const metadata = { name, namespace: namespaces.serving, labels: labels(plan, name, "store") };
  declare(cluster, k8s.core.v1.Service, {
    metadata,
    spec: { selector: selectorLabels(name), ports: [{ name: "store", port, targetPort: "store" }] },
  });
  declare(cluster, k8s.apps.v1.StatefulSet, {
    metadata,
    spec: {
      serviceName: name,
      replicas: 1,
      selector: { matchLabels: selectorLabels(name) },
      template: { metadata: { labels: podLabels(plan, name, "store") }, spec: storePod(about) },
      volumeClaimTemplates: [
        {
          metadata: { name: "data" },
          spec: {
            accessModes: ["ReadWriteOnce"],
            storageClassName: storageClass,
            resources: { requests: { storage: `${about.planned.storageGiB}Gi` } },
          },
        },
      ],
    },
  });
}

function storePod(about: StoreOptions): k8s.types.input.core.v1.PodSpec {
  const { name, port, planned } = about;
  const config = {
    volume: { name: "config", secret: { secretName: name, defaultMode: 0o440 } },
    mount: { name: "config", mountPath: "/etc/store", readOnly: true },
  };
  const { volumes, volumeMounts } = volumesOf([config, ...about.scratch]);
  const probe = { tcpSocket: { port: "store" }, periodSeconds: 10 };
  const resources = { cpu: "500m", memory: `${Math.ceil(planned.memoryGiB * 1024)}Mi` };
  return {
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    securityContext: restrictedPod(storeUser),
    terminationGracePeriodSeconds: 60,
    tolerations: [{ key: "CriticalAddonsOnly", operator: "Exists" }],
    volumes,
    containers: [
      {
        name: "store",
        image: planned.sku,
        ...about.container,
        ports: [{ name: "store", containerPort: port }],
        resources: { requests: resources, limits: { ...resources, cpu: "2" } },
        securityContext: restrictedContainer,
        startupProbe: { ...probe, failureThreshold: 30 },
        readinessProbe: probe,
        livenessProbe: { ...probe, failureThreshold: 6 },
        volumeMounts: [...volumeMounts, { name: "data", mountPath: about.dataDirectory }],
      },
    ],
  };
}
