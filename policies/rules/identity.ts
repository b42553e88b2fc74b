import { allows, statementsOf, strings } from "../iam.ts";
import { levels, type NotKnownYet, type Rule } from "../rule.ts";
import { at, list, notKnown, recordOf, said } from "../values.ts";

/** What has a document that says what an identity may do. */
const documents = [
  "aws:iam/policy:Policy",
  "aws:iam/rolePolicy:RolePolicy",
  "aws:iam/userPolicy:UserPolicy",
  "aws:iam/groupPolicy:GroupPolicy",
];

const attachments = [
  "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
  "aws:iam/userPolicyAttachment:UserPolicyAttachment",
  "aws:iam/groupPolicyAttachment:GroupPolicyAttachment",
  "aws:iam/policyAttachment:PolicyAttachment",
];

const role = "aws:iam/role:Role";
const assignment = "azure-native:authorization:RoleAssignment";

/** AWS's own policies that may do nearly everything. */
const mighty = /\/(AdministratorAccess|PowerUserAccess|IAMFullAccess|job-function\/[A-Za-z]+)$/;

/** Owner, Contributor and User Access Administrator, in every tenant (learn.microsoft.com, Azure built-in roles). */
const mightyRoles = [
  "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
  "b24988ac-6180-42a0-ab88-20f7382dd24c",
  "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",
];

/** A subscription or a group of them, and nothing below. */
const wide = /^\/(subscriptions\/[^/]+|providers\/Microsoft\.Management\/managementGroups\/[^/]+)?\/?$/i;

/** What keys of clouds look like in what pods are given. The key itself is in no message. */
const keys: readonly (readonly [string, RegExp])[] = [
  ["an access key of AWS", /AWS_SECRET_ACCESS_KEY|\b(AKIA|ASIA)[0-9A-Z]{16}\b/],
  ["a key of a storage account", /AccountKey=|SharedAccessSignature=|[?&]sig=[A-Za-z0-9%+/]{20}/],
  ["a client secret of Azure", /AZURE_CLIENT_SECRET/],
];

/** What identities may do. */
export const identityRules: readonly Rule[] = [
  {
    id: "no-wildcard-iam",
    title: "No identity may do everything to everything",
    levels: levels.always,
    severity: "critical",
    reason: "What an identity does not need is what somebody else will use it for.",
    remedy: "Name the actions and the resources, or a condition where a resource has no name yet.",
    judges: "resource",
    types: [...documents, ...attachments, assignment, role],
    judge({ type, properties }) {
      if (type === assignment) return wideAssignment(properties);
      if (attachments.includes(type)) return tooMighty(at(properties, "policyArn"));
      if (type !== role) return documentProblems(properties, "policy");
      return [
        ...trustProblems(at(properties, "assumeRolePolicy")),
        ...list(properties, "managedPolicyArns").flatMap(tooMighty),
        ...list(properties, "inlinePolicies").flatMap((_, index) =>
          documentProblems(properties, `inlinePolicies.${index}.policy`),
        ),
      ];
    },
  },
  {
    id: "no-static-keys",
    title: "No pod is given a key of a cloud",
    levels: levels.always,
    severity: "high",
    reason: "A key in a Secret is in every backup of the cluster, works from anywhere, and never expires.",
    remedy: "Give the service account an identity of the cloud.",
    judges: "resource",
    types: [
      "kubernetes:core/v1:Secret",
      "kubernetes:core/v1:ConfigMap",
      "kubernetes:apps/v1:Deployment",
      "kubernetes:apps/v1:StatefulSet",
      "kubernetes:apps/v1:DaemonSet",
      "kubernetes:leaderworkerset.x-k8s.io/v1:LeaderWorkerSet",
      "aws:iam/accessKey:AccessKey",
    ],
    judge({ type, properties }) {
      if (type === "aws:iam/accessKey:AccessKey") return ["it is a key of a cloud"];
      const text = readable(properties);
      return keys.filter(([, pattern]) => pattern.test(text)).map(([what]) => `it has what looks like ${what}`);
    },
  },
];

function tooMighty(policyArn: unknown): string[] {
  return typeof policyArn === "string" && mighty.test(policyArn) ? [`it attaches ${policyArn}`] : [];
}

function documentProblems(value: unknown, path: string): (string | NotKnownYet)[] {
  const statements = statementsOf(at(value, path));
  return statements === null ? [{ notKnownYet: path }] : statements.flatMap(tooMuch);
}

function tooMuch(statement: unknown): string[] {
  if (!allows(statement)) return [];
  const actions = strings(at(statement, "Action"));
  const isEverywhere = strings(at(statement, "Resource")).includes("*");
  const isBound = at(statement, "Condition") !== undefined;
  const problems = actions.includes("*") ? ['it allows "*"'] : [];
  if (at(statement, "NotAction") !== undefined) problems.push("it allows everything but some actions (NotAction)");
  if (!isEverywhere || isBound) return problems;
  const services = actions.filter((action) => /^([a-z0-9-]+|\*):\*$/i.test(action));
  const passes = actions.filter((action) => /^(iam:PassRole|sts:AssumeRole)$/i.test(action));
  return [...problems, ...[...services, ...passes].map((action) => `it allows ${action} on every resource`)];
}

/** A role for everybody is a role for nobody in particular. */
function trustProblems(document: unknown): (string | NotKnownYet)[] {
  const statements = statementsOf(document);
  if (statements === null) return [{ notKnownYet: "assumeRolePolicy" }];
  return statements
    .filter((statement) => allows(statement) && at(statement, "Condition") === undefined)
    .filter((statement) => {
      const principal = at(statement, "Principal");
      return principal === "*" || strings(at(principal, "AWS")).includes("*");
    })
    .map(() => "everybody may take it on");
}

function wideAssignment(properties: unknown): (string | NotKnownYet)[] {
  const given = at(properties, "roleDefinitionId");
  const scope = at(properties, "scope");
  if (given === notKnown) return [{ notKnownYet: "roleDefinitionId" }];
  if (!mightyRoles.some((id) => String(given).toLowerCase().endsWith(id))) return [];
  if (scope === notKnown) return [{ notKnownYet: "scope" }];
  return wide.test(String(scope)) ? [`it gives ${said(given)} on all of ${said(scope)}`] : [];
}

/** All of it as text, `data` of secrets decoded too: base64 is how a key hides from a search. */
function readable(properties: Readonly<Record<string, unknown>>): string {
  const encoded = Object.values(recordOf(properties["data"])).filter((value) => typeof value === "string");
  const decoded = encoded.map((value) => Buffer.from(value, "base64").toString("latin1"));
  return [JSON.stringify(properties), ...decoded].join("\n");
}
