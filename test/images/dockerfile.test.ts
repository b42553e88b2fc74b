import { execFile } from "node:child_process";
import { cp, mkdir, readFile, stat, symlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { agentImageOf, allImages, imageVersion } from "../../infra/catalog/images.ts";
import { unprivilegedUser } from "../../infra/kubernetes/containers.ts";
import packages from "../../images/packages.json" with { type: "json" };
import packageJson from "../../package.json" with { type: "json" };
import { engineSpec } from "../../runtime/contracts/engine.ts";
import { engines } from "../../runtime/engines/index.ts";
import bake from "../../images/bake.json" with { type: "json" };
import { copiedFiles, lineageOf, parseDockerfile, type Dockerfile } from "../support/dockerfile.ts";
import { temporaryFolder } from "../support/folders.ts";
import { closureOf } from "../support/modules.ts";
import { repository } from "../support/repository.ts";

const text = await readFile(join(repository, "images/Dockerfile"), "utf8");
const ignored = await readFile(join(repository, "images/Dockerfile.dockerignore"), "utf8");
const built = bake.target.agent.matrix.engine;
const embedded = "runtime/embedded/main.ts";

/** What is built: the Dockerfile with its arguments, and the stage that becomes the image. */
const gateway = { file: parseDockerfile(text), stage: "gateway", name: "penstock-gateway" };
const agents = built.map((engine) => ({
  file: parseDockerfile(text, { ENGINE: engine }),
  stage: "agent",
  name: `penstock-agent-${engine}`,
}));
const images = [gateway, ...agents];
type Image = typeof gateway;

const programs = {
  gateway: { image: gateway, main: "runtime/gateway/main.ts", entries: ["runtime/gateway/main.ts"], apart: [embedded] },
  agent: { image: agents[0] ?? gateway, main: "runtime/agent/main.ts", entries: ["runtime/agent/main.ts", embedded] },
};

/** The last of this instruction, in the image's own stages and those below. */
function last({ file, stage }: Image, name: string): string | undefined {
  return lineageOf(file, stage)
    .flatMap(({ instructions }) => instructions)
    .findLast((each) => each.name === name)?.rest;
}

describe("what images stand on", () => {
  test("every base is a stage, or an image of an exact version", () => {
    const { args, stages } = gateway.file;
    const bases = [...stages.values()]
      .map(({ base }) => base)
      .filter((base) => base !== "scratch" && !stages.has(base));
    expect([...args.values()]).toEqual(expect.arrayContaining(bases));
    const pinned = /^[a-z0-9./-]+:[\w.-]*\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?$/;
    expect(bases.filter((base) => !pinned.test(base))).toEqual([]);
    expect(bases).toHaveLength(6);
    // Each engine's own base is there, under the name that ENGINE picks.
    expect(agents.map(({ file }) => file.stages.get("agent")?.base)).toEqual(built.map((engine) => `base-${engine}`));
    expect([...stages.keys()]).toEqual(expect.arrayContaining(built.map((engine) => `base-${engine}`)));
  });

  test("Node is the one of package.json", () => {
    expect(gateway.file.args.get("NODE_VERSION")).toBe(packageJson.devDependencies.node);
  });

  test.each([
    ["vllm", "VLLM_VERSION"],
    ["trtllm", "TRTLLM_VERSION"],
  ] as const)("%s is the version that its engine was written against", (engine, arg) => {
    expect(gateway.file.args.get(arg)).toBe(engines[engine].version?.pinned.join("."));
  });

  test("llama.cpp is a release of the version that its engine was written against", () => {
    const [major, minor] = engines.llamacpp.version?.pinned ?? [];
    expect(gateway.file.args.get("LLAMACPP_VERSION")).toMatch(new RegExp(`^${major}\\.${minor}\\.\\d+$`));
  });

  test("Triton is the release that its engine names", async () => {
    const engine = await readFile(join(repository, "runtime/engines/triton.ts"), "utf8");
    expect(engine).toContain(`(${gateway.file.args.get("TRITON_VERSION")})`);
  });

  test.each([
    [{ kind: "embedded" }, "penstock-agent-embedded"],
    [{ kind: "triton" }, "penstock-agent-triton"],
    [{ kind: "triton", backend: "tensorrtllm" }, "penstock-agent-triton-trtllm"],
    [{ kind: "trtllm", backend: "tensorrt" }, "penstock-agent-trtllm"],
  ])("an agent for %o runs in %s", (engine, name) => {
    expect(agentImageOf(engineSpec.parse(engine))).toBe(name);
  });

  test("they are the images that the catalogue names, in the release's version", () => {
    expect(new Set(images.map(({ name }) => name))).toEqual(new Set(allImages()));
    expect(imageVersion).toBe(packageJson.version);
    expect(bake.variable.VERSION.default).toBe(packageJson.version);
    expect(bake.target.gateway.tags).toEqual(["${REGISTRY}/penstock-gateway:${VERSION}"]);
    expect(bake.target.agent.tags).toEqual(["${REGISTRY}/penstock-agent-${engine}:${VERSION}"]);
  });
});

describe.each(images)("$name", (image) => {
  test("runs as the user of the pods, without a health check of its own", () => {
    expect(last(image, "USER")).toBe(`${unprivilegedUser}:${unprivilegedUser}`);
    expect(last(image, "WORKDIR")).toBe("/var/lib/penstock");
    expect(last(image, "HEALTHCHECK")).toBe("NONE");
    expect(last(image, "ENV")).toContain("HOME=/var/lib/penstock");
  });

  test("is told apart by its labels", () => {
    for (const label of ["title", "description", "version", "revision"]) {
      expect(last(image, "LABEL")).toContain(`org.opencontainers.image.${label}=`);
    }
  });

  test("has no secret, and fetches nothing unchecked", () => {
    const all = [...image.file.stages.values()].flatMap(({ instructions }) => instructions);
    const lines = (...names: string[]) => all.filter(({ name }) => names.includes(name)).map(({ rest }) => rest);
    expect(lines("ARG", "ENV").filter((line) => /TOKEN|SECRET|PASSWORD|_KEY\b/i.test(line))).toEqual([]);
    expect(lines("RUN").filter((line) => /\b(curl|wget|apt-get|npm install)\b/.test(line))).toEqual([]);
    const added = all.filter(({ name }) => name === "ADD").map(({ flags }) => flags.join(" "));
    expect(added).toEqual([expect.stringMatching(/--checksum=sha256:[0-9a-f]{64}$/)]);
  });

  test("copies files that are there, and that the build may see", async () => {
    const allowed = ignored.split("\n").flatMap((line) => (line.startsWith("!") ? [line.slice(1)] : []));
    expect(ignored.split("\n").find((line) => !line.startsWith("#"))).toBe("*");
    for (const [from] of copiesOf(image.file)) {
      await stat(join(repository, from));
      expect(
        allowed.some((each) => from === each || from.startsWith(`${each}/`)),
        from,
      ).toBe(true);
    }
  });
});

describe.each(Object.entries(programs))("the %s", (role, { image, main, entries, ...rest }) => {
  const closure = closureOf(entries, "apart" in rest ? rest.apart : []);

  test("starts as `npm run` starts it", () => {
    const words: unknown = JSON.parse(last(image, "ENTRYPOINT") ?? "");
    const [, , ...script] = packageJson.scripts[role as "gateway" | "agent"].split(" "); // the keys of the table
    expect(words).toEqual(["/usr/local/bin/node", ...script.slice(0, -1), `/opt/penstock/${main}`]);
  });

  test("has every file and package that it needs, and no other package", async () => {
    const copied = copiedFiles(image.file, image.stage).map(([from]) => from);
    const { files, packages: needed } = await closure;
    const missing = [...files].filter((file) => !copied.some((each) => file === each || file.startsWith(`${each}/`)));
    expect(missing).toEqual([]);
    expect([...needed].toSorted()).toEqual(packages[role as keyof typeof packages]); // the keys of the table
    expect(Object.keys(packageJson.dependencies)).toEqual(expect.arrayContaining([...needed]));
  });

  test("starts from the files of its image alone", async () => {
    await using folder = await temporaryFolder();
    for (const [from, to] of copiedFiles(image.file, image.stage)) {
      const target = join(folder.path, to.endsWith("/") ? join(to, basename(from)) : to);
      await cp(join(repository, from), target, { recursive: true });
    }
    const root = join(folder.path, "opt/penstock");
    for (const name of packages[role as keyof typeof packages]) {
      await mkdir(dirname(join(root, "node_modules", name)), { recursive: true });
      await symlink(join(repository, "node_modules", name), join(root, "node_modules", name));
    }
    for (const entry of entries) {
      const { stdout } = await promisify(execFile)(process.execPath, [join(root, entry), "--help"], {
        cwd: folder.path,
        env: {},
      });
      expect(stdout).toContain("--help");
    }
  });
});

test("npm installs from the lock file what is left of package.json", async () => {
  await using folder = await temporaryFolder();
  const files = ["package.json", "images/packages.json", "images/packages.ts"];
  for (const file of files) await cp(join(repository, file), join(folder.path, file));
  await promisify(execFile)(process.execPath, ["images/packages.ts", "gateway"], { cwd: folder.path });
  const left: unknown = JSON.parse(await readFile(join(folder.path, "package.json"), "utf8"));
  const versions: Readonly<Record<string, string>> = packageJson.dependencies;
  expect(left).toEqual({
    ...packageJson,
    dependencies: Object.fromEntries(packages.gateway.map((name) => [name, versions[name]])),
    devDependencies: {},
  });
});

/** Files of the build context that any stage copies. */
function copiesOf(file: Dockerfile): (readonly [string, string])[] {
  return [...file.stages.values()].flatMap(({ instructions }) =>
    instructions
      .filter(({ name, flags }) => name === "COPY" && !flags.some((flag) => flag.startsWith("--from=")))
      .flatMap(({ rest }) => {
        const words = rest.split(/\s+/);
        return words.slice(0, -1).map((from) => [from, words.at(-1) ?? ""] as const);
      }),
  );
}
