import { createServer, type Server, type ServerResponse } from "node:http";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { Agents } from "../../runtime/gateway/fleet/agents.ts";
import { Breaker } from "../../runtime/gateway/fleet/breaker.ts";
import { directoryOptions, watchDirectory } from "../../runtime/gateway/fleet/directory.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { startFakeAgent } from "../fakes/agent.ts";
import { temporaryFolder } from "../support/folders.ts";

const log = createLog("test", "silent");

/** What a directory says, until the test ends. */
function follow(options: unknown): { readonly urls: string[][] } & Disposable {
  const urls: string[][] = [];
  const stop = new AbortController();
  void watchDirectory(directoryOptions.parse(options), {
    onChange: (now) => urls.push([...now]),
    signal: stop.signal,
    log,
  });
  return { urls, [Symbol.dispose]: () => stop.abort() };
}

test("a name is looked up again and again; one without an address is an empty fleet", async () => {
  using found = follow({ kind: "dns", host: "localhost", port: 8081, intervalSeconds: 0.05 });
  await expect.poll(() => found.urls[0]?.some((url) => url === "http://127.0.0.1:8081")).toBe(true);
  using none = follow({ kind: "dns", host: "nobody.invalid", port: 8081, intervalSeconds: 0.05 });
  await expect.poll(() => none.urls.length).toBeLessThanOrEqual(1);
});

/** As much of the Kubernetes API as EndpointSlices need: a list, then a watch that the test writes to. */
class FakeApiServer {
  readonly queries: URLSearchParams[] = [];
  readonly tokens: (string | undefined)[] = [];
  watching: ServerResponse | undefined;
  items: object[] = [];
  readonly #server: Server = createServer((incoming, outgoing) => {
    const url = new URL(incoming.url ?? "", "http://api");
    this.queries.push(url.searchParams);
    this.tokens.push(incoming.headers.authorization);
    if (url.pathname !== "/apis/discovery.k8s.io/v1/namespaces/penstock/endpointslices") {
      outgoing.writeHead(404).end();
    } else if (url.searchParams.get("watch") === "1") {
      this.watching = outgoing;
      outgoing.writeHead(200).flushHeaders();
    } else outgoing.end(JSON.stringify({ metadata: { resourceVersion: "7" }, items: this.items }));
  });

  async start(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  send(type: string, object: object): void {
    this.watching?.write(`${JSON.stringify({ type, object })}\n`);
  }

  [Symbol.dispose](): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

function endpointSlice(name: string, addresses: readonly string[], ready = true): object {
  return {
    metadata: { name, resourceVersion: "8" },
    ports: [{ port: 8081 }],
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready } })),
  };
}

test("EndpointSlices: a list, then changes as they come; a watch that ends begins anew", async () => {
  await using folder = await temporaryFolder();
  await writeFile(join(folder.path, "token"), "pod-token\n");
  using api = new FakeApiServer();
  api.items = [endpointSlice("a", ["10.0.0.1", "10.0.0.2"])];
  const apiUrl = await api.start();
  using found = follow({
    kind: "kubernetes",
    namespace: "penstock",
    service: "agents",
    apiUrl,
    credentialsDirectory: folder.path,
  });
  await expect.poll(() => found.urls.at(-1)).toEqual(["http://10.0.0.1:8081", "http://10.0.0.2:8081"]);
  await expect.poll(() => api.watching !== undefined).toBe(true);
  api.send("ADDED", endpointSlice("b", ["fd00::1"]));
  await expect
    .poll(() => found.urls.at(-1))
    .toEqual(["http://10.0.0.1:8081", "http://10.0.0.2:8081", "http://[fd00::1]:8081"]);
  api.send("MODIFIED", endpointSlice("b", ["fd00::1"], false));
  api.send("DELETED", endpointSlice("a", []));
  await expect.poll(() => found.urls.at(-1)).toEqual([]);
  api.items = [endpointSlice("c", ["10.0.0.3"])];
  api.send("ERROR", { code: 410 });
  api.watching?.end();
  await expect.poll(() => found.urls.at(-1)).toEqual(["http://10.0.0.3:8081"]);
  expect(api.queries[0]?.get("labelSelector")).toBe("kubernetes.io/service-name=agents");
  expect(api.queries[1]?.get("resourceVersion")).toBe("7");
  expect(new Set(api.tokens)).toEqual(new Set(["Bearer pod-token"]));
});

test("an agent that is silent for a moment stays, one that is gone goes at once, and comes back", async () => {
  const agent = await startFakeAgent();
  const agents = new Agents([{ name: "f", agents: { kind: "static", urls: [agent.url] } }], {
    token: agent.token,
    log,
  });
  await agents.start();
  expect(agents.views).toMatchObject([{ fleet: "f", reachable: true, last: { agent_id: "fake" } }]);
  const [known] = agents.all;
  if (known === undefined) throw new Error("there is one agent");
  agent.heartbeatFails = true;
  await agents.beat(known);
  await agents.beat(known);
  expect(known.reachable).toBe(true);
  await agents.beat(known);
  expect(known.reachable).toBe(false);
  agent.heartbeatFails = false;
  await agents.beat(known);
  expect(known.reachable).toBe(true);
  await agent.close();
  // The first may only find that a connection was closed; the next finds nobody.
  await agents.beat(known);
  await agents.beat(known);
  expect(known.reachable).toBe(false);
  agents.stop();
});

test("a thousand agents are asked and known within a few seconds", async () => {
  // One server under a thousand loopback addresses.
  await using everywhere = await startFakeAgent({}, "0.0.0.0");
  const { port } = new URL(everywhere.url);
  const urls = Array.from(
    { length: 1_000 },
    (_, at) => `http://127.0.${Math.floor(at / 250)}.${(at % 250) + 1}:${port}`,
  );
  const agents = new Agents([{ name: "f", agents: { kind: "static", urls } }], { token: everywhere.token, log });
  await agents.start();
  expect(agents.views.filter(({ reachable }) => reachable)).toHaveLength(1_000);
  agents.stop();
});

test("a breaker opens after failures in a row, and closes with a success", () => {
  const breaker = new Breaker();
  breaker.failed();
  breaker.failed();
  expect(breaker.isClosed).toBe(true);
  breaker.failed();
  expect(breaker.isClosed).toBe(false);
  breaker.succeeded();
  expect(breaker.isClosed).toBe(true);
});
