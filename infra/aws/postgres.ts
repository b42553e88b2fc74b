import type * as kms from "@pulumi/aws/kms/index.js";
import * as rds from "@pulumi/aws/rds/index.js";
import * as pulumi from "@pulumi/pulumi";
import * as random from "@pulumi/random";
import type { Cluster } from "./cluster.ts";
import type { Network } from "./network.ts";
import { part, type Scope } from "./scope.ts";
import { listener } from "./security-groups.ts";

const port = 5432;

/** Of the gateway in its database. It owns it, and so may make the extension for vectors. */
const login = "penstock";
const databaseName = "penstock";

/** Days that a backup is kept. */
const backupDays = { dev: 7, prod: 14 } as const;

/** A managed PostgreSQL. */
export interface Postgres {
  /** Connection URL with the password: a secret. */
  readonly url: pulumi.Output<string>;
  readonly identifier: pulumi.Output<string>;
  readonly ready: readonly pulumi.Resource[];
}

/** RDS for PostgreSQL inside the network. Null: in the cluster. */
export function makePostgres(
  scope: Scope,
  { network, cluster, key }: { readonly network: Network; readonly cluster: Cluster; readonly key: kms.Key },
): Postgres | null {
  if (scope.plan.postgres.mode === "in-cluster") return null;
  return part(scope, "postgres", (child) => {
    const group = listener(
      "postgres",
      {
        vpcId: network.vpcId,
        description: "PostgreSQL",
        port,
        from: { referencedSecurityGroupId: cluster.securityGroupId },
      },
      { scope, child },
    );
    const password = new random.RandomPassword(
      "postgres-password",
      { length: 40, special: false },
      { parent: child.parent },
    );
    const subnets = new rds.SubnetGroup(
      "postgres",
      {
        name: `${scope.plan.prefix}-postgres`,
        subnetIds: [...network.subnets.values()].map(({ id }) => id),
        tags: scope.tags,
      },
      child,
    );
    const server = new rds.Instance(
      "postgres",
      {
        ...serverArgs(scope, key),
        dbSubnetGroupName: subnets.name,
        vpcSecurityGroupIds: [group.id],
        password: pulumi.secret(password.result),
      },
      { ...child, ...scope.stateful },
    );
    const url = pulumi.interpolate`postgres://${login}:${password.result}@${server.address}:${port}/${databaseName}?sslmode=verify-full`;
    return { url: pulumi.secret(url), identifier: server.identifier, ready: [server, ...group.ready] };
  });
}

function serverArgs({ plan, tags }: Scope, key: kms.Key): Omit<rds.InstanceArgs, "password"> {
  const { postgres, prefix, environment } = plan;
  const isProduction = environment === "prod";
  return {
    identifier: `${prefix}-postgres`,
    engine: "postgres",
    // The major version; RDS refuses connections without TLS since 15, and brings pgvector.
    engineVersion: postgres.version,
    autoMinorVersionUpgrade: true,
    instanceClass: postgres.sku,
    allocatedStorage: postgres.storageGiB,
    storageType: "gp3",
    storageEncrypted: true,
    kmsKeyId: key.arn,
    multiAz: postgres.highAvailability,
    publiclyAccessible: false,
    caCertIdentifier: "rds-ca-rsa2048-g1",
    dbName: databaseName,
    username: login,
    backupRetentionPeriod: backupDays[environment],
    copyTagsToSnapshot: true,
    deletionProtection: isProduction,
    ...(isProduction
      ? { skipFinalSnapshot: false, finalSnapshotIdentifier: `${prefix}-postgres-final` }
      : { skipFinalSnapshot: true }),
    tags,
  };
}
