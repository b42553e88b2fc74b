import { notKnown } from "../../policies/values.ts";
import { adding, changed, having, without } from "./subjects.ts";
import type { Subject } from "../../policies/judge.ts";
import type { Case } from "./cases-plan.ts";

const account = "azure-native:storage:StorageAccount";
const aks = "azure-native:containerservice:ManagedCluster";
const agentPool = "azure-native:containerservice:AgentPool";
const assignment = "azure-native:authorization:RoleAssignment";
const eks = "aws:eks/cluster:Cluster";
const template = "aws:ec2/launchTemplate:LaunchTemplate";
const bucket = "aws:s3/bucket:Bucket";
const bucketPolicy = "aws:s3/bucketPolicy:BucketPolicy";
const rolePolicy = "aws:iam/rolePolicy:RolePolicy";
const role = "aws:iam/role:Role";
const rds = "aws:rds/instance:Instance";
const ingress = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule";
const nodePool = "kubernetes:karpenter.sh/v1:NodePool";
const nodeClass = "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass";

const set =
  (type: string, path: string, value: unknown) =>
  (subject: Subject): Subject =>
    having(subject, type, [path, value]);
const add =
  (type: string, properties: Readonly<Record<string, unknown>> = {}) =>
  (subject: Subject): Subject =>
    adding(subject, type, properties);
const remove =
  (type: string) =>
  (subject: Subject): Subject =>
    without(subject, type);

const policy = (statement: Readonly<Record<string, unknown>>): string =>
  JSON.stringify({ Version: "2012-10-17", Statement: [statement] });
const subscription = "/subscriptions/00000000-0000-4000-8000-000000000001";
const gpuSize = "Standard_ND96isr_H100_v5";
const owner = `${subscription}/providers/Microsoft.Authorization/roleDefinitions/8e3af657-a8ff-443c-a75c-2fe8c4bcb635`;

