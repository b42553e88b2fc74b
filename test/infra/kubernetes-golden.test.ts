import { describe, expect, it } from "vitest";
import { folderOf } from "../../infra/commands/manifests/render.ts";
import { releaseText, yamlOf } from "../../infra/commands/manifests/write.ts";
import { problemsOf } from "../support/pulumi/kinds.ts";
import { object, renderedOf, renderedStacks } from "../support/pulumi/manifests.ts";

/** What Kubernetes takes for the name of an object (RFC 1123). */
const objectName = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;
const labelKey = /^([a-z0-9.-]+\/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const labelValue = /^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/;

describe.each(renderedStacks)("%s", (stack) => {
  it("has the objects that were agreed on (`vitest -u` takes a change)", async () => {
    const { manifests, releases } = await renderedOf(stack);
    // Dashboards are long, and have a test of their own.
    const shown = manifests.filter(({ metadata }) => metadata.labels?.["grafana_dashboard"] === undefined);
    const text = [...shown.map(yamlOf), ...releases.map(releaseText)].join("---\n");
    await expect(text).toMatchFileSnapshot(`../golden/manifests/${stack}.yaml`);
  });

  it("has objects that the official schemas of their kinds take", async () => {
    const { manifests } = await renderedOf(stack);
    const problems = manifests.flatMap((each) =>
      problemsOf(each).map((problem) => `${each.kind} ${each.metadata.name}: ${problem}`),
    );
    expect(problems).toEqual([]);
  });

  it("has names and labels that Kubernetes takes, each object once", async () => {
    const { manifests } = await renderedOf(stack);
    for (const { metadata } of manifests) {
      expect(metadata.name).toMatch(objectName);
      for (const [key, value] of Object.entries(metadata.labels ?? {})) {
        expect(key).toMatch(labelKey);
        expect(value).toMatch(labelValue);
      }
    }
    const places = manifests.map((each) => `${folderOf(each)} ${each.kind} ${each.metadata.name}`);
    expect(new Set(places).size).toBe(places.length);
  });

  it("pins every chart", async () => {
    const { releases } = await renderedOf(stack);
    expect(releases.length).toBeGreaterThan(1);
    for (const { version } of releases) expect(version).toMatch(/^\d+\.\d+\.\d+$/);
  });
});

describe("the schemas", () => {
  it.each([
    { kind: "Deployment", name: "penstock-gateway", spec: { replicas: "3" }, wanted: "selector" },
    { kind: "ScaledObject", name: "fleet-small", spec: { scaleTargetRef: {}, triggers: [] }, wanted: "name" },
    {
      kind: "LeaderWorkerSet",
      name: "fleet-large",
      spec: { leaderWorkerTemplate: { size: 0, workerTemplate: {} } },
      wanted: "size",
    },
  ])("refuse a broken $kind", async ({ kind, name, spec, wanted }) => {
    const good = object(await renderedOf("multi-node"), kind, name);
    expect(problemsOf(good)).toEqual([]);
    expect(problemsOf({ ...good, spec }).join("; ")).toContain(wanted);
  });
});
