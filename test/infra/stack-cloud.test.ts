import { Ajv2020 } from "ajv/dist/2020.js";
import { readFileSync, readdirSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { crossChecks } from "../../infra/stack/cross-checks.ts";
import { knownKeys, knownValues, stackFileSchema } from "../../infra/stack/json-schema.ts";
import { checkStack } from "../../infra/stack/load.ts";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { awsStack, azureStack, fleet, type WrittenStack } from "../support/stacks.ts";

function problemsOf(stack: unknown): string {
  try {
    checkStack(stack, "/stacks/Pulumi.test.yaml");
    return "";
  } catch (error) {
    if (error instanceof PenstockError && error.code === "invalid_config") return error.message;
    throw error;
  }
}

/** Changes of the one fleet, or the one pool. */
const withFleet = (change: WrittenStack): WrittenStack => ({ fleets: [{ ...fleet, ...change }] });
const withPool = (change: WrittenStack): WrittenStack => ({
  pools: [{ name: "gpus", sizes: ["g6e.2xlarge"], maxNodes: 4, ...change }],
});
const withGateway = (change: WrittenStack): WrittenStack => ({ gateway: { hostname: "llm.example.com", ...change } });

test("good stacks have no problems", () => {
  for (const stack of [awsStack, azureStack]) expect(problemsOf(stack)).toBe("");
});

describe("what only belongs together wrongly is refused, with what would be right", () => {
  test.each([
    [withFleet({ pool: "h100" }), "fleets[0].pool: no pool named `h100`; there are `gpus`"],
    [{ pools: [] }, "fleets[0].pool: no pool named `gpus`; there are none: add one, or set gpu: auto"],
    [withFleet({ pool: undefined }), "fleets[0].pool: is missing; name a pool, or set gpu: auto"],
    [withFleet({ gpu: "auto" }), "fleets[0].gpu: auto makes a pool of its own; leave out gpu, or pool"],
    [withPool({ minNodes: 9 }), "pools[0].minNodes: 9 is above maxNodes 4; lower it, or raise maxNodes"],
    [withFleet({ replicas: { min: 3, max: 2 } }), "fleets[0].replicas.min: 3 is above replicas.max 2"],
    [withGateway({ replicas: { min: 3, max: 2 } }), "gateway.replicas.min: 3 is above gateway.replicas.max 2"],
    [{ cluster: { systemNodes: { min: 4, max: 1 } } }, "cluster.systemNodes.min: 4 is above cluster.systemNodes.max 1"],
    [withPool({ capacity: ["spot"] }), "fleets[0].spot: false, and pool `gpus` has spot nodes alone; set spot: true"],
    [withPool({ capacity: ["reserved"] }), "pools[0].reservation: is missing, and capacity has reserved"],
    [
      withPool({ reservation: { id: "cr-1", nodes: 1 } }),
      "pools[0].reservation: unused; put `reserved` first in capacity",
    ],
    [withPool({ sizes: ["g6e.2xlarge", "g6e.2xlarge"] }), "pools[0].sizes[1]: listed twice"],
    [withPool({ capacity: ["spot", "spot"] }), "pools[0].capacity[1]: listed twice"],
    [withPool({ zones: ["eu-west-1a"] }), "pools[0].zones[0]: `eu-west-1a` is not in us-east-1"],
    [
      withPool({ sizes: ["p5e.48xlarge"], capacity: ["block"], reservation: { id: "cr-1", nodes: 1 } }),
      "pools[0].zones: a capacity block is in one zone; name it",
    ],
    [{ zones: ["us-east-1a"] }, "zones: EKS needs two; name another"],
    [{ zones: ["1", "2"] }, "zones[0]: `1` is not in us-east-1; its zones are named us-east-1a and so on"],
    [
      { zones: ["us-east-1a", "us-east-1b"], ...withPool({ zones: ["us-east-1c"] }) },
      "pools[0].zones[0]: `us-east-1c` is none of the stack's zones; there are us-east-1a, us-east-1b",
    ],
    [withPool({ formerNames: ["gpus"] }), "pools[0].formerNames[0]: a pool is named `gpus` now; leave it out"],
    [{ ...withPool({ name: "cards", formerNames: ["gpus"] }) }, "fleets[0].pool: `gpus` is named `cards` now"],
    [
      { pools: [1, 2].map(() => ({ name: "gpus", sizes: ["g6e.2xlarge"], maxNodes: 1 })) },
      "pools[1].name: another pool has this name",
    ],
    [withFleet({ residentModels: 3 }), "fleets[0].residentModels: 3 of 1 models; lower it"],
    [withFleet({ models: ["llama", "llama"] }), "fleets[0].models[1]: listed twice"],
    [
      withFleet({ scaling: { schedule: [{ start: "0 8 * * 1-5", end: "every day", replicas: 9 }] } }),
      "fleets[0].scaling.schedule[0].replicas: 9 is above replicas.max 2",
    ],
    [
      withFleet({ scaling: { schedule: [{ start: "0 8 * * 1-5", end: "every day", replicas: 1 }] } }),
      "fleets[0].scaling.schedule[0].end: a cron expression has 5 fields",
    ],
    [withGateway({ tenants: [{ id: "a" }, { id: "a" }] }), "gateway.tenants[1].id: another tenant has this id"],
    [
      withGateway({ tenants: [{ id: "a", models: ["lama"] }] }),
      "gateway.tenants[0].models[0]: no model named `lama`; there are llama",
    ],
    [
      withGateway({ aliases: { best: [{ model: "lama", weight: 1 }] } }),
      "gateway.aliases.best[0].model: no model named `lama`",
    ],
    [
      withGateway({ hooks: [{ module: "penstock:redact-secrets", models: ["lama"] }] }),
      "gateway.hooks[0].models[0]: no model named `lama`",
    ],
    [withGateway({ responseCache: { models: ["lama"] } }), "gateway.responseCache.models[0]: no model named `lama`"],
    [
      withGateway({ aliases: { llama: [{ model: "llama", weight: 1 }] } }),
      "gateway.aliases.llama: a model has this id",
    ],
    [
      { network: { privateCluster: false } },
      "network.apiAllowedAddresses: empty opens the Kubernetes API to everyone; name ranges, or set privateCluster",
    ],
    [
      { network: { apiAllowedAddresses: ["10.0.0.0/8"] } },
      "network.apiAllowedAddresses: a private cluster has no public API",
    ],
    [{ network: { cidr: "10.40.0.0/28" } }, "network.cidr: 10.40.0.0/28 must be a range from /12 to /20"],
    [{ network: { cidr: "10.400.0.0/16" } }, "network.cidr: 10.400.0.0/16 must be a range"],
    [{ cluster: { registry: "/subscriptions/x" } }, "cluster.registry: nodes on AWS need no permission"],
    [withFleet({ engine: { kind: "trtllm", task: "embed" } }), "fleets[0].engine: trtllm-serve has no /v1/embeddings"],
  ])("%#: %j", (change, problem) => {
    expect(problemsOf({ ...awsStack, ...change })).toContain(problem);
  });

  test("a capacity block is sold on AWS alone", () => {
    const pool = { sizes: ["Standard_NC24ads_A100_v4"], capacity: ["block"], reservation: { id: "x", nodes: 1 } };
    expect(problemsOf({ ...azureStack, ...withPool(pool) })).toContain(
      "pools[0].capacity: capacity blocks are sold on AWS alone; use reserved",
    );
    expect(problemsOf({ ...azureStack, zones: ["4"] })).toContain(
      "zones[0]: `4` is no zone of Azure; there are 1, 2, 3",
    );
  });

  test("all at once", () => {
    const message = problemsOf({ ...awsStack, ...withPool({ minNodes: 9 }), ...withFleet({ pool: "x", gpu: "auto" }) });
    expect(message).toMatch(/has 2 problems:/);
  });
});

describe("unknown keys and values", () => {
  test("another cloud's key is refused, and only this cloud's are named", () => {
    const message = problemsOf({ ...azureStack, cache: { bucket: "models" } });
    expect(message).toContain(
      "cache.bucket: unknown key; there are account, container, redundancy, premium, directory",
    );
    expect(message).toContain("cache.account: is missing; write a string");
    expect(problemsOf({ ...awsStack, cache: { account: "x" } })).toContain(
      "cache.account: unknown key; there are bucket, directory",
    );
  });

  test("another engine's key is refused, and only this engine's are named", () => {
    const message = problemsOf({ ...awsStack, ...withFleet({ engine: { kind: "trtllm", gpuLayers: 1 } }) });
    expect(message).toContain("fleets[0].engine.gpuLayers: unknown key; there are kind, task, backend, tensorParallel");
    expect(message).not.toContain("parallelSequences");
  });

  test("a misspelt cloud, engine or choice says what there is", () => {
    expect(problemsOf({ ...awsStack, cloud: "gcp" })).toContain("cloud: must be one of local, azure, aws");
    expect(problemsOf({ ...awsStack, ...withFleet({ engine: { kind: "vlm" } }) })).toContain(
      "fleets[0].engine.kind: must be one of embedded, llamacpp, vllm, triton, trtllm",
    );
    expect(problemsOf({ ...awsStack, environment: "test" })).toContain("environment: must be one of dev, prod");
    expect(problemsOf({ ...awsStack, ...withPool({ capacity: ["spott"] }) })).toContain(
      "pools[0].capacity[0]: must be one of reserved, spot, on-demand, block",
    );
  });

  test("keys and values follow the value that they stand in", () => {
    expect(knownKeys(["cache"], { cloud: "aws" })).toEqual(["bucket", "directory"]);
    expect(knownKeys(["cache"], { cloud: "local" })).toEqual(["directory"]);
    expect(knownKeys(["nowhere", 3], {})).toEqual([]);
    expect(knownValues(["cloud"], {})).toEqual(["local", "azure", "aws"]);
  });

  test("nothing that somebody wrote breaks the loader", () => {
    for (const value of [
      null,
      [],
      "x",
      3,
      { cloud: {} },
      { cloud: "aws", fleets: 3 },
      { cloud: "azure", pools: [null] },
    ]) {
      expect(problemsOf(value)).toMatch(/problem/);
    }
  });
});

test("cross-checks take a checked stack and answer with nothing when it is good", () => {
  expect(crossChecks(checkStack(azureStack, "/x.yaml"))).toEqual([]);
});

describe("stack files", () => {
  const folder = new URL("../../stacks/", import.meta.url);
  const files = readdirSync(folder).filter((name) => name.endsWith(".yaml"));
  const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(stackFileSchema());

  test("all are there", () => {
    expect(files.toSorted()).toEqual(
      ["aws-dev", "aws-prod", "azure-dev", "azure-prod", "local"].map((name) => `Pulumi.${name}.yaml`),
    );
  });

  test.each(files)("%s names the schema, and editors find it right", (file) => {
    const text = readFileSync(new URL(file, folder), "utf8");
    expect(text.split("\n")[0]).toBe("# yaml-language-server: $schema=./stack.schema.json");
    validate(parse(text));
    expect(validate.errors).toBeNull();
  });

  test("the schema refuses what the loader refuses", () => {
    for (const stack of [
      { ...azureStack, cache: { bucket: "b" } },
      { ...awsStack, fleets: [{ ...fleet, poll: "x" }] },
    ]) {
      expect(validate({ config: { "penstock:stack": stack } })).toBe(false);
    }
  });
});
