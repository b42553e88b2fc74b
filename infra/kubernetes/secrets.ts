import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import * as random from "@pulumi/random";
import { createHash } from "node:crypto";
import { envNames } from "../../runtime/contracts/names.ts";
import { namespaces } from "../cloud.ts";
import { declare, type Cluster } from "./cluster.ts";
import { gatewayName, labels } from "./names.ts";

/** What an operator gives beside the stack; all of it Pulumi secrets. */
export interface OperatorSecrets {
  /** Certificate chain and key of the endpoint, PEM. Null: the secret that the stack names is in the cluster already. */
  readonly tls: { readonly certificate: pulumi.Input<string>; readonly key: pulumi.Input<string> } | null;
}

/** Secrets of the agents and of the gateway, by the names of their objects. */
export const secretNames = { agent: "penstock-agent", gateway: gatewayName } as const;

/** What is in them. */
export interface MadeSecrets {
  /** A key that may do everything; to make the first keys with. */
  readonly adminKey: pulumi.Output<string>;
  /** Changes with the secrets, so that pods which read them at their start are replaced. */
  readonly checksum: pulumi.Output<string>;
}

/** Where the gateway's stores are, with their passwords. */
export interface StoreUrls {
  readonly redisUrl: pulumi.Output<string>;
  readonly postgresUrl: pulumi.Output<string>;
}

/** A random password of 48 letters and digits: 285 bits. */
export function password(name: string, options: pulumi.CustomResourceOptions): pulumi.Output<string> {
  // Without `provider`: that is the cluster's, and a password is not made there.
  const { parent } = options;
  const made = new random.RandomPassword(name, { length: 48, special: false }, parent === undefined ? {} : { parent });
  return made.result;
}

/** A secret in the serving namespace. */
export function secret(
  cluster: Cluster,
  name: string,
  about: { readonly data: Record<string, pulumi.Input<string>>; readonly type?: string },
): void {
  const { plan } = cluster;
  declare(cluster, k8s.core.v1.Secret, {
    metadata: { name, namespace: namespaces.serving, labels: labels(plan, name, "secret") },
    type: about.type ?? "Opaque",
    stringData: pulumi.secret(about.data),
  });
}

/** The agents' shared token, the gateway's secrets, and the certificate where the operator gave one. */
export function secrets(cluster: Cluster, { redisUrl, postgresUrl }: StoreUrls, given: OperatorSecrets): MadeSecrets {
  const agentToken = password("agent-token", cluster.options);
  const adminKey = password("admin-key", cluster.options);
  secret(cluster, secretNames.agent, { data: { [envNames.agentToken]: agentToken } });
  secret(cluster, secretNames.gateway, {
    data: {
      [envNames.agentToken]: agentToken,
      [envNames.apiKey]: adminKey,
      [envNames.redisUrl]: redisUrl,
      [envNames.postgresUrl]: postgresUrl,
    },
  });
  if (given.tls !== null) {
    secret(cluster, cluster.plan.gateway.config.tlsSecret, {
      type: "kubernetes.io/tls",
      data: { "tls.crt": given.tls.certificate, "tls.key": given.tls.key },
    });
  }
  const all = pulumi.all([agentToken, adminKey, redisUrl, postgresUrl]);
  return { adminKey, checksum: pulumi.unsecret(all.apply((values) => checksumOf(values.join("\n")))) };
}

/** Tells two texts apart. Of secrets it says nothing: they are random, and 64 of 256 bits are shown. */
export function checksumOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}
