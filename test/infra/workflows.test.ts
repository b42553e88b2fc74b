import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { chmod, copyFile, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { temporaryFolder } from "../support/folders.ts";
import { repository } from "../support/repository.ts";

const permissions = z.record(z.string(), z.enum(["read", "write"]));

/** What these tests read of a workflow; GitHub checks the rest. */
const workflow = z.object({
  name: z.string(),
  on: z.record(z.string(), z.unknown()),
  permissions,
  jobs: z.record(
    z.string(),
    z.object({
      "runs-on": z.string(),
      "timeout-minutes": z.number(),
      needs: z.union([z.string(), z.array(z.string())]).optional(),
      if: z.string().optional(),
      permissions: permissions.optional(),
      environment: z.string().optional(),
      concurrency: z.looseObject({ "cancel-in-progress": z.boolean().optional() }).optional(),
      steps: z.array(
        z.object({
          uses: z.string().optional(),
          run: z.string().optional(),
          with: z.record(z.string(), z.unknown()).optional(),
          env: z.record(z.string(), z.unknown()).optional(),
        }),
      ),
    }),
  ),
});

const folder = join(repository, ".github/workflows");
const scripts = join(repository, ".github/scripts");
const names = (await readdir(folder)).toSorted();
const files = names.map((name) => {
  const text = readFileSync(join(folder, name), "utf8");
  return { name, text, content: workflow.parse(parse(text)) };
});

/** What each workflow's jobs may write, and nothing more. */
const mayWrite: Readonly<Record<string, readonly string[]>> = {
  "deploy.yml deploy": ["id-token"],
  "images.yml push": ["attestations", "id-token", "packages"],
  "review.yml comment": ["pull-requests"],
  "review.yml preview": ["id-token"],
};

test("there is a workflow for tests, reviews, images and deployments", () => {
  expect(names).toEqual(["deploy.yml", "images.yml", "review.yml", "test.yml"]);
});

describe.each(files)("$name", ({ name, text, content }) => {
  const jobs = Object.entries(content.jobs);
  const steps = jobs.flatMap(([, job]) => job.steps);

  test("every npm script and every script that it runs is there", async () => {
    const { scripts: known } = z
      .object({ scripts: z.record(z.string(), z.string()) })
      .parse(JSON.parse(await readFile(join(repository, "package.json"), "utf8")));
    for (const { run = "" } of steps) {
      for (const [, script = ""] of run.matchAll(/npm run (?:--silent )?([\w:-]+)/g)) {
        expect(Object.keys(known)).toContain(script);
      }
      for (const [path] of run.matchAll(/\.github\/scripts\/[\w-]+|\.ci\/run/g)) {
        const { mode } = await stat(join(repository, path));
        expect(mode & 0o111, `${path} can be run`).not.toBe(0);
      }
    }
  });

  test("reads alone, unless a job needs more", () => {
    expect(content.permissions).toEqual({ contents: "read" });
    for (const [job, { permissions: own = {} }] of jobs) {
      const writes = Object.keys(own).filter((scope) => own[scope] === "write");
      expect(writes.toSorted(), job).toEqual(mayWrite[`${name} ${job}`] ?? []);
    }
  });

  test("holds no secret, and takes what others wrote through the environment alone", () => {
    expect(text).not.toMatch(
      /AKIA[0-9A-Z]{16}|gh[pousr]_\w{20}|pul-[0-9a-f]{40}|-----BEGIN|[0-9a-f]{8}(-[0-9a-f]{4}){3}-/,
    );
    expect(Object.keys(content.on)).not.toContain("pull_request_target");
    // A title or a branch that is put into a shell's text is a program.
    for (const { run = "" } of steps) expect(run).not.toContain("${{");
    const secrets = new Set([...text.matchAll(/secrets\.(\w+)/g)].map(([, secret]) => secret));
    const known = new Set(["GITHUB_TOKEN", "PULUMI_ACCESS_TOKEN", "PULUMI_CONFIG_PASSPHRASE"]);
    expect([...secrets].filter((secret) => !known.has(secret ?? ""))).toEqual([]);
  });

  test("pins its actions, ends in time, and leaves no token in the checkout", () => {
    for (const { uses } of steps) {
      if (uses === undefined) continue;
      expect(uses).toMatch(/^[\w-]+\/[\w-]+@(v\d+|[0-9a-f]{40})$/);
    }
    const checkouts = steps.filter(({ uses = "" }) => uses.startsWith("actions/checkout@"));
    expect(checkouts.map(({ with: inputs }) => inputs?.["persist-credentials"])).not.toContain(undefined);
    expect(checkouts.map(({ with: inputs }) => inputs?.["persist-credentials"])).not.toContain(true);
    for (const [job, { "timeout-minutes": minutes }] of jobs) expect(minutes, job).toBeLessThanOrEqual(180);
  });
});

test("what reaches a cloud stands in an environment, and not in a fork's pull request", () => {
  for (const { content } of files) {
    for (const [job, { steps, environment, if: condition = "" }] of Object.entries(content.jobs)) {
      if (!steps.some(({ uses = "" }) => /^(azure\/login|aws-actions)/.test(uses))) continue;
      expect(environment, job).toContain("matrix.stack");
      if (content.on["pull_request"] === undefined) continue;
      expect(condition, job).toContain("github.event.pull_request.head.repo.full_name == github.repository");
    }
  }
});

test("a deployment is never cut off by the next one", () => {
  const deploy = files.find(({ name }) => name === "deploy.yml");
  expect(deploy?.content.jobs["deploy"]?.concurrency).toMatchObject({ "cancel-in-progress": false });
});

test("docs/ci.md names every secret and variable", async () => {
  const page = await readFile(join(repository, "docs/ci.md"), "utf8");
  const used = files.flatMap(({ text }) => [...text.matchAll(/(?:secrets|vars)\.(\w+)/g)].map(([, name = ""]) => name));
  const missing = used.filter((name) => name !== "GITHUB_TOKEN" && !page.includes(`\`${name}\``));
  expect(missing).toEqual([]);
});

describe("scripts", () => {
  test("stacks that changed: by their files, all of them with the program, none with docs", async () => {
    await using place = await temporaryFolder();
    const at = (path: string): string => join(place.path, path);
    const git = (...args: string[]): void => {
      const identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
      execFileSync("git", [...identity, ...args], { cwd: place.path, stdio: "pipe" });
    };
    const changed = (): string =>
      execFileSync(at(".github/scripts/changed-stacks"), ["main"], { encoding: "utf8" }).trim();
    await mkdir(at(".github/scripts"), { recursive: true });
    await mkdir(at("stacks"));
    await mkdir(at("infra"));
    await copyFile(join(scripts, "changed-stacks"), at(".github/scripts/changed-stacks"));
    await chmod(at(".github/scripts/changed-stacks"), 0o755);
    for (const [stack, cloud] of [
      ["one", "azure"],
      ["two", "aws"],
      ["home", "local"],
    ] as const) {
      await writeFile(at(`stacks/Pulumi.${stack}.yaml`), `config:\n  penstock:stack:\n    cloud: ${cloud}\n`);
    }
    git("init", "--initial-branch", "main");
    git("add", ".");
    git("commit", "--message", "first");
    git("switch", "--create", "change");
    expect(changed()).toBe("names=[]");
    await writeFile(at("README.md"), "hello");
    git("add", ".");
    git("commit", "--message", "docs");
    expect(changed()).toBe("names=[]");
    await writeFile(
      at("stacks/Pulumi.two.yaml"),
      "config:\n  penstock:stack:\n    cloud: aws # more\n    cloud: aws\n",
    );
    git("commit", "--all", "--message", "a stack");
    expect(changed()).toBe('names=["two"]');
    await writeFile(at("infra/index.ts"), "export {};\n");
    git("add", ".");
    git("commit", "--message", "program");
    expect(changed()).toBe('names=["one","two"]');
  });

  test("targets of images: all, or the small ones; none without the file of targets", async () => {
    const run = (script: string, small: string): string =>
      execFileSync(script, [small], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim();
    const script = join(scripts, "image-targets");
    expect(run(script, "true")).toBe('names=["gateway","agent-embedded"]');
    expect(run(script, "false")).toContain("agent-vllm");
    await using place = await temporaryFolder();
    await mkdir(join(place.path, ".github/scripts"), { recursive: true });
    const copy = join(place.path, ".github/scripts/image-targets");
    await copyFile(script, copy);
    await chmod(copy, 0o755);
    expect(run(copy, "false")).toBe("names=[]");
  });

  test("the cost goes to one comment, which is updated", async () => {
    await using place = await temporaryFolder();
    const log = join(place.path, "log");
    // Stands in for GitHub's client: keeps what it was asked, and finds the comment whose id is in the file `old`.
    await writeFile(
      join(place.path, "gh"),
      '#!/usr/bin/env bash\necho "$*" >> "$LOG"\nfor word in "$@"; do case $word in body=@*) cat "${word#body=@}" >> "$LOG" ;; esac; done\n' +
        'case "$*" in *--paginate*) cat "$(dirname "$0")/old" ;; esac\n',
    );
    await chmod(join(place.path, "gh"), 0o755);
    await writeFile(join(place.path, "old"), "");
    await writeFile(join(place.path, "cost-one.md"), "one costs 5 more");
    const comment = (): void => {
      const env = {
        PATH: `${place.path}:${process.env["PATH"] ?? ""}`,
        LOG: log,
        NUMBER: "7",
        GITHUB_REPOSITORY: "o/r",
      };
      execFileSync(join(scripts, "comment-cost"), [place.path], { env });
    };
    comment();
    expect(await readFile(log, "utf8")).toContain("--method POST repos/o/r/issues/7/comments");
    expect(await readFile(log, "utf8")).toContain("one costs 5 more");
    await writeFile(join(place.path, "old"), "42\n");
    comment();
    expect(await readFile(log, "utf8")).toContain("--method PATCH repos/o/r/issues/comments/42");
  });
});
