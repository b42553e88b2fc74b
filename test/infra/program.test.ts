import { describe, expect, test } from "vitest";
import { stackOf, type StackName } from "../support/plans.ts";
import { awsMocks } from "../support/pulumi/aws.ts";
import { azureMocks } from "../support/pulumi/azure.ts";
import { isSecret } from "../../infra/commands/wire.ts";
import { runProgram, unknownValue, type ProgramRun } from "../support/pulumi/engine.ts";

const certificate = "-----BEGIN CERTIFICATE-----";
const key = "-----BEGIN PRIVATE KEY----- of the endpoint";

/** What Pulumi hands to the program of a stack that comes with Penstock. */
async function runOf(stack: StackName, more: Partial<ProgramRun> = {}): Promise<ProgramRun> {
  const mocks = stack.startsWith("aws") ? awsMocks : azureMocks;
  return {
    stack,
    config: {
      "penstock:stack": JSON.stringify(await stackOf(stack)),
      "penstock:tlsCertificate": certificate,
      "penstock:tlsKey": key,
    },
    secretKeys: ["penstock:tlsCertificate", "penstock:tlsKey"],
    outputs: (made) => mocks.answer(made) ?? {},
    invoke: (token) => mocks.call(token),
    ...more,
  };
}

describe("the program as Pulumi runs it", () => {
  test("a preview registers everything while nothing is made yet", async () => {
    const ran = await runProgram(await runOf("azure-prod", { preview: true, outputs: () => ({}) }));
    expect(ran.messages).not.toContain("Error");
    expect(ran.exitCode).toBe(0);
    expect(ran.resources.filter(({ type }) => type === "azure-native:containerservice:AgentPool")).not.toEqual([]);
    // What only a deployment knows is passed on as unknown, not as an empty string.
    expect(JSON.stringify(ran.resources)).toContain(unknownValue);
    expect(ran.outputs?.["endpoint"]).toBe("https://llm.example.com/v1");
  });

  test.for<StackName>(["azure-prod", "aws-prod"])(
    "an update of %s ends with what to type next; secrets stay secret",
    async (stack) => {
      const ran = await runProgram(await runOf(stack));
      expect(ran.exitCode).toBe(0);
      const { outputs = {} } = ran;
      expect(Object.keys(outputs).toSorted()).toEqual(
        ["adminKey", "endpoint", "grafanaPassword", "links", "loadBalancer", "makeKey", "try"].toSorted(),
      );
      expect(isSecret(outputs["adminKey"])).toBe(true);
      expect(outputs["try"]).toContain("https://llm.example.com/v1/chat/completions");
      expect(ran.messages).not.toContain(key);
      const withKey = ran.resources.flatMap(({ urn, inputs }) =>
        Object.entries(inputs).flatMap(([name, value]) =>
          JSON.stringify(value).includes(key) ? [{ urn, name, secret: isSecret(value) }] : [],
        ),
      );
      expect(withKey).not.toEqual([]);
      expect(withKey.filter(({ secret }) => !secret)).toEqual([]);
    },
  );

  test("two runs register the same, in any order", async () => {
    const [one, two] = [await runProgram(await runOf("azure-dev")), await runProgram(await runOf("azure-dev"))];
    const shown = ({ resources }: typeof one) => resources.map(({ urn, inputs }) => [urn, inputs]);
    const byUrn = (a: unknown[], b: unknown[]) => String(a[0]).localeCompare(String(b[0]));
    expect(shown(two).toSorted(byUrn)).toEqual(shown(one).toSorted(byUrn));
  });
});

describe("what is wrong is said before anything is made", () => {
  test("a missing certificate, with the command that sets it", async () => {
    const run = await runOf("azure-prod");
    const { "penstock:stack": stack = "" } = run.config;
    const ran = await runProgram({ ...run, config: { "penstock:stack": stack }, secretKeys: [] });
    expect(ran.exitCode).not.toBe(0);
    expect(ran.resources.map(({ type }) => type)).toEqual(["pulumi:pulumi:Stack"]);
    expect(ran.messages).toContain("pulumi config set --secret penstock:tlsCertificate --stack azure-prod");
    expect(ran.messages).toContain("penstock:tlsKey: missing");
  });

  test("every mistake of a stack at once, with its path", async () => {
    const stack = { ...(await stackOf("azure-prod")), cache: { bucket: "b" }, pols: [], budget: undefined };
    const ran = await runProgram(await runOf("azure-prod", { config: { "penstock:stack": JSON.stringify(stack) } }));
    expect(ran.resources.map(({ type }) => type)).toEqual(["pulumi:pulumi:Stack"]);
    for (const part of ["cache.account", "cache.bucket: unknown key", "pols: unknown key", "budget"]) {
      expect(ran.messages).toContain(part);
    }
  });

  test("a stack of one machine", async () => {
    const ran = await runProgram(await runOf("local"));
    expect(ran.resources.map(({ type }) => type)).toEqual(["pulumi:pulumi:Stack"]);
    expect(ran.messages).toContain("`npm start` serves it");
  });
});
