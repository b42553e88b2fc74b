import { execFile } from "node:child_process";
import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { parseDocument } from "yaml";
import { z } from "zod";
import { temporaryFolder } from "../support/folders.ts";
import { writeProviders } from "../support/pulumi/provider.ts";
import { repository } from "../support/repository.ts";
import { lackingPulumi } from "../support/servers/tools.ts";

const reason = lackingPulumi();
const minutes = 60_000;

/** The parts of `pulumi preview --json` that are looked at. */
const preview = z.object({ steps: z.array(z.object({ op: z.string(), urn: z.string() })) });

/** The parts of `pulumi stack export` that are looked at. */
const exported = z.object({
  deployment: z.object({ resources: z.array(z.object({ urn: z.string(), custom: z.boolean() })).default([]) }),
});

/** A project of Pulumi's with our program and our stacks, and state of its own. */
interface Project extends AsyncDisposable {
  readonly path: string;
  /** Runs the CLI. Answers what it printed; throws with all of it when it fails. */
  pulumi(...args: string[]): Promise<string>;
}

async function project(): Promise<Project> {
  const folder = await temporaryFolder();
  const { path } = folder;
  const [programs, state, home] = ["bin", "state", "home"].map((name) => join(path, name)) as [string, string, string]; // three names
  for (const each of [programs, state, home]) await mkdir(each);
  await writeProviders(programs);
  for (const file of ["Pulumi.yaml", "package.json"]) await cp(join(repository, file), join(path, file));
  await cp(join(repository, "stacks"), join(path, "stacks"), { recursive: true });
  for (const room of ["infra", "runtime", "node_modules"]) await symlink(join(repository, room), join(path, room));
  const env = {
    // Pulumi runs the program with the `node` that it finds.
    PATH: [programs, dirname(process.execPath), process.env["PATH"]].join(delimiter),
    HOME: home,
    PULUMI_HOME: home,
    PULUMI_BACKEND_URL: `file://${state}`,
    PULUMI_CONFIG_PASSPHRASE: "of the test",
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
    PULUMI_SKIP_UPDATE_CHECK: "true",
  };
  return {
    path,
    async pulumi(...args) {
      const options = { cwd: path, env, maxBuffer: 256 * 2 ** 20 };
      return (await promisify(execFile)("pulumi", ["--non-interactive", ...args], options)).stdout;
    },
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

describe.skipIf(reason !== undefined)(
  `a stack's life with Pulumi's engine${reason === undefined ? "" : `: ${reason}`}`,
  () => {
    test.each([
      ["azure-dev", "AgentPool"],
      ["aws-dev", "NodeGroup"],
    ])(
      "%s: preview, up, a change that replaces nothing, and down to nothing",
      async (stack, nodePool) => {
        await using it = await project();
        const steps = async () => {
          const { steps: all } = preview.parse(JSON.parse(await it.pulumi("preview", "--stack", stack, "--json")));
          return all.filter(({ op }) => op !== "same");
        };
        const resources = async (): Promise<readonly string[]> => {
          const { deployment } = exported.parse(JSON.parse(await it.pulumi("stack", "export", "--stack", stack)));
          return deployment.resources.filter(({ custom }) => custom).map(({ urn }) => urn);
        };
        await it.pulumi("stack", "init", stack, "--secrets-provider", "passphrase");

        const planned = await steps();
        expect(new Set(planned.map(({ op }) => op))).toEqual(new Set(["create"]));
        expect(planned.map(({ urn }) => urn)).toContainEqual(expect.stringContaining(`:${nodePool}::`));

        await it.pulumi("up", "--stack", stack, "--yes", "--skip-preview");
        const made = await resources();
        expect(made.length).toBeGreaterThan(50);
        expect(await it.pulumi("stack", "output", "endpoint", "--stack", stack)).toMatch(/^https:\/\/.*\/v1\s*$/);
        expect(await steps()).toEqual([]);

        await renameAndGrow(join(it.path, `stacks/Pulumi.${stack}.yaml`));
        const changes = await steps();
        expect(new Set(changes.map(({ op }) => op))).toEqual(new Set(["update"]));
        await it.pulumi("up", "--stack", stack, "--yes", "--skip-preview");
        expect([...(await resources())].toSorted()).toEqual([...made].toSorted());

        await it.pulumi("destroy", "--stack", stack, "--yes", "--skip-preview");
        expect(await resources()).toEqual([]);
      },
      10 * minutes,
    );
  },
);

/** Another name for people, and twice the replicas for the first fleet. */
async function renameAndGrow(file: string): Promise<void> {
  const document = parseDocument(await readFile(file, "utf8"));
  const stack = ["config", "penstock:stack"];
  const doubled = (...path: (string | number)[]): void =>
    document.setIn([...stack, ...path], 2 * Number(document.getIn([...stack, ...path])));
  document.setIn([...stack, "displayName"], "Another name");
  doubled("fleets", 0, "replicas", "max");
  doubled("pools", 0, "maxNodes");
  await writeFile(file, document.toString());
}
