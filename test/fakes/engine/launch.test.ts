import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { engineSpec, type EngineKind } from "../../../runtime/contracts/engine.ts";
import type { EngineCall, EnginePlace } from "../../../runtime/engines/engine.ts";
import { engineOf } from "../../../runtime/engines/index.ts";
import { readSignals } from "../../../runtime/engines/signals.ts";
import { temporaryFolder } from "../../support/folders.ts";
import { freePort } from "../../support/servers/free-port.ts";
import { simulatorProgram, spawnSimulator } from "./spawn.ts";

type Simulated = Exclude<EngineKind, "embedded">;

const specs: readonly [Simulated, object][] = [
  ["vllm", { sleepLevel: 1, lora: {} }],
  ["vllm", { sleepLevel: 2 }],
  ["vllm", { task: "embed" }],
  ["triton", {}],
  ["trtllm", {}],
  ["llamacpp", {}],
  ["llamacpp", { task: "embed" }],
];

test.each(specs)("what Penstock launches, the simulator takes: %s %j", async (kind, fields) => {
  await using folder = await temporaryFolder();
  const spec = engineSpec.parse({ kind, ...fields });
  const engine = engineOf(spec);
  const place = await placeIn(folder.path, kind);
  const launch = engine.launch(spec, place);
  for (const [path, content] of Object.entries(launch.files)) {
    await mkdir(dirname(join(place.workDirectory, path)), { recursive: true });
    await writeFile(join(place.workDirectory, path), content);
  }
  const call = async (wanted: EngineCall): Promise<Response> =>
    await fetch(`http://127.0.0.1:${place.ports[wanted.port ?? "api"]}${wanted.path}`, {
      method: wanted.method,
      ...(wanted.body === undefined ? {} : { body: JSON.stringify(wanted.body) }),
    });
  const must = async (calls: readonly EngineCall[]): Promise<void> => {
    for (const each of calls) expect(`${each.path} ${(await call(each)).status}`).toBe(`${each.path} 200`);
  };
  // The command is `node main.ts --as kind ...`; the helper runs the program itself.
  const argv = launch.command.slice(launch.command.indexOf(simulatorProgram) + 1);
  await using process = spawnSimulator(argv, launch.env);
  const { ready } = launch;
  if (ready === null) throw new Error("a single node has a readiness call");
  await expect
    .poll(
      () =>
        call(ready).then(
          ({ status }) => status,
          () => process.output(),
        ),
      { interval: 20 },
    )
    .toBe(200);
  await must(launch.afterReady);

  const probe = engine.golden(spec, place.servedName)[0];
  if (probe === undefined) throw new Error("every engine has a probe");
  const golden = async (): Promise<unknown> => {
    const answer = (await (await call(probe.call)).json()) as Record<string, unknown[]>; // compared below
    return probe.kind === "embedding" ? answer["data"] : answer["choices"];
  };
  const before = await golden();
  expect(before).toHaveLength(1);
  const metrics = engine.metrics(spec);
  const page = await (await call(metrics.call)).text();
  expect(readSignals(metrics, page).missing).toEqual([]);

  await must(engine.sleep(spec, place.servedName) ?? []);
  await must(engine.wake(spec, place.servedName));
  expect(await golden()).toEqual(before);
});

async function placeIn(folder: string, kind: Simulated): Promise<EnginePlace> {
  const workDirectory = join(folder, "work");
  const modelPath = join(folder, kind === "llamacpp" ? "weights.gguf" : "weights");
  await mkdir(workDirectory);
  if (kind === "llamacpp") await writeFile(modelPath, "GGUF");
  else await mkdir(modelPath);
  return {
    command: [process.execPath, simulatorProgram, "--as", kind],
    version: null,
    modelPath,
    servedName: "m",
    ports: { api: await freePort(), admin: await freePort(), metrics: await freePort() },
    adapters: {},
    gpus: [0],
    workDirectory,
    compileCacheDirectory: join(folder, "compiled"),
    group: null,
    logLevel: "info",
  };
}
