import { spawnSync } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { temporaryFolder } from "../support/folders.ts";
import { repository } from "../support/repository.ts";

/** `npm run manifests`, as it is typed. */
function manifests(...args: string[]) {
  const ran = spawnSync(process.execPath, ["infra/commands/manifests/main.ts", ...args], {
    cwd: repository,
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  });
  return { status: ran.status, stdout: ran.stdout, stderr: ran.stderr };
}

test("every object is a file, and the index lists them", async () => {
  await using folder = await temporaryFolder();
  const { status, stdout, stderr } = manifests("azure-dev", "--out", folder.path);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout).toMatch(/^\d+ objects and \d+ charts of azure-dev are in /);
  const folders = await readdir(folder.path);
  expect(folders.toSorted()).toEqual([
    "README.md",
    "cluster",
    "dashboards",
    "helm",
    "kube-system",
    "penstock",
    "penstock-monitoring",
    "penstock-system",
  ]);
  const index = await readFile(join(folder.path, "README.md"), "utf8");
  const files = (await readdir(folder.path, { recursive: true })).filter((file) => file.endsWith(".yaml"));
  let objects = 0;
  for (const file of files.filter((each) => !each.startsWith("helm"))) {
    const object = parse(await readFile(join(folder.path, file), "utf8"));
    expect(index).toContain(`| ${object.kind} | ${object.metadata.name} | ${object.apiVersion} |`);
    objects += 1;
  }
  expect(stdout).toContain(`${objects} objects`);
  expect(await readFile(join(folder.path, "helm/nvidia-device-plugin.yaml"), "utf8")).toMatch(
    /^# helm upgrade --install nvidia-device-plugin nvidia-device-plugin --repo https:\S+ --version \S+ --namespace penstock-system /,
  );
  expect(JSON.parse(await readFile(join(folder.path, "dashboards/penstock-gateway.json"), "utf8"))).toMatchObject({
    uid: "penstock-gateway",
  });
});

test("the same stack gives the same bytes", () => {
  const first = manifests("aws-dev", "--json");
  expect(first.status).toBe(0);
  expect(JSON.parse(first.stdout).manifests.length).toBeGreaterThan(40);
  expect(manifests("aws-dev", "--json").stdout).toBe(first.stdout);
});

test("a stack of one machine has nothing in Kubernetes, and says so", () => {
  expect(manifests("local", "--out", "unused")).toEqual({
    status: 0,
    stdout: "local is one machine: `npm start` serves it, and nothing of it is in Kubernetes.\n",
    stderr: "",
  });
});

test.each([
  [["nowhere", "--out", "x"], "There is no stack `nowhere`"],
  [[], "Name one stack"],
  [["aws-dev"], "Name a folder with --out"],
  [["aws-dev", "--ouch"], "see --help"],
])("%j is refused with what is right", (args, said) => {
  const { status, stderr } = manifests(...args);
  expect(status).toBe(2);
  expect(stderr).toContain(said);
});
