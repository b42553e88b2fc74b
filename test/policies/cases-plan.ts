import { planned, type CloudStackName } from "./subjects.ts";
import type { Subject } from "../../policies/judge.ts";

/** A subject that a rule is content with, and changes of it that it is not. */
export interface Case {
  readonly stack: CloudStackName;
  /** What makes the rule content where the stack as it is does not. */
  readonly after?: (subject: Subject) => Subject;
  /** The day on which the rule is content, where it is not `today`. */
  readonly day?: string;
  /** What breaks the rule, and what the rule then says. */
  readonly broken: readonly (readonly [(subject: Subject) => Subject, RegExp])[];
}

const unpriced = { usdPerHour: null, source: "nobody", asOf: "2026-07-20" };

/** Rules over plans. */
export const planCases: Readonly<Record<string, Case>> = {
  "hourly-budget": {
    stack: "azure-prod",
    broken: [
      [
        budget({ hourlyUsd: 200 }),
        /at least 261\.\d\d USD an hour at the maximum \(.*h100 196\.64.*200\.00 are allowed/,
      ],
      [budget({ hourlyUsd: undefined }), /budget\.hourlyUsd is not set/],
    ],
  },
  "monthly-budget": {
    stack: "azure-prod",
    broken: [[budget({ monthlyUsd: 100_000 }), /USD are expected of a month; 100,000\.00 are allowed/]],
  },
  "idle-cost": {
    stack: "aws-prod",
    broken: [
      [budget({ monthlyUsd: 50_000 }), /without a single request, against 80 % of the budget; 40,000\.00 are allowed/],
    ],
  },
  "max-gpus": {
    stack: "aws-prod",
    broken: [
      [budget({ maxGpus: 25 }), /26 GPUs at the maximum; 25 are allowed/],
      [budget({ maxGpus: undefined }), /budget\.maxGpus is not set/],
    ],
  },
  "node-prices-known": {
    stack: "aws-prod",
    broken: [
      [
        pools((pool) => ({ ...pool, size: "p9.48xlarge", price: unpriced })),
        /h100-od-p5-48xlarge: the cost of p9\.48xlarge is unknown/,
      ],
      [
        (subject) =>
          planned(subject, ({ cluster }) => ({
            cluster: { ...cluster, system: { ...cluster.system, price: unpriced } },
          })),
        /system: the cost of m7i\.xlarge is unknown/,
      ],
    ],
  },
  "all-prices-known": {
    stack: "aws-dev",
    broken: [
      [
        (subject) => planned(subject, ({ redis }) => ({ redis: { ...redis, mode: "managed", price: unpriced } })),
        /Redis.*its cost is unknown/,
      ],
    ],
  },
  "fresh-prices": { stack: "aws-dev", day: "2026-08-22", broken: [[(subject) => subject, /92 days ago/]] },
  "dev-spot": {
    stack: "aws-dev",
    broken: [[pools((pool) => ({ ...pool, capacity: "on-demand" })), /it is bought as on-demand/]],
  },
  "dev-scale-to-zero": {
    stack: "aws-dev",
    broken: [
      [pools((pool) => ({ ...pool, warmSpares: 1 })), /it keeps 0 nodes and 1 spares/],
      [pools((pool) => ({ ...pool, minNodes: 1, groupNodes: { min: 1, max: 2 } })), /it keeps 1 nodes/],
      [fleets((fleet) => ({ ...fleet, replicas: { min: 1, max: 1 } })), /small: it keeps 1 replicas/],
      [
        fleets((fleet) => ({
          ...fleet,
          scaling: {
            ...fleet.scaling,
            schedule: [{ start: "0 8 * * 1-5", end: "0 18 * * 1-5", timezone: "UTC", replicas: 1 }],
          },
        })),
        /or more by schedule/,
      ],
    ],
  },
  "prod-not-spot-alone": {
    stack: "azure-prod",
    broken: [[pools((pool) => ({ ...pool, capacity: "spot" })), /large: its pool h100 has spot nodes alone/]],
  },
  "allowed-regions": {
    stack: "azure-prod",
    broken: [[(subject) => planned(subject, () => ({ region: "brazilsouth" })), /region: brazilsouth is not allowed/]],
  },
  "allowed-sizes": {
    stack: "aws-dev",
    broken: [
      [pools((pool) => ({ ...pool, size: "p9.48xlarge" })), /the catalogue does not know p9\.48xlarge/],
      [pools((pool) => ({ ...pool, gpu: { ...pool.gpu, count: 8 } })), /has 8 GPUs; 1 are allowed/],
    ],
  },
  "autoscaler-consistency": {
    stack: "azure-prod",
    broken: [
      [
        fleets((fleet) => ({ ...fleet, replicas: { min: 0, max: 50 } })),
        /h100: its fleets want 200 GPUs, and it has 16/,
      ],
    ],
  },
  "required-tags": {
    stack: "azure-prod",
    broken: [
      [tags({ owner: "" }), /tags: owner is missing/],
      [tags({ environment: "dev" }), /environment is dev, not prod/],
    ],
  },
  "dev-ttl": {
    stack: "azure-dev",
    broken: [
      [tags({ ttl: undefined }), /ttl is missing/],
      [tags({ ttl: "soon" }), /ttl is soon; it must be a day/],
      [tags({ ttl: "2026-11-20" }), /ttl 2026-11-20 is over/],
      [tags({ ttl: "2029-01-01" }), /ttl 2029-01-01 is 772 days away/],
    ],
  },
  "prod-redundancy": {
    stack: "aws-prod",
    broken: [
      [
        (subject) => planned(subject, ({ gateway }) => ({ gateway: { ...gateway, replicas: { min: 1, max: 3 } } })),
        /gateway\.replicas\.min: there is 1 of it/,
      ],
      [(subject) => planned(subject, () => ({ zones: ["us-east-1a"] })), /zones: there is 1/],
      [
        (subject) => planned(subject, ({ redis }) => ({ redis: { ...redis, highAvailability: false } })),
        /redis: it is managed, without high availability/,
      ],
    ],
  },
  "prod-certificate": {
    stack: "azure-prod",
    broken: [
      [
        (subject) =>
          planned(subject, ({ gateway }) => ({
            gateway: { ...gateway, config: { ...gateway.config, certificate: "self-signed" } },
          })),
        /the certificate is self-signed/,
      ],
    ],
  },
  "prod-alerts": {
    stack: "azure-prod",
    broken: [
      [
        (subject) =>
          planned(subject, ({ observability }) => ({ observability: { ...observability, alertEmails: [] } })),
        /alertEmails is empty/,
      ],
    ],
  },
  "model-provenance": {
    stack: "azure-prod",
    after: origins((id) => `hf://org/${id}@${"0123456789".repeat(4)}`),
    broken: [
      [origins((id) => `hf://org/${id}`), /bge-m3: hf:\/\/org\/bge-m3 may be another model tomorrow/],
      [origins((id) => `hf://org/${id}@main`), /may be another model tomorrow/],
      [origins((id) => `https://example.com/${id}`), /may be another model tomorrow/],
    ],
  },
};

function budget(change: { [Key in "hourlyUsd" | "monthlyUsd" | "maxGpus"]?: number | undefined }) {
  return (subject: Subject) =>
    planned(subject, (plan) => {
      const { hourlyUsd, maxGpus, ...rest } = { ...plan.budget, ...change };
      const monthlyUsd = rest.monthlyUsd ?? plan.budget.monthlyUsd;
      return {
        budget: {
          ...rest,
          monthlyUsd,
          ...(hourlyUsd === undefined ? {} : { hourlyUsd }),
          ...(maxGpus === undefined ? {} : { maxGpus }),
        },
      };
    });
}

type Of<Key extends "pools" | "fleets" | "models"> = Subject["plan"][Key][number];

function pools(change: (pool: Of<"pools">) => Of<"pools">) {
  return (subject: Subject) => planned(subject, (plan) => ({ pools: plan.pools.map(change) }));
}

function fleets(change: (fleet: Of<"fleets">) => Of<"fleets">) {
  return (subject: Subject) => planned(subject, (plan) => ({ fleets: plan.fleets.map(change) }));
}

function origins(origin: (id: string) => string) {
  return (subject: Subject) =>
    planned(subject, ({ models }) => ({ models: models.map((model) => ({ ...model, origin: origin(model.id) })) }));
}

function tags(change: Readonly<Record<string, string | undefined>>) {
  return (subject: Subject) =>
    planned(subject, (plan) => {
      const all = Object.entries({ ...plan.tags, ...change });
      return { tags: Object.fromEntries(all.filter((entry): entry is [string, string] => entry[1] !== undefined)) };
    });
}
