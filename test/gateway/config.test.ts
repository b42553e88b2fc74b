import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { readGatewayConfig } from "../../runtime/gateway/config.ts";
import { temporaryFolder } from "../support/folders.ts";

const model = { id: "m", source: "file:///m.gguf", fleet: "f", engine: { kind: "embedded" } };
const fleet = { name: "f", agents: { kind: "static", urls: ["http://127.0.0.1:1"] } };
const good = { fleets: [fleet], models: [model] };

/** What is said of a config: one line for each problem. */
async function problemsOf(config: object | string): Promise<string[]> {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "gateway.yaml");
  await writeFile(path, typeof config === "string" ? config : JSON.stringify(config));
  try {
    await readGatewayConfig(path);
    return [];
  } catch (error) {
    if (error instanceof PenstockError && error.code === "invalid_config") return error.message.split("\n");
    throw error;
  }
}

describe("a gateway's config", () => {
  test("needs fleets and models alone", async () => {
    expect(await problemsOf(good)).toEqual([]);
  });

  test.each<[string, object, RegExp]>([
    ["an unknown field", { ...good, modles: [] }, /modles/],
    ["a fleet that there is not", { ...good, models: [{ ...model, fleet: "g" }] }, /^models\[0\]\.fleet: .*`g`.*`f`$/],
    ["two models of one name", { ...good, models: [model, model] }, /^models\[1\]\.id: is there twice$/],
    ["two fleets of one name", { ...good, fleets: [fleet, fleet] }, /^fleets\[1\]\.name: is there twice$/],
    ["an alias of nothing", { ...good, aliases: { a: [{ model: "x", weight: 1 }] } }, /^aliases\.a\[0\]\.model: .*`x`/],
    ["an alias with a model's name", { ...good, aliases: { m: [{ model: "m", weight: 1 }] } }, /^aliases\.m: /],
    ["answers kept of no model", { ...good, responseCache: { models: ["x"] } }, /^responseCache\.models\[0\]: .*`x`/],
    ["addresses that are none", { ...good, allowedAddresses: ["10.0.0.0/99"] }, /^allowedAddresses\[0\]: is no IP/],
    [
      "a tenant's addresses that are none",
      { ...good, tenants: [{ id: "a", allowedAddresses: ["10.0.0.0/64"] }] },
      /^tenants\[0\]\.allowedAddresses\[0\]: is no IP/,
    ],
    ["a routing policy that there is not", { ...good, routing: "best" }, /^routing: .*predicted_cost/],
  ])("refuses %s and says where", async (_, config, problem) => {
    const problems = await problemsOf(config);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(problem);
  });

  test("is told everything that is wrong with it at once", async () => {
    const problems = await problemsOf({
      ...good,
      port: 70_000,
      drainSeconds: -1,
      tls: { certFile: "a" },
      logLevel: "loud",
    });
    expect(problems.map((line) => line.split(":")[0])).toEqual(["port", "tls.keyFile", "drainSeconds", "logLevel"]);
  });

  test("that is not YAML is refused by name", async () => {
    expect(await problemsOf("models: [")).toEqual([expect.stringMatching(/gateway\.yaml is not YAML: /)]);
  });
});
