import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { environmentOf, judge, type Subject } from "../../policies/judge.ts";
import { rules } from "../../policies/rules.ts";
import { cloudStackNames, saidOf, subjectOf, today, type CloudStackName } from "./subjects.ts";
import { cloudCases } from "./cases-cloud.ts";
import { kubernetesCases } from "./cases-kubernetes.ts";
import { planCases } from "./cases-plan.ts";

const cases = { ...planCases, ...cloudCases, ...kubernetesCases };
const subjects = new Map<CloudStackName, Subject>();

beforeAll(async () => {
  for (const name of cloudStackNames) subjects.set(name, await subjectOf(name));
  // A second of a processor for each, which a busy machine may not have to spare.
}, 240_000);

function subjectNamed(name: CloudStackName): Subject {
  const subject = subjects.get(name);
  if (subject === undefined) throw new Error(`${name} was not made`);
  return subject;
}

describe("each rule", () => {
  test("has its cases, and each case its rule", () => {
    expect(Object.keys(cases).toSorted()).toEqual(rules.map(({ id }) => id).toSorted());
    expect(Object.entries(cases).filter(([, { broken }]) => broken.length === 0)).toEqual([]);
  });

  test("is registered once, in every environment, and judges in one of them at least", () => {
    expect(new Set(rules.map(({ id }) => id)).size).toBe(rules.length);
    for (const { id, levels } of rules) {
      expect(Object.keys(levels).toSorted(), id).toEqual(["dev", "prod"]);
      expect(Object.values(levels), id).not.toEqual(["off", "off"]);
      for (const level of Object.values(levels)) expect(["mandatory", "advisory", "off"], id).toContain(level);
    }
  });

  test("says why it is there and what to do, in sentences", () => {
    for (const { id, title, reason, remedy } of rules) {
      expect(id).toMatch(/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/);
      expect(title, id).toMatch(/^[A-Z].*[^.]$/);
      for (const sentence of [reason, remedy]) expect(sentence, id).toMatch(/^(`|[A-Za-z]).*\.$/);
    }
  });

  describe.each(Object.entries(cases))("%s", (id, { stack, after, broken, day }) => {
    const content = (): Subject => (after ?? ((subject) => subject))(subjectNamed(stack));

    test("is content with a stack that keeps it", () => {
      expect(saidOf(id, content(), day)).toEqual([]);
    });

    test("is not content with one that does not", () => {
      for (const [breaks, says] of broken) expect(saidOf(id, breaks(content())).join("\n")).toMatch(says);
    });
  });
});

describe("stacks that come with Penstock", () => {
  test.each(cloudStackNames)("%s breaks nothing that is mandatory", (name) => {
    const subject = subjectNamed(name);
    const { environment } = subject.plan;
    const violations = judge(subject, { today, environment });
    expect(violations.filter(({ level }) => level === "mandatory")).toEqual([]);
    expect(JSON.stringify(violations)).not.toContain("not known before the update");
  });

  test("a development stack would not do for production", () => {
    const broken = judge(subjectNamed("aws-dev"), { today, environment: "prod" });
    const mandatory = new Set(broken.filter(({ level }) => level === "mandatory").map(({ rule }) => rule));
    expect([...mandatory]).toEqual(
      expect.arrayContaining(["monthly-budget", "prod-redundancy", "prod-certificate", "stateful-protected"]),
    );
  });

  test("what is mandatory comes first", () => {
    const levels = judge(subjectNamed("aws-dev"), { today, environment: "prod" }).map(({ level }) => level);
    expect(levels.lastIndexOf("mandatory")).toBe(levels.indexOf("advisory") - 1);
  });
});

test("a stack that nobody knows is judged as production", () => {
  expect(environmentOf(null)).toBe("prod");
});

test("every type of a cloud that a rule names is one of its SDK", () => {
  const require = createRequire(import.meta.url);
  const folder = fileURLToPath(new URL("../../policies/rules/", import.meta.url));
  const texts = readdirSync(folder).map((file) => readFileSync(join(folder, file), "utf8"));
  const named = new Set(texts.flatMap((text) => text.match(/(?<=")(aws|azure-native):[^"\s]+:[^"\s]+(?=")/g) ?? []));
  expect(named.size).toBeGreaterThan(50);
  const unknown = [...named].filter((type) => {
    const [cloud = "", module = "", kind = ""] = type.split(":");
    const sdk = dirname(require.resolve(`@pulumi/${cloud}/package.json`));
    const file = cloud === "aws" ? module : `${module}/${kind.charAt(0).toLowerCase()}${kind.slice(1)}`;
    const path = join(sdk, `${file}.js`);
    return !existsSync(path) || !readFileSync(path, "utf8").includes(`__pulumiType = '${type}'`);
  });
  expect(unknown).toEqual([]);
});
