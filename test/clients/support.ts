import { createRequire } from "node:module";
import { join } from "node:path";
import { startSimulator, type Simulator } from "../fakes/engine/simulator.ts";
import { gatewayUnderTest, type GatewayUnderTest } from "../gateway/support.ts";
import { repository } from "../support/repository.ts";
import { installPackages } from "../support/servers/packages.ts";

/** How long the first installation of the clients may take. */
export const installTimeoutMs = 300_000;

/**
 * A package of `test/servers`, which is not there when types are checked: the caller names what it uses of it.
 * Installs the packages when they are missing.
 */
export async function clientPackage(name: string): Promise<unknown> {
  await installPackages();
  return createRequire(join(repository, "test/servers/package.json"))(name);
}

/** A gateway before a simulated vLLM that serves the model `m`. */
export interface Endpoint extends AsyncDisposable {
  readonly under: GatewayUnderTest;
  readonly engine: Simulator;
}

export async function gatewayOverSimulator(): Promise<Endpoint> {
  const engine = await startSimulator({ argv: ["--served-model-name", "m"] });
  const under = await gatewayUnderTest({
    async onInfer(incoming, outgoing, body) {
      const path = (incoming.url ?? "").replace(/^\/infer\/[^/]+/, "");
      const type = incoming.headers["content-type"] ?? "application/json";
      const answer = await fetch(engine.url + path, { method: "POST", body, headers: { "content-type": type } });
      outgoing.writeHead(answer.status, { "content-type": answer.headers.get("content-type") ?? "" });
      for await (const chunk of answer.body ?? []) outgoing.write(chunk);
      outgoing.end();
    },
  });
  return {
    under,
    engine,
    async [Symbol.asyncDispose]() {
      await under[Symbol.asyncDispose]();
      await engine.close();
    },
  };
}

/** Everything that a stream gives. */
export async function collect<Item>(stream: AsyncIterable<Item>): Promise<Item[]> {
  const items: Item[] = [];
  for await (const item of stream) items.push(item);
  return items;
}
