import { longestTtlDays, requiredTags } from "../allowed.ts";
import { levels, type Finding, type PlanRule } from "../rule.ts";

/** What else a plan must be: tagged, highly available, protected. */
export const planRules: readonly PlanRule[] = [
  {
    id: "required-tags",
    title: "The stack names who pays and who is asked",
    levels: levels.always,
    severity: "medium",
    reason: "Cost that nobody can be asked about is paid by everybody.",
    remedy: `Add ${requiredTags.slice(0, 3).join(", ")} to tags; the others are Penstock's own.`,
    judges: "plan",
    judge: ({ tags, environment, stack }) => [
      ...requiredTags
        .filter((tag) => (tags[tag] ?? "").trim() === "")
        .map((tag) => ({ on: "tags", problem: `${tag} is missing` })),
      ...equal("environment", tags["environment"], environment),
      ...equal("stack", tags["stack"], stack),
    ],
  },
  {
    id: "dev-ttl",
    title: "A development stack says until when it is there",
    levels: levels.devOnly,
    severity: "medium",
    reason: "What was to be tried out for a week is found in the bill a year later.",
    remedy: `A tag \`ttl\` with a day to come, such as "2027-03-31", within ${longestTtlDays} days.`,
    judges: "plan",
    judge({ tags }, { today }) {
      const { ttl } = tags;
      if (ttl === undefined || !/^\d{4}-\d{2}-\d{2}$/.test(ttl) || Number.isNaN(Date.parse(ttl))) {
        return [{ on: "tags", problem: `ttl is ${ttl ?? "missing"}; it must be a day` }];
      }
      const days = (Date.parse(ttl) - Date.parse(today)) / 86_400_000;
      if (days < 0) return [{ on: "tags", problem: `ttl ${ttl} is over: remove the stack, or renew it` }];
      return days > longestTtlDays ? [{ on: "tags", problem: `ttl ${ttl} is ${days} days away` }] : [];
    },
  },
  {
    id: "prod-redundancy",
    title: "One zone, node or gateway may fail",
    levels: levels.prodOnly,
    severity: "high",
    reason: "A single gateway or store is what a whole platform waits for.",
    remedy: "Two gateways, two system nodes, two zones, and managed stores with highAvailability.",
    judges: "plan",
    judge: ({ gateway, zones, cluster, redis, postgres }) => [
      ...atLeastTwo("gateway.replicas.min", gateway.replicas.min),
      ...atLeastTwo("cluster.systemNodes.min", cluster.system.minNodes),
      ...atLeastTwo("zones", zones.length),
      ...Object.entries({ redis, postgres })
        .filter(([, { mode, highAvailability }]) => mode !== "managed" || !highAvailability)
        .map(([on, { mode }]) => ({ on, problem: `it is ${mode}, without high availability` })),
    ],
  },
  {
    id: "prod-certificate",
    title: "The endpoint has a certificate that clients trust",
    levels: levels.prodOnly,
    severity: "high",
    reason: "Clients of a self-signed endpoint are told to trust anything.",
    remedy: "`gateway.certificate: configured`, or `in-cluster`.",
    judges: "plan",
    judge: ({ gateway }) =>
      gateway.config.certificate === "self-signed"
        ? [{ on: "gateway", problem: "the certificate is self-signed" }]
        : [],
  },
  {
    id: "prod-alerts",
    title: "Somebody is told when something is wrong",
    levels: levels.prodOnly,
    severity: "medium",
    reason: "An alert without a reader is a graph.",
    remedy: "observability.alertEmails.",
    judges: "plan",
    judge: ({ observability }) =>
      observability.alertEmails.length > 0 ? [] : [{ on: "observability", problem: "alertEmails is empty" }],
  },
  {
    id: "model-provenance",
    title: "Models from elsewhere are the same tomorrow",
    levels: levels.saidInProd,
    severity: "medium",
    reason: "Whoever owns a repository can replace its weights, and nobody would notice.",
    remedy: "A commit (`hf://org/repo@<40 digits>`), `sha256` of a file, or a store of your own.",
    judges: "plan",
    judge: ({ models }) =>
      models
        .filter(({ origin, spec }) => /^(hf|https?):/.test(origin) && spec.sha256 === undefined)
        .filter(({ origin }) => !/@[0-9a-f]{40}$/.test(origin))
        .map(({ id, origin }) => ({ on: id, problem: `${origin} may be another model tomorrow` })),
  },
];

function equal(tag: string, value: string | undefined, right: string): Finding[] {
  return value === undefined || value === right ? [] : [{ on: "tags", problem: `${tag} is ${value}, not ${right}` }];
}

function atLeastTwo(on: string, count: number): Finding[] {
  return count >= 2 ? [] : [{ on, problem: `there is ${count} of it, and there must be two` }];
}
