import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { agentImageOf, gatewayImage, imageVersion } from "../../infra/catalog/images.ts";
import { stores } from "../../infra/catalog/services.ts";
import { checkConfig } from "../../runtime/agent/config.ts";
import { engineSpec } from "../../runtime/contracts/engine.ts";
import { readGatewayConfig } from "../../runtime/gateway/config.ts";
import { parseDockerfile } from "../support/dockerfile.ts";
import { temporaryFolder } from "../support/folders.ts";
import { startProgram } from "../support/program.ts";
import { demoModel, repository } from "../support/repository.ts";

const text = await readFile(join(repository, "images/compose.yaml"), "utf8");

const ours = {
  build: z.strictObject({
    context: z.literal(".."),
    dockerfile: z.literal("images/Dockerfile"),
    target: z.string(),
    args: z.record(z.string(), z.string()).optional(),
  }),
  read_only: z.literal(true),
  cap_drop: z.tuple([z.literal("ALL")]),
  security_opt: z.tuple([z.literal("no-new-privileges:true")]),
  tmpfs: z.array(z.string()),
  stop_grace_period: z.string(),
  configs: z.array(z.strictObject({ source: z.string(), target: z.string() })),
};

/** The part of the Compose specification that the file uses; anything else is a mistake. */
const service = z.strictObject({
  image: z.string(),
  restart: z.literal("unless-stopped"),
  ...z.object(ours).partial().shape,
  command: z.array(z.string()).optional(),
  environment: z.record(z.string(), z.string().nullable()).optional(),
  ports: z.array(z.string().regex(/^127\.0\.0\.1:/)).optional(),
  volumes: z.array(z.string().regex(/^[\w./-]+:\/[\w/]+(:ro)?$/)),
  networks: z.array(z.string()),
  profiles: z.array(z.string()).optional(),
  shm_size: z.string().optional(),
  deploy: z
    .strictObject({
      resources: z.strictObject({
        reservations: z.strictObject({
          devices: z.tuple([
            z.strictObject({ driver: z.literal("nvidia"), count: z.literal("all"), capabilities: z.array(z.string()) }),
          ]),
        }),
      }),
    })
    .optional(),
  depends_on: z.record(z.string(), z.strictObject({ condition: z.literal("service_healthy") })).optional(),
  healthcheck: z
    .strictObject({ test: z.array(z.string()), interval: z.string(), timeout: z.string(), retries: z.int() })
    .optional(),
});

const named = z.record(z.string(), z.strictObject({ internal: z.boolean().optional() }));

const compose = z
  .looseObject({
    name: z.string(),
    services: z.record(z.string(), service),
    configs: z.record(z.string(), z.strictObject({ content: z.string() })),
    networks: named,
    volumes: named,
  })
  .parse(parse(text, { merge: true }));

const services = Object.entries(compose.services);
const built = services.filter(([, { build }]) => build !== undefined);

test("a file has the keys of Compose, and what services name is declared", () => {
  const known = ["name", "services", "configs", "networks", "volumes"];
  expect(Object.keys(compose).filter((key) => !key.startsWith("x-"))).toEqual(known);
  for (const [, { networks, volumes, configs = [], depends_on = {} }] of services) {
    expect(Object.keys(compose.networks)).toEqual(expect.arrayContaining(networks));
    expect(Object.keys(compose.configs)).toEqual(expect.arrayContaining(configs.map(({ source }) => source)));
    expect(Object.keys(compose.services)).toEqual(expect.arrayContaining(Object.keys(depends_on)));
    const names = volumes.map((volume) => volume.split(":")[0] ?? "").filter((volume) => !volume.startsWith("."));
    expect(Object.keys(compose.volumes)).toEqual(expect.arrayContaining(names));
  }
});

