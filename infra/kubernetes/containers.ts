import type { types } from "@pulumi/kubernetes";

type PodSpec = types.input.core.v1.PodSpec;

/** User and group that our images run as. */
export const unprivilegedUser = 1_000;

/** Pod-level half of the restricted Pod Security level. */
export function restrictedPod(user: number = unprivilegedUser): NonNullable<PodSpec["securityContext"]> {
  return {
    runAsNonRoot: true,
    runAsUser: user,
    runAsGroup: user,
    fsGroup: user,
    seccompProfile: { type: "RuntimeDefault" },
  };
}

/** Container-level half of it, and nothing on the image can be written. */
export const restrictedContainer = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
};

/** An environment variable from a secret. */
export function secretEnv(name: string, secretName: string): types.input.core.v1.EnvVar {
  return { name, valueFrom: { secretKeyRef: { name: secretName, key: name } } };
}

/** A volume with its place in the container. */
export interface Mounted {
  readonly volume: types.input.core.v1.Volume;
  readonly mount: types.input.core.v1.VolumeMount;
}

/** Scratch space on the node's disk. */
export function scratch(name: string, mountPath: string, sizeLimit: string): Mounted {
  return { volume: { name, emptyDir: { sizeLimit } }, mount: { name, mountPath } };
}

/** The volumes and mounts of a pod with one container. */
export function volumesOf(mounted: readonly Mounted[]): {
  readonly volumes: types.input.core.v1.Volume[];
  readonly volumeMounts: types.input.core.v1.VolumeMount[];
} {
  return { volumes: mounted.map(({ volume }) => volume), volumeMounts: mounted.map(({ mount }) => mount) };
}

/** How config files are written: one line a value, and no references, which people do not read. */
export const plainYaml = { lineWidth: 0, aliasDuplicateObjects: false } as const;
