import { allows, statementsOf } from "../iam.ts";
import { findingOn, hasCompanion, levels, ofType, type Rule } from "../rule.ts";
import { at, list, mustBe, said } from "../values.ts";

const account = "azure-native:storage:StorageAccount";
const container = "azure-native:storage:BlobContainer";
const bucket = "aws:s3/bucket:Bucket";
const publicAccessBlock = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock";
const azurePostgres = "azure-native:dbforpostgresql:Server";
const azureRedis = "azure-native:redisenterprise:RedisEnterprise";
const rds = "aws:rds/instance:Instance";
const elastiCache = "aws:elasticache/replicationGroup:ReplicationGroup";

/** What must be set to what, by type: public to nobody. */
const closed: Readonly<Record<string, readonly (readonly [string, unknown, ...unknown[]])[]>> = {
  [account]: [["allowBlobPublicAccess", false]],
  [container]: [["publicAccess", "None", undefined]],
  [publicAccessBlock]: [
    ["blockPublicAcls", true],
    ["blockPublicPolicy", true],
    ["ignorePublicAcls", true],
    ["restrictPublicBuckets", true],
  ],
};

/** What must be set to what, by type: nothing on a disk in plain text. */
const encrypted: Readonly<Record<string, readonly (readonly [string, unknown, ...unknown[]])[]>> = {
  [rds]: [["storageEncrypted", true]],
  [elastiCache]: [
    ["atRestEncryptionEnabled", true],
    ["transitEncryptionEnabled", true],
  ],
  "aws:ebs/volume:Volume": [["encrypted", true]],
  "aws:kms/key:Key": [["enableKeyRotation", true]],
  "aws:efs/fileSystem:FileSystem": [["encrypted", true]],
};

/** What every bucket must have, by type. */
const companions = [
  [publicAccessBlock, "block of public access"],
  [
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
    "configuration of its encryption",
  ],
  ["aws:s3/bucketPolicy:BucketPolicy", "policy"],
] as const;

const withData = [account, container, bucket, azurePostgres, azureRedis, rds, elastiCache] as const;