test("our images are those of the catalogue, as the Dockerfile builds them", async () => {
  const dockerfile = await readFile(join(repository, "images/Dockerfile"), "utf8");
  const names = built.map(([, { image }]) => image);
  const catalogue = [
    gatewayImage,
    ...(["embedded", "llamacpp", "vllm"] as const).map((kind) => agentImageOf(engineSpec.parse({ kind }))),
  ];
  expect(names).toEqual(catalogue.map((name) => `\${REGISTRY:-ghcr.io/penstock}/${name}:\${VERSION:-${imageVersion}}`));
  for (const [, { build, image }] of built) {
    const { stages } = parseDockerfile(dockerfile, build?.args);
    expect(stages.has(build?.target ?? "")).toBe(true);
    expect(image).toContain(build?.args?.["ENGINE"] ?? "gateway");
  }
});

test("the stores are those that a cluster runs", () => {
  expect([compose.services["redis"]?.image, compose.services["postgres"]?.image]).toEqual([
    stores.redis.image,
    stores.postgres.image,
  ]);
});

test("our containers may do nothing that they need not", () => {
  for (const [name, each] of built) expect(() => z.object(ours).parse(each), name).not.toThrow();
});

test("without a profile no GPU is asked for, with one it is", () => {
  for (const [name, { profiles, deploy }] of services) expect(deploy === undefined, name).toBe(profiles === undefined);
});

test("secrets come from the environment, and one that is missing stops Compose", () => {
  const secrets = services
    .flatMap(([, { environment = {} }]) => Object.entries(environment))
    .filter(([name]) => /TOKEN|KEY|PASSWORD/.test(name))
    .map(([, value]) => value);
  expect(secrets.filter((value) => value !== null && !/^\$\{\w+:\?.+\}$/.test(value))).toEqual([]);
  expect(secrets).toHaveLength(9);
  // A value would switch it on, even an empty one.
  expect(compose.services["agent-llamacpp"]?.environment?.["GGML_CUDA_ENABLE_UNIFIED_MEMORY"]).toBeNull();
});

test("the demo model answers through gateway and agent with the configs of the file", async () => {
  await using folder = await temporaryFolder();
  const write = async (name: string, changes: Readonly<Record<string, string>>): Promise<string> => {
    let content = compose.configs[name]?.content ?? "";
    for (const [from, to] of Object.entries(changes)) {
      expect(content).toContain(from);
      content = content.replace(from, to);
    }
    const path = join(folder.path, `${name}.yaml`);
    await writeFile(path, content);
    return path;
  };
  const env = { PENSTOCK_AGENT_TOKEN: "a-token-of-the-test", PENSTOCK_API_KEY: "a-key-of-the-test", HOME: folder.path };
  const agentFile = await write("agent", {
    "host: 0.0.0.0": "host: 127.0.0.1\nport: 0",
    "/models": join(folder.path, "models"),
    "/var/lib/penstock": join(folder.path, "state"),
  });
  expect(checkConfig(parse(await readFile(agentFile, "utf8"))).reclaim).toBe("none");
  await using agent = await startProgram("agent", { args: ["--config", agentFile], env });
  const gatewayFile = await write("gateway", {
    "host: 0.0.0.0": "host: 127.0.0.1\nport: 0",
    "/var/lib/penstock": join(folder.path, "gateway"),
    "http://agent:8081": agent.url,
    "/demo/penstock-demo.gguf": demoModel,
  });
  expect((await readGatewayConfig(gatewayFile)).fleets.map(({ name }) => name)).toEqual(["cpu", "llamacpp", "vllm"]);
  await using gateway = await startProgram("gateway", { args: ["--config", gatewayFile], env });
  const response = await fetch(`${gateway.url}/v1/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${env.PENSTOCK_API_KEY}`, "content-type": "application/json" },
    body: JSON.stringify({ model: "penstock-demo", prompt: "The sea is", max_tokens: 8 }),
  });
  expect([response.status, await response.json()]).toEqual([
    200,
    expect.objectContaining({ usage: expect.objectContaining({ prompt_tokens: 3 }) }),
  ]);
});
