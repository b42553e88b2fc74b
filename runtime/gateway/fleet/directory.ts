import { lookup } from "node:dns/promises";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import type { Logger } from "../../lib/log.ts";
import { watchEndpointSlices } from "./endpoint-slices.ts";

const seconds = z.number().positive().max(3_600);

/** Where the agents of a fleet are found. */
export const directoryOptions = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("static"), urls: z.array(z.url({ protocol: /^https?$/ })).min(1) }),
  /** A name with an address for each agent: a headless Service in Kubernetes. */
  z.strictObject({
    kind: z.literal("dns"),
    host: z.string().min(1),
    port: z.int().min(1).max(65_535),
    intervalSeconds: seconds.default(5),
  }),
  /** EndpointSlices of a Service, watched through the API server that the pod can reach. */
  z.strictObject({
    kind: z.literal("kubernetes"),
    namespace: z.string().regex(/^[a-z0-9-]{1,63}$/),
    service: z.string().regex(/^[a-z0-9-]{1,63}$/),
    /** Port of the agents; default: the slice's first. */
    port: z.int().min(1).max(65_535).optional(),
    apiUrl: z.url().default("https://kubernetes.default.svc"),
    /** Where Kubernetes mounts a pod's credentials. */
    credentialsDirectory: z.string().default("/var/run/secrets/kubernetes.io/serviceaccount"),
  }),
]);
export type DirectoryOptions = z.infer<typeof directoryOptions>;

/** How a directory works. */
export interface WatchOptions {
  /** Called with all URLs at the start and after each change. */
  readonly onChange: (urls: readonly string[]) => void;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/**
 * Follows a directory until `signal` aborts. One that cannot be read for a while keeps what it said last: agents that are
 * really gone show by their heartbeats.
 */
export async function watchDirectory(options: DirectoryOptions, watch: WatchOptions): Promise<void> {
  switch (options.kind) {
    case "static":
      watch.onChange(options.urls);
      return;
    case "dns":
      return watchDns(options, watch);
    case "kubernetes":
      return watchEndpointSlices(options, watch);
  }
}

async function watchDns(
  { host, port, intervalSeconds }: Extract<DirectoryOptions, { kind: "dns" }>,
  { onChange, signal, log }: WatchOptions,
): Promise<void> {
  let known: string | undefined;
  while (!signal.aborted) {
    try {
      const addresses = await lookup(host, { all: true });
      const urls = addresses.map(({ address, family }) => `http://${family === 6 ? `[${address}]` : address}:${port}`);
      const now = urls.toSorted().join(" ");
      if (now !== known) onChange(urls);
      known = now;
    } catch (thrown) {
      const gone = thrown instanceof Error && "code" in thrown && thrown.code === "ENOTFOUND";
      // A headless Service without a pod has no address: that is an answer, and not a failure.
      if (gone && known !== "") onChange([]);
      if (gone) known = "";
      else log.warn({ host, err: thrown }, "the agents' name cannot be looked up");
    }
    await delay(intervalSeconds * 1_000, undefined, { signal, ref: false }).catch(() => undefined);
  }
}