/** Where models, usage and sessions are. */
export const dataRules: readonly Rule[] = [
  {
    id: "storage-not-public",
    title: "No storage is open to the public",
    levels: levels.always,
    severity: "critical",
    reason: "Weights under licence and adapters made from a customer's data are in there.",
    remedy: "allowBlobPublicAccess false, containers without public access, and all four blocks for buckets.",
    judges: "resource",
    types: Object.keys(closed),
    judge: ({ type, properties }) => (closed[type] ?? []).flatMap((right) => mustBe(properties, ...right)),
  },
  {
    id: "buckets-blocked",
    title: "Every bucket has a block of public access, encryption, and refuses plain text",
    levels: levels.always,
    severity: "critical",
    reason: "What a bucket is not told explicitly, its account decides, and accounts differ.",
    remedy:
      "BucketPublicAccessBlock, BucketServerSideEncryptionConfiguration, and a policy that denies requests without TLS.",
    judges: "stack",
    judge: (resources) =>
      ofType(resources, bucket).flatMap((each) =>
        companions
          .filter(([type]) => !hasCompanion(resources, each, type))
          .map(([, missing]) => findingOn(each, `it has no ${missing}`)),
      ),
  },
  {
    id: "storage-tls-only",
    title: "Storage is reached with identities over TLS 1.2 alone",
    levels: levels.always,
    severity: "high",
    reason: "A shared key is a password that never expires and that nobody can say the user of.",
    remedy:
      "allowSharedKeyAccess false, TLS1_2, https only; for buckets a statement that denies `aws:SecureTransport` false.",
    judges: "resource",
    types: [account, azureRedis, "aws:s3/bucketPolicy:BucketPolicy"],
    judge({ type, properties }) {
      if (type === azureRedis) return mustBe(properties, "minimumTlsVersion", "1.2", "1.3");
      if (type === account) {
        return [
          ...mustBe(properties, "allowSharedKeyAccess", false),
          ...mustBe(properties, "enableHttpsTrafficOnly", true),
          ...mustBe(properties, "minimumTlsVersion", "TLS1_2", "TLS1_3"),
          ...mustBe(properties, "isLocalUserEnabled", false, undefined),
          ...mustBe(properties, "isSftpEnabled", false, undefined),
        ];
      }
      const statements = statementsOf(at(properties, "policy"));
      if (statements === null) return [{ notKnownYet: "policy" }];
      const denies = statements.some(
        (statement) =>
          !allows(statement) && at(statement, "Condition.Bool.aws:SecureTransport") === "false" && isOfAll(statement),
      );
      return denies ? [] : ["the policy does not deny requests without TLS"];
    },
  },
  {
    id: "private-data-path",
    title: "Data is reached from the stack's own network",
    levels: levels.always,
    severity: "high",
    reason: "An address on the internet is tried by everybody, every minute.",
    remedy: "publicNetworkAccess Disabled, or defaultAction Deny with named networks; publiclyAccessible false.",
    judges: "resource",
    types: [account, azurePostgres, azureRedis, rds, "azure-native:containerregistry:Registry"],
    judge({ type, properties }) {
      if (type === rds) return mustBe(properties, "publiclyAccessible", false, undefined);
      if (type === azurePostgres && at(properties, "network.delegatedSubnetResourceId") !== undefined) return [];
      if (type === azurePostgres) return mustBe(properties, "network.publicNetworkAccess", "Disabled");
      const isDenied = at(properties, "networkRuleSet.defaultAction") === "Deny";
      const open = list(properties, "networkRuleSet.ipRules").filter(
        (rule) => at(rule, "iPAddressOrRange") === "0.0.0.0/0",
      );
      if (open.length > 0) return ["networkRuleSet.ipRules lets everybody in"];
      return isDenied ? [] : mustBe(properties, "publicNetworkAccess", "Disabled");
    },
  },
  {
    id: "private-endpoints",
    title: "Storage has an address inside the network",
    levels: levels.strictInProd,
    severity: "high",
    reason: "Weights take the shortest way, no gateway counts their bytes, and no key works from elsewhere.",
    remedy:
      "Azure: a private endpoint (production, or `network.endpoints: full`). AWS: S3's gateway endpoint, which is free.",
    judges: "stack",
    judge: (resources) => [
      ...ofType(resources, account)
        .filter((each) => !hasCompanion(resources, each, "azure-native:network:PrivateEndpoint"))
        // Development on Azure goes over the nodes' service endpoint instead, and nobody else comes in.
        .filter(({ properties }) => list(properties, "networkRuleSet.virtualNetworkRules").length === 0)
        .map((each) => findingOn(each, "it has no private endpoint, and no rule for a network")),
      ...ofType(resources, bucket)
        .filter(() => !ofType(resources, "aws:ec2/vpcEndpoint:VpcEndpoint").some(isGatewayToS3))
        .map((each) => findingOn(each, "the network has no gateway endpoint to S3")),
    ],
  },
  {
    id: "encryption-at-rest",
    title: "Disks, stores and secrets are encrypted",
    levels: levels.always,
    severity: "high",
    reason: "Prompts, usage and weights outlive the machine that they were on.",
    remedy: "Switch encryption on where the cloud does not do so by itself, and rotate keys.",
    judges: "resource",
    types: [
      ...Object.keys(encrypted),
      "aws:sqs/queue:Queue",
      "aws:eks/cluster:Cluster",
      "kubernetes:storage.k8s.io/v1:StorageClass",
    ],
    judge({ type, properties }) {
      if (type === "aws:sqs/queue:Queue") {
        const isOwn = at(properties, "kmsMasterKeyId") !== undefined;
        return isOwn ? [] : mustBe(properties, "sqsManagedSseEnabled", true, undefined);
      }
      if (type === "aws:eks/cluster:Cluster") {
        const resources = list(properties, "encryptionConfig.resources");
        return resources.includes("secrets") ? [] : ["encryptionConfig does not name secrets"];
      }
      if (type === "kubernetes:storage.k8s.io/v1:StorageClass") {
        if (at(properties, "provisioner") !== "ebs.csi.aws.com") return [];
        return mustBe(properties, "parameters.encrypted", "true");
      }
      return (encrypted[type] ?? []).flatMap((right) => mustBe(properties, ...right));
    },
  },
  {
    id: "stateful-protected",
    title: "What holds data cannot be removed by accident",
    levels: levels.prodOnly,
    severity: "high",
    reason: "A renamed resource is another one, and the old one's data go with it.",
    remedy: "`protect: true`; to remove it on purpose, `pulumi state unprotect` first.",
    judges: "resource",
    types: [...withData, "aws:kms/key:Key", "aws:eks/cluster:Cluster", "azure-native:containerservice:ManagedCluster"],
    judge: ({ protect }) => (protect ? [] : [`protect is ${said(protect)}`]),
  },
];

function isGatewayToS3({ properties }: { readonly properties: unknown }): boolean {
  return String(at(properties, "serviceName")).endsWith(".s3") && at(properties, "vpcEndpointType") === "Gateway";
}

function isOfAll(statement: unknown): boolean {
  const principal = at(statement, "Principal");
  return principal === "*" || at(principal, "AWS") === "*";
}
