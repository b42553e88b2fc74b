import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { format } from "prettier";
import { describe, expect, test } from "vitest";
import { stringify } from "yaml";
import packageJson from "../../package.json" with { type: "json" };
import { rulesTable } from "../../infra/commands/policy/table.ts";
import { temporaryFolder } from "../support/folders.ts";
import { stackOf } from "../support/plans.ts";
import { repository } from "../support/repository.ts";

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The command as `npm run policy` starts it. */
function policy(...args: string[]): Promise<Run> {
  const [, , ...words] = packageJson.scripts.policy.split(" ");
  return new Promise((resolve) => {
    execFile(process.execPath, [...words, ...args], { cwd: repository }, (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === "number" ? error.code : 0, stdout, stderr });
    });
  });
}

describe("npm run policy", () => {
  test("lets a stack pass that breaks nothing, and says what is to be known", async () => {
    const { code, stdout } = await policy("azure-prod");
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^azure-prod as prod: \d+ rules over its plan and \d+ resources: 0 violations, \d+ to know\n/,
    );
    expect(stdout).toContain("model-provenance (advisory, medium)");
    expect(stdout).not.toContain("mandatory");
  });

  test("ends with 1 for what is mandatory, with the reason and what to do", async () => {
    const { code, stdout } = await policy("azure-dev", "--environment", "prod");
    expect(code).toBe(1);
    expect(stdout).toContain(
      [
        "prod-certificate (mandatory, high)",
        "  gateway: the certificate is self-signed",
        "  why: Clients of a self-signed endpoint are told to trust anything.",
        "  do: `gateway.certificate: configured`, or `in-cluster`.",
      ].join("\n"),
    );
    expect(stdout).toContain("Not to be deployed");
  });

  test("--json has every violation with its rule and level", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "Pulumi.dear.yaml");
    const stack = await stackOf("aws-dev");
    if (stack.cloud === "local") throw new Error("aws-dev is local");
    const ttl = new Date(Date.now() + 30 * 86_400_000).toISOString().slice(0, "2026-11-21".length);
    const dear = { ...stack, tags: { ...stack.tags, ttl }, budget: { ...stack.budget, hourlyUsd: 1 } };
    await writeFile(path, stringify({ config: { "penstock:stack": dear } }));
    const { code, stdout } = await policy(path, "--json");
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      stack: "dear",
      environment: "dev",
      violations: [
        {
          rule: "hourly-budget",
          level: "mandatory",
          severity: "critical",
          on: "budget",
          problem: expect.stringMatching(/USD an hour at the maximum \(l40s .*\); 1\.00 are allowed/),
          reason: expect.any(String),
          remedy: expect.any(String),
        },
        ...Array.from({ length: JSON.parse(stdout).violations.length - 1 }, () => ({ level: "advisory" })),
      ],
    });
  });

  test("has nothing to judge of one machine", async () => {
    const { code, stdout } = await policy("local");
    expect(code).toBe(0);
    expect(stdout).toContain("nothing of it is provisioned");
  });

  test.each([
    [[], "Name one stack"],
    [["nowhere"], "There is no stack `nowhere`"],
    [["azure-prod", "--environment", "test"], "--environment is dev or prod, not test."],
    [["--what"], "see --help"],
  ])("refuses %j and says why", async (args, why) => {
    const { code, stderr } = await policy(...args);
    expect(code).toBe(2);
    expect(stderr).toContain(why);
  });
});

test("docs/policies.md has the table of the rules as they are", async () => {
  const docs = await readFile(join(repository, "docs/policies.md"), "utf8");
  expect(docs).toContain(await format(rulesTable(), { parser: "markdown", printWidth: 120 }));
});
