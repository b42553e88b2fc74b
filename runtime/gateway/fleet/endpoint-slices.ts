import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Agent, request } from "undici";
import { z } from "zod";
import type { DirectoryOptions, WatchOptions } from "./directory.ts";

type Options = Extract<DirectoryOptions, { kind: "kubernetes" }>;

const slice = z.looseObject({
  metadata: z.looseObject({ name: z.string(), resourceVersion: z.string() }),
  ports: z.array(z.looseObject({ port: z.int().nullish() })).nullish(),
  endpoints: z
    .array(
      z.looseObject({
        addresses: z.array(z.string()),
        conditions: z.looseObject({ ready: z.boolean().nullish(), terminating: z.boolean().nullish() }).nullish(),
      }),
    )
    .nullish(),
});
const list = z.looseObject({ metadata: z.looseObject({ resourceVersion: z.string() }), items: z.array(slice) });
const event = z.looseObject({ type: z.string(), object: z.unknown() });

/** Between two tries after the API server failed; doubles up to the second. */
const firstPauseMs = 500;
const longestPauseMs = 30_000;

/** The API server ends a watch by itself sooner; one that is silent for this long is dead. */
const watchTimeoutSeconds = 300;

/** A line of a watch is one slice of at most 1,000 endpoints. */
const maxLineLength = 2 ** 20;

/**
 * Follows the EndpointSlices of a Service: a list, then a watch from its version on, again after each end. This and a
 * pod's token are all that the gateway needs of Kubernetes, so it brings no client library.
 */
export async function watchEndpointSlices(options: Options, { onChange, signal, log }: WatchOptions): Promise<void> {
  let pauseMs = firstPauseMs;
  while (!signal.aborted) {
    const dispatcher = await dispatcherFor(options);
    try {
      const slices = new Map<string, readonly string[]>();
      const first = list.parse(await (await call(options, { dispatcher, query: {}, signal })).body.json());
      for (const item of first.items) slices.set(item.metadata.name, urlsOf(item, options));
      onChange([...slices.values()].flat());
      pauseMs = firstPauseMs;
      await follow(options, { dispatcher, slices, version: first.metadata.resourceVersion, onChange, signal });
    } catch (thrown) {
      if (signal.aborted) return;
      log.warn({ service: options.service, err: thrown }, "EndpointSlices cannot be watched; trying again");
      await delay(pauseMs, undefined, { signal, ref: false }).catch(() => undefined);
      pauseMs = Math.min(longestPauseMs, 2 * pauseMs);
    } finally {
      await dispatcher.destroy();
    }
  }
}

interface Following {
  readonly dispatcher: Agent;
  readonly slices: Map<string, readonly string[]>;
  readonly version: string;
  readonly onChange: (urls: readonly string[]) => void;
  readonly signal: AbortSignal;
}

async function follow(options: Options, { slices, version, onChange, ...rest }: Following): Promise<void> {
  const query = { watch: "1", resourceVersion: version, timeoutSeconds: String(watchTimeoutSeconds) };
  const { body } = await call(options, { ...rest, query });
  let pending = "";
  const decoder = new TextDecoder();
  for await (const chunk of body) {
    const lines = (pending + decoder.decode(chunk, { stream: true })).split("\n");
    pending = lines.pop() ?? "";
    if (pending.length > maxLineLength) throw new Error("a line of the watch has no end");
    for (const line of lines) {
      if (line.trim() === "") continue;
      const { type, object } = event.parse(JSON.parse(line));
      // Mostly that the version is too old (410): list again.
      if (type === "ERROR") return;
      if (type === "BOOKMARK") continue;
      const changed = slice.parse(object);
      if (type === "DELETED") slices.delete(changed.metadata.name);
      else slices.set(changed.metadata.name, urlsOf(changed, options));
      onChange([...slices.values()].flat());
    }
  }
}

function urlsOf({ endpoints, ports }: z.infer<typeof slice>, { port }: Options): string[] {
  const number = port ?? ports?.[0]?.port;
  if (number === undefined || number === null) return [];
  return (endpoints ?? [])
    .filter(({ conditions }) => conditions?.ready !== false)
    .flatMap(({ addresses }) => addresses.slice(0, 1))
    .map((address) => `http://${address.includes(":") ? `[${address}]` : address}:${number}`);
}

async function dispatcherFor({ credentialsDirectory }: Options): Promise<Agent> {
  const ca = await readFile(join(credentialsDirectory, "ca.crt"), "utf8").catch(() => undefined);
  return new Agent({ connect: ca === undefined ? {} : { ca }, bodyTimeout: (watchTimeoutSeconds + 30) * 1_000 });
}

async function call(
  options: Options,
  about: { dispatcher: Agent; query: Record<string, string>; signal: AbortSignal },
): Promise<Awaited<ReturnType<typeof request>>> {
  const { apiUrl, namespace, service, credentialsDirectory } = options;
  // Kubernetes renews the token in its file.
  const token = (await readFile(join(credentialsDirectory, "token"), "utf8")).trim();
  const url = new URL(`/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`, apiUrl);
  url.searchParams.set("labelSelector", `kubernetes.io/service-name=${service}`);
  for (const [name, value] of Object.entries(about.query)) url.searchParams.set(name, value);
  const answer = await request(url, {
    dispatcher: about.dispatcher,
    signal: about.signal,
    headers: { authorization: `Bearer ${token}`, accept: "application/json" },
  });
  if (answer.statusCode === 200) return answer;
  await answer.body.dump();
  throw new Error(`the API server answered ${answer.statusCode}`);
}
