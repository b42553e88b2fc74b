import type { Answer, MockOptions } from "./mocks.ts";

const accountId = "123456789012";

/** What AWS would answer: ids and ARNs in its own form, and outputs that other resources are made from. */
export const awsMocks = {
  answer: ({ type, name, inputs }): Answer | undefined => {
    if (type === "random:index/randomPassword:RandomPassword") return { result: "aB3".repeat(14) };
    const kind = type.split(":").at(-1) ?? "";
    const given = [inputs["name"], inputs["bucket"], inputs["identifier"], inputs["nodeGroupName"]];
    const called = given.find((value) => typeof value === "string");
    return outputs[kind]?.(typeof called === "string" ? called : name);
  },
  call: (token) => calls[token] ?? {},
} satisfies Pick<MockOptions<unknown>, "answer" | "call">;

const outputs: Readonly<Record<string, (name: string) => Answer>> = {
  Role: (name) => ({ id: name, arn: `arn:aws:iam::${accountId}:role/${name}` }),
  Key: () => ({ id: "key-1", keyId: "key-1", arn: `arn:aws:kms:us-east-1:${accountId}:key/key-1` }),
  Bucket: (name) => ({ id: name, arn: `arn:aws:s3:::${name}` }),
  Queue: (name) => ({
    id: `https://sqs.us-east-1.amazonaws.com/${accountId}/${name}`,
    url: `https://sqs.us-east-1.amazonaws.com/${accountId}/${name}`,
    arn: `arn:aws:sqs:us-east-1:${accountId}:${name}`,
  }),
  Cluster: (name) => ({
    id: name,
    endpoint: "https://0123456789.gr7.us-east-1.eks.amazonaws.com",
    certificateAuthority: { data: "Y2VydGlmaWNhdGU=" },
    vpcConfig: { clusterSecurityGroupId: "sg-cluster" },
  }),
  LaunchTemplate: (name) => ({ id: `lt-${name}`, latestVersion: 3 }),
  LogGroup: (name) => ({ arn: `arn:aws:logs:us-east-1:${accountId}:log-group:${name}` }),
  Topic: (name) => ({ arn: `arn:aws:sns:us-east-1:${accountId}:${name}` }),
  ReplicationGroup: () => ({ primaryEndpointAddress: "master.penstock.abc123.use1.cache.amazonaws.com" }),
  Instance: (name) => ({ address: `${name}.abc123.us-east-1.rds.amazonaws.com` }),
  Workspace: () => ({
    id: "ws-1",
    arn: `arn:aws:aps:us-east-1:${accountId}:workspace/ws-1`,
    prometheusEndpoint: "https://aps-workspaces.us-east-1.amazonaws.com/workspaces/ws-1/",
  }),
};

const calls: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "aws:index/getCallerIdentity:getCallerIdentity": {
    accountId,
    arn: `arn:aws:sts::${accountId}:assumed-role/deployer/session`,
    userId: "AROA:session",
  },
  "aws:iam/getSessionContext:getSessionContext": { issuerArn: `arn:aws:iam::${accountId}:role/deployer` },
  "aws:eks/getAddonVersion:getAddonVersion": { version: "v1.2.3-eksbuild.1" },
};
