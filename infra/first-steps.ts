import type { CloudPlan, PlannedModel } from "./plan/plan.ts";

/** What to type after a deployment, as `pulumi stack output` shows it. */
export interface FirstSteps {
  /** Makes an API key with the admin key of the stack. */
  readonly makeKey: string;
  /** Asks a model with that key, in `KEY`. */
  readonly try: string;
}

/** Commands for a model and a tenant of the stack that may use it: one that writes if there is one, and one that is warm. */
export function firstSteps(endpoint: string, plan: Pick<CloudPlan, "models" | "gateway">): FirstSteps {
  const model = plan.models.toSorted((a, b) => rank(a) - rank(b))[0];
  const id = model?.id ?? "";
  const { tenants } = plan.gateway.config;
  const tenant = tenants.find(({ models }) => models.includes("*") || models.includes(id)) ?? tenants[0];
  const origin = new URL(endpoint).origin;
  const call = (path: string, bearer: string, body: unknown): string =>
    `curl ${origin}${path} -H "Authorization: Bearer ${bearer}" -H "Content-Type: application/json" ` +
    `-d '${JSON.stringify(body)}'`;
  const admin = "$(pulumi stack output adminKey --show-secrets)";
  const [path, asks] =
    model?.shape.task === "embed"
      ? ["/v1/embeddings", { input: "Hello" }]
      : ["/v1/chat/completions", { messages: [{ role: "user", content: "Hello" }] }];
  return {
    makeKey: call("/admin/keys", admin, { tenant: tenant?.id, name: "first" }),
    try: call(path, "$KEY", { model: id, ...asks }),
  };
}

function rank({ shape, warm }: PlannedModel): number {
  return (shape.task === "generate" ? 0 : 2) + (warm ? 0 : 1);
}
