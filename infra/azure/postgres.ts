import * as postgresql from "@pulumi/azure-native/dbforpostgresql/index.js";
import * as pulumi from "@pulumi/pulumi";
import * as random from "@pulumi/random";
import { concern, type Child } from "../lib/concern.ts";
import { shortHash } from "../lib/names.ts";
import type { PlannedStore } from "../plan/plan.ts";
import type { Network } from "./network.ts";
import { privateZone } from "./private-link.ts";
import type { AzurePlan, Scope } from "./scope.ts";

/** Of the gateway in its database. */
const login = "penstock";
const databaseName = "penstock";

/** Days that a backup is kept. */
const backupDays = { dev: 7, prod: 14 } as const;

/** A managed PostgreSQL. */
export interface Postgres {
  /** Connection URL with the password: a secret. */
  readonly url: pulumi.Output<string>;
  readonly serverId: pulumi.Output<string>;
  readonly ready: readonly pulumi.Resource[];
}

/** Azure Database for PostgreSQL inside the network, with pgvector. Null: in the cluster. */
export function makePostgres(scope: Scope, network: Network): Postgres | null {
  if (scope.plan.postgres.mode === "in-cluster" || network.postgres === null) return null;
  const subnetId = network.postgres.id;
  return concern("azure", "postgres", (child) => {
    const password = new random.RandomPassword("postgres-password", { length: 40, special: false }, child);
    const zoneName = `${scope.plan.prefix}.private.postgres.database.azure.com`;
    const { zone, link } = privateZone("postgres", zoneName, { scope, network, child });
    const server = new postgresql.Server(
      "postgres",
      {
        ...serverArgs(scope),
        administratorLogin: login,
        administratorLoginPassword: pulumi.secret(password.result),
        network: { delegatedSubnetResourceId: subnetId, privateDnsZoneArmResourceId: zone.id },
      },
      // Azure chooses zones, and changes them when a standby takes over.
      {
        ...child,
        ...scope.stateful,
        dependsOn: link,
        ignoreChanges: ["availabilityZone", "highAvailability.standbyAvailabilityZone"],
      },
    );
    const url = pulumi.interpolate`postgres://${login}:${password.result}@${server.fullyQualifiedDomainName}:5432/${databaseName}?sslmode=verify-full`;
    return { url: pulumi.secret(url), serverId: server.id, ready: [contents(server, { scope, child })] };
  });
}

function serverArgs({ plan, place, tags, tenantId }: Scope): postgresql.ServerArgs {
  const { postgres } = plan;
  return {
    ...place,
    serverName: serverName(plan),
    version: postgres.version,
    sku: { name: postgres.sku, tier: tierOf(postgres.sku) },
    storage: { storageSizeGB: postgres.storageGiB, autoGrow: "Disabled" },
    highAvailability: { mode: availability(postgres, plan.zones) },
    backup: { backupRetentionDays: backupDays[plan.environment], geoRedundantBackup: "Disabled" },
    authConfig: { activeDirectoryAuth: "Enabled", passwordAuth: "Enabled", tenantId },
    tags,
  };
}

/** Names of servers are global, as those of storage accounts are: the cache's makes ours one of a kind. */
function serverName({ prefix, cache }: AzurePlan): string {
  return `${prefix}-${shortHash(cache.account)}`;
}

function tierOf(sku: string): postgresql.SkuTier {
  if (sku.startsWith("Standard_B")) return postgresql.SkuTier.Burstable;
  return sku.startsWith("Standard_E") ? postgresql.SkuTier.MemoryOptimized : postgresql.SkuTier.GeneralPurpose;
}

function availability({ highAvailability }: PlannedStore, zones: readonly string[]): string {
  if (!highAvailability) return "Disabled";
  return zones.length > 1 ? "ZoneRedundant" : "SameZone";
}

/** The gateway's database, and the extension that it may create there. One after the other: a server takes one change. */
function contents(
  server: postgresql.Server,
  { scope, child }: { readonly scope: Scope; readonly child: Child },
): pulumi.Resource {
  const of = { resourceGroupName: scope.place.resourceGroupName, serverName: server.name };
  const database = new postgresql.Database(
    "postgres-database",
    { ...of, databaseName, charset: "UTF8", collation: "en_US.utf8" },
    { ...child, ...scope.stateful },
  );
  return new postgresql.Configuration(
    "postgres-extensions",
    { ...of, configurationName: "azure.extensions", source: "user-override", value: "VECTOR" },
    { ...child, dependsOn: database },
  );
}
