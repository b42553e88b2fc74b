import { execFile } from "node:child_process";
import { chmod, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { firstSteps } from "../../infra/first-steps.ts";
import { answers, apiKey, gatewayUnderTest, servedModel } from "../gateway/support.ts";
import { temporaryFolder } from "../support/folders.ts";
import { planOf } from "../support/plans.ts";

test.for(["aws-dev", "aws-prod", "azure-dev", "azure-prod"] as const)(
  "what %s prints makes a key, and that key asks a model that writes",
  async (stack) => {
    const plan = await planOf(stack);
    await using folder = await temporaryFolder();
    const pulumi = join(folder.path, "pulumi");
    await writeFile(pulumi, `#!/bin/sh\ntest "$*" = "stack output adminKey --show-secrets" && echo ${apiKey}\n`);
    await chmod(pulumi, 0o755);
    await using under = await gatewayUnderTest(
      {
        onInfer: answers({ choices: [{ message: { content: "hi" } }] }),
        onHeartbeat: (truth) => ({
          ...truth,
          models: plan.models.map(({ id }) => ({ ...truth.models[0], model_id: id })),
        }),
      },
      {
        tenants: plan.gateway.config.tenants,
        models: plan.models.map(({ spec }) => ({ ...servedModel, spec })),
        stores: { hot: { kind: "memory" }, record: { kind: "sqlite", file: ":memory:" } },
      },
    );
    const steps = firstSteps(`${under.gateway.url}/v1`, plan);
    const typed = async (command: string, env: Readonly<Record<string, string>> = {}): Promise<unknown> => {
      const PATH = `${folder.path}${delimiter}${process.env["PATH"] ?? ""}`;
      const { stdout } = await promisify(execFile)("sh", ["-c", command], { env: { PATH, ...env } });
      return JSON.parse(stdout);
    };
    const made = await typed(steps.makeKey);
    expect(made).toMatchObject({ key: expect.stringMatching(/^pk-/) });
    const { key } = made as { key: string }; // matched above
    expect(await typed(steps.try, { KEY: key })).toMatchObject({ choices: [{ message: { content: "hi" } }] });
    const asked = /"model":"([^"]+)"/.exec(steps.try)?.[1];
    expect(plan.models.find(({ id }) => id === asked)?.shape.task).toBe("generate");
  },
);
