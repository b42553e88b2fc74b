import { renderKubernetes, type Manifest, type Rendering } from "../../../infra/commands/manifests/render.ts";
import { planStack } from "../../../infra/plan/plan-stack.ts";
import type { CloudPlan } from "../../../infra/plan/plan.ts";
import { checkStack } from "../../../infra/stack/load.ts";
import { planOf, stackOf, type StackName } from "../plans.ts";

/** Stacks whose objects are checked: those that come with Penstock, and one whose replicas span nodes. */
export const renderedStacks = ["aws-dev", "aws-prod", "azure-dev", "azure-prod", "multi-node"] as const;
export type RenderedStack = (typeof renderedStacks)[number];

/** A stack with its plan and everything that it has in its cluster. */
export interface Rendered extends Rendering {
  readonly plan: CloudPlan;
}

const known = new Map<RenderedStack, Promise<Rendered>>();
let last: Promise<unknown> = Promise.resolve();

/** Rendered once for each stack; Pulumi's mocks are global, so one after the other. */
export async function renderedOf(name: RenderedStack): Promise<Rendered> {
  let rendered = known.get(name);
  if (rendered === undefined) {
    rendered = last.then(async () => {
      const plan = name === "multi-node" ? await multiNodePlan() : await planOf(name);
      return { plan, ...(await renderKubernetes(plan)) };
    });
    known.set(name, rendered);
    last = rendered;
  }
  return await rendered;
}

/** azure-prod with its large fleet over two nodes, nodes kept warm, floors by the clock, and tenants from one range alone. */
async function multiNodePlan(): Promise<CloudPlan> {
  const stack = await cloudStackOf("azure-prod");
  const fleets = stack.fleets.map((fleet) =>
    fleet.name === "large"
      ? {
          ...fleet,
          engine: { ...fleet.engine, nodes: 2, tensorParallel: 8, pipelineParallel: 2 },
          replicas: { min: 1, max: 2 },
          scaling: {
            ...fleet.scaling,
            schedule: [{ start: "0 8 * * 1-5", end: "0 18 * * 1-5", timezone: "Europe/Berlin", replicas: 2 }],
          },
        }
      : fleet,
  );
  const pools = stack.pools.map((pool) => (pool.name === "h100" ? { ...pool, maxNodes: 5, warmSpares: 1 } : pool));
  const gateway = { ...stack.gateway, allowedAddresses: ["198.51.100.0/24"] };
  const observability = { ...stack.observability, tracesEndpoint: "http://collector.tracing.svc:4318/v1/traces" };
  const changed = checkStack({ ...stack, fleets, pools, gateway, observability }, "multi-node");
  const plan = planStack(changed, { stackName: "multi-node" });
  if (plan.cloud === "local") throw new Error("a stack on Azure was planned as local");
  return plan;
}

async function cloudStackOf(name: StackName) {
  const stack = await stackOf(name);
  if (stack.cloud === "local") throw new Error(`${name} is no stack of a cloud`);
  return stack;
}

/** Objects of a kind. */
export function ofKind({ manifests }: Rendering, kind: string): Manifest[] {
  return manifests.filter((each) => each.kind === kind);
}

/** The one object of this kind and name. Throws when there is none. */
export function object(rendering: Rendering, kind: string, name: string): Manifest {
  const found = ofKind(rendering, kind).find(({ metadata }) => metadata.name === name);
  if (found === undefined) throw new Error(`there is no ${kind} ${name}`);
  return found;
}

/** What is at a path of keys and positions in an object; undefined where a step is missing. */
export function at(value: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>(
    (inner, key) => (typeof inner === "object" && inner !== null ? Reflect.get(inner, key) : undefined),
    value,
  );
}

/** A list at a path; empty where there is none. */
export function list(value: unknown, ...path: readonly (string | number)[]): unknown[] {
  const found = at(value, ...path);
  return Array.isArray(found) ? found : [];
}

/** A pod as a workload of ours would make it. */
export interface Pod {
  /** Kind and name of the workload. */
  readonly workload: string;
  readonly namespace: string;
  readonly labels: unknown;
  readonly spec: unknown;
}

/** Pods of all workloads. */
export function podsOf({ manifests }: Rendering): Pod[] {
  return manifests.flatMap((each) => {
    const template = at(each, "spec", "template") ?? at(each, "spec", "leaderWorkerTemplate", "workerTemplate");
    if (at(template, "spec", "containers") === undefined) return [];
    return [
      {
        workload: `${each.kind} ${each.metadata.name}`,
        namespace: each.metadata.namespace ?? "",
        labels: at(template, "metadata", "labels"),
        spec: at(template, "spec"),
      },
    ];
  });
}

/** All containers of a pod, those that run first too. */
export function containersOf({ spec }: Pod): unknown[] {
  return [...list(spec, "initContainers"), ...list(spec, "containers")];
}