/** Rules over what a program makes in a cloud. */
export const cloudCases: Readonly<Record<string, Case>> = {
  "storage-not-public": {
    stack: "azure-prod",
    broken: [
      [set(account, "allowBlobPublicAccess", true), /allowBlobPublicAccess is true; it must be false/],
      [set(account, "allowBlobPublicAccess", undefined), /allowBlobPublicAccess is not set/],
      [set(account, "allowBlobPublicAccess", notKnown), /is not known before the update; it must be false/],
      [set("azure-native:storage:BlobContainer", "publicAccess", "Blob"), /publicAccess is "Blob"/],
      [add("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"), /restrictPublicBuckets is not set/],
    ],
  },
  "buckets-blocked": {
    stack: "aws-prod",
    broken: [
      [remove("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"), /models: it has no block of public access/],
      [add(bucket, { bucket: "another" }), /added: it has no policy/],
    ],
  },
  "storage-tls-only": {
    stack: "aws-prod",
    broken: [
      [set(bucketPolicy, "policy", policy({ Effect: "Allow", Action: "s3:*" })), /does not deny requests without TLS/],
      [set(bucketPolicy, "policy", "no policy at all"), /does not deny requests without TLS/],
      [set(bucketPolicy, "policy", notKnown), /policy is not known before the update/],
      [add(account, { allowSharedKeyAccess: true }), /allowSharedKeyAccess is true/],
      [add("azure-native:redisenterprise:RedisEnterprise", { minimumTlsVersion: "1.0" }), /must be "1\.2"/],
    ],
  },
  "private-data-path": {
    stack: "azure-dev",
    broken: [
      [
        set(account, "networkRuleSet/defaultAction", "Allow"),
        /publicNetworkAccess is "Enabled"; it must be "Disabled"/,
      ],
      [set(account, "networkRuleSet/ipRules", [{ iPAddressOrRange: "0.0.0.0/0" }]), /lets everybody in/],
      [add(rds, { publiclyAccessible: true }), /publiclyAccessible is true/],
      [add("azure-native:dbforpostgresql:Server"), /network\.publicNetworkAccess is not set/],
    ],
  },
  "private-endpoints": {
    stack: "azure-prod",
    broken: [
      [remove("azure-native:network:PrivateEndpoint"), /cache: it has no private endpoint, and no rule for a network/],
      [add(bucket), /added: the network has no gateway endpoint to S3/],
    ],
  },
  "encryption-at-rest": {
    stack: "aws-prod",
    broken: [
      [set(rds, "storageEncrypted", false), /storageEncrypted is false/],
      [set("aws:elasticache/replicationGroup:ReplicationGroup", "transitEncryptionEnabled", false), /transit/],
      [set("aws:kms/key:Key", "enableKeyRotation", undefined), /enableKeyRotation is not set/],
      [set("aws:sqs/queue:Queue", "sqsManagedSseEnabled", false), /sqsManagedSseEnabled is false/],
      [set(eks, "encryptionConfig", undefined), /encryptionConfig does not name secrets/],
      [set("kubernetes:storage.k8s.io/v1:StorageClass", "parameters/encrypted", "false"), /parameters\.encrypted/],
    ],
  },
  "stateful-protected": {
    stack: "aws-prod",
    broken: [
      [(subject) => changed(subject, rds, (each) => ({ ...each, protect: false })), /postgres: protect is false/],
      [(subject) => changed(subject, bucket, (each) => ({ ...each, protect: false })), /models: protect is false/],
    ],
  },
  "api-server-not-world": {
    stack: "azure-dev",
    broken: [
      [set(aks, "apiServerAccessProfile/authorizedIPRanges", []), /authorizedIPRanges is \[\], and the API is public/],
      [set(aks, "apiServerAccessProfile", undefined), /not set, and the API is public/],
      [set(aks, "apiServerAccessProfile/authorizedIPRanges", notKnown), /not known before the update, and the API/],
      [
        add(eks, { vpcConfig: { endpointPublicAccess: true, publicAccessCidrs: ["0.0.0.0/0"] } }),
        /has "0\.0\.0\.0\/0"/,
      ],
      [add(eks, { vpcConfig: {} }), /publicAccessCidrs is not set, and the API is public/],
    ],
  },
  "no-open-ingress": {
    stack: "aws-prod",
    broken: [
      [set(ingress, "cidrIpv4", "0.0.0.0/0"), /it lets "0\.0\.0\.0\/0" in/],
      [add("aws:ec2/securityGroup:SecurityGroup", { ingress: [{ cidrBlocks: ["0.0.0.0/0"] }] }), /added: it lets/],
      [
        add("azure-native:network:NetworkSecurityGroup", {
          securityRules: [{ access: "Allow", direction: "Inbound", sourceAddressPrefix: "*" }],
        }),
        /it lets "\*" in/,
      ],
    ],
  },
  "cluster-auth": {
    stack: "aws-prod",
    broken: [
      [set(eks, "accessConfig/authenticationMode", "API_AND_CONFIG_MAP"), /must be "API"/],
      [set(eks, "accessConfig/bootstrapClusterCreatorAdminPermissions", true), /must be false/],
      [add(aks, { disableLocalAccounts: false }), /disableLocalAccounts is false/],
    ],
  },
  "workload-identity": {
    stack: "aws-dev",
    broken: [
      [remove("aws:eks/addon:Addon"), /cluster: the add-on eks-pod-identity-agent is missing/],
      [add(aks, { oidcIssuerProfile: { enabled: true } }), /securityProfile\.workloadIdentity\.enabled is not set/],
    ],
  },
  "no-machine-login": {
    stack: "azure-prod",
    broken: [
      [set(agentPool, "securityProfile/sshAccess", "LocalUser"), /sshAccess is "LocalUser"/],
      [add(template, { keyName: "mine" }), /keyName is "mine"/],
      [add("aws:eks/nodeGroup:NodeGroup", { remoteAccess: { ec2SshKey: "mine" } }), /remoteAccess is/],
    ],
  },
  "no-wildcard-iam": {
    stack: "aws-prod",
    broken: [
      [set(rolePolicy, "policy", policy({ Effect: "Allow", Action: "*", Resource: "*" })), /it allows "\*"/],
      [set(rolePolicy, "policy", policy({ Action: ["s3:*"], Resource: "*" })), /it allows s3:\* on every resource/],
      [set(rolePolicy, "policy", policy({ Action: "iam:PassRole", Resource: "*" })), /iam:PassRole on every resource/],
      [set(rolePolicy, "policy", policy({ NotAction: "iam:*", Resource: "*" })), /NotAction/],
      [set(rolePolicy, "policy", notKnown), /policy is not known before the update/],
      [set(role, "assumeRolePolicy", policy({ Action: "sts:AssumeRole", Principal: "*" })), /everybody may take it on/],
      [set(role, "inlinePolicies", [{ policy: policy({ Action: "*", Resource: "*" }) }]), /it allows "\*"/],
      [set(role, "managedPolicyArns", ["arn:aws:iam::aws:policy/AdministratorAccess"]), /AdministratorAccess/],
      [
        add("aws:iam/rolePolicyAttachment:RolePolicyAttachment", {
          policyArn: "arn:aws:iam::aws:policy/PowerUserAccess",
        }),
        /it attaches .*PowerUserAccess/,
      ],
      [add(assignment, { roleDefinitionId: owner, scope: subscription }), /on all of "\/subscriptions/],
      [add(assignment, { roleDefinitionId: owner, scope: notKnown }), /scope is not known before the update/],
    ],
  },
  "control-plane-logs": {
    stack: "aws-prod",
    broken: [
      [set(eks, "enabledClusterLogTypes", ["api"]), /cluster: its log audit is off/],
      [remove("aws:cloudwatch/logGroup:LogGroup"), /no log group with a retention/],
      [set("aws:cloudwatch/logGroup:LogGroup", "retentionInDays", undefined), /it keeps logs for ever/],
      [add(aks), /added: its log kube-audit-admin goes nowhere/],
    ],
  },
  "budget-alerts": {
    stack: "azure-prod",
    broken: [
      [remove("azure-native:consumption:Budget"), /there is no actual alert/],
      [set("azure-native:consumption:Budget", "notifications/Forecasted100", undefined), /no forecasted alert/],
    ],
  },
  "no-purchases": {
    stack: "aws-prod",
    broken: [
      [
        add("aws:ec2/capacityBlockReservation:CapacityBlockReservation"),
        /CapacityBlockReservation is a promise to pay/,
      ],
      [add("azure-native:compute:CapacityReservation"), /a CapacityReservation is a promise to pay/],
    ],
  },
  "standard-support": {
    stack: "aws-prod",
    broken: [[set(eks, "upgradePolicy", undefined), /upgradePolicy\.supportType is not set; it must be "STANDARD"/]],
  },
  "resource-tags": {
    stack: "azure-prod",
    broken: [
      [set(agentPool, "tags", undefined), /its tag owner is not set/],
      [set(account, "tags/cost-center", "another"), /cache: its tag cost-center is "another"/],
      [set("azure-native:dashboard:Grafana", "tags/stack", "azure-dev"), /its tag stack is "azure-dev"/],
    ],
  },
  imdsv2: {
    stack: "aws-prod",
    broken: [
      [set(template, "metadataOptions/httpTokens", "optional"), /httpTokens is "optional"; it must be "required"/],
      [set(nodeClass, "spec/metadataOptions/httpPutResponseHopLimit", 2), /httpPutResponseHopLimit is 2/],
    ],
  },
  "node-disks-encrypted": {
    stack: "aws-prod",
    broken: [
      [set(template, "blockDeviceMappings", undefined), /its disk is as the account has it/],
      [set(nodeClass, "spec/blockDeviceMappings/0/ebs/encrypted", false), /ebs\.encrypted is false/],
    ],
  },
  "host-encryption": {
    stack: "azure-prod",
    after: set(agentPool, "enableEncryptionAtHost", true),
    broken: [[set(agentPool, "enableEncryptionAtHost", false), /enableEncryptionAtHost is false/]],
  },
  "planned-nodes": {
    stack: "aws-prod",
    broken: [
      [set(nodePool, "spec/limits", undefined), /spec\.limits has no nvidia\.com\/gpu/],
      [set(nodePool, "spec/limits", { "nvidia.com/gpu": "800" }), /800 GPUs at most; the plan has/],
      [set(nodePool, "spec/template/metadata/labels", {}), /the plan has no pool for it/],
      [set("aws:eks/nodeGroup:NodeGroup", "scalingConfig/maxSize", 60), /60 system nodes at most; the plan has 6/],
      [add("aws:ec2/instance:Instance"), /it is a machine that the plan does not know/],
      [add(agentPool, { maxCount: 3 }), /added: the plan has no pool/],
      [add(aks, { agentPoolProfiles: [{ mode: "System", vmSize: gpuSize, maxCount: 1 }] }), /system pool has GPUs/],
      [add(aks, { agentPoolProfiles: [{ mode: "System", maxCount: 60 }] }), /60 system nodes at most/],
      [add(aks, { agentPoolProfiles: [{ mode: "User", vmSize: gpuSize, maxCount: 1 }] }), /the plan has no pool/],
    ],
  },
  "gpu-pool-hygiene": {
    stack: "azure-prod",
    broken: [
      [set(agentPool, "nodeTaints", []), /it has no taint nvidia\.com\/gpu:NoSchedule/],
      [set(agentPool, "nodeTaints", ["nvidia.com/gpu=present:NoSchedule"]), /it is spot without a spot taint/],
      [set(agentPool, "nodeLabels", {}), /no label penstock\.dev\/pool/],
    ],
  },
};
