import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { stackFile, stackNames as namesOfFiles } from "../../infra/commands/stack-files.ts";
import { planText } from "../../infra/commands/plan/text.ts";
import { costParts, costRange } from "../../infra/plan/cost-range.ts";
import { temporaryFolder } from "../support/folders.ts";
import { planOf, stackNames } from "../support/plans.ts";
import { repository } from "../support/repository.ts";
import { awsStack } from "../support/stacks.ts";

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The command as `npm run plan` starts it. */
function plan(...args: string[]): Promise<Run> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      ["infra/commands/plan/main.ts", ...args],
      { cwd: repository },
      (error, stdout, stderr) => {
        const code = typeof error?.code === "number" ? error.code : 0;
        resolve({ code, stdout, stderr });
      },
    );
  });
}

describe("npm run plan", () => {
  test("--json prints the plan that everything reads", async () => {
    const { code, stdout } = await plan("azure-prod", "--json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual(await planOf("azure-prod"));
  });

  test("prints pools, fleets, models, reasons and cost", async () => {
    const { code, stdout, stderr } = await plan("aws-prod");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    for (const part of [
      "Pools",
      "Fleets",
      "Models",
      "Beside them",
      "h100-od-p5-48xlarge",
      "tensor parallel 4",
      "an hour",
    ]) {
      expect(stdout).toContain(part);
    }
  });

  test("an unknown stack, none, or too many: says which there are", async () => {
    for (const args of [["nope"], [], ["a", "b"]]) {
      const { code, stdout, stderr } = await plan(...args);
      expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
      expect(stderr).toContain("aws-dev, aws-prod, azure-dev, azure-prod, local");
    }
    expect((await plan("--colour")).stderr).toContain("--help");
    expect((await plan("--help")).stdout).toContain("Usage: npm run plan -- STACK [--json]");
  });

  test("a stack that cannot work ends with every problem and no plan", async () => {
    await using folder = await temporaryFolder();
    const path = `${folder.path}/Pulumi.mine.yaml`;
    const stack = { ...awsStack, pools: [{ name: "gpus", sizes: ["g6e.2xlarge", "p9.huge"], maxNodes: 1 }] };
    await writeFile(path, stringify({ config: { "penstock:stack": stack } }));
    const { code, stdout, stderr } = await plan(path);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain("The stack mine cannot be planned, 1 problem:");
    expect(stderr).toContain("pools[0].sizes[1]: no size named `p9.huge` on aws");
  });
});

describe("stack files", () => {
  test("a name or a path", async () => {
    expect(await namesOfFiles()).toEqual([...stackNames]);
    expect(await stackFile("azure-dev")).toMatchObject({
      name: "azure-dev",
      path: expect.stringMatching(/Pulumi\.azure-dev\.yaml$/),
    });
    expect(await stackFile("/etc/penstock/Pulumi.mine.yaml")).toEqual({
      name: "mine",
      path: "/etc/penstock/Pulumi.mine.yaml",
    });
  });

  test.each(["nope", "../stacks/azure-dev", "", "Pulumi.yaml", "azure-dev\n"])("%j is none", async (name) => {
    await expect(stackFile(name)).rejects.toMatchObject({ code: "invalid_config" });
  });
});

describe("the cost range", () => {
  test("is the sum of its parts, and names what has no price", async () => {
    const azure = await planOf("azure-prod");
    const parts = costParts(azure);
    expect(parts.find(({ name }) => name === "h100")).toEqual({ name: "h100", min: 98.32, max: 196.64 });
    // The spot variants have no price: that on demand bounds them.
    expect(parts.find(({ name }) => name === "single")).toEqual({ name: "single", min: 6.98, max: 8 * 6.98 });
    const range = costRange(azure);
    expect(range.unknown).toEqual(["redis", "postgres"]);
    expect(range.maxUsdPerHour).toBeCloseTo(
      parts.reduce((sum, { max }) => sum + (max ?? 0), 0),
      10,
    );
    expect(range.maxUsdPerHour).toBeGreaterThan(range.minUsdPerHour);
  });

  test("what goes to zero costs nothing at least", async () => {
    const dev = await planOf("azure-dev");
    expect(costParts(dev)[0]).toEqual({ name: "a100", min: 0, max: 2 * 3.673 });
  });
});

test("a local stack is told in a few lines", async () => {
  expect(planText(await planOf("local"))).toBe(
    [
      "local: one machine, http://127.0.0.1:8080/v1",
      "",
      "Fleets",
      "  local: penstock-demo on embedded",
      "    - one machine: `npm start` serves this, and nothing is provisioned",
      "",
    ].join("\n"),
  );
});
