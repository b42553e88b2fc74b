import { once } from "node:events";
import { AwsNotices } from "./aws.ts";
import { AzureNotices } from "./azure.ts";
import type { ReclaimNotice, ReclaimNotices, ReclaimOptions } from "./notices.ts";

/** Where notices may come from. `auto` finds out at the start; `none` is a machine that nobody takes back. */
export type ReclaimSource = "aws" | "azure" | "auto" | "none";

/** The notices of `source`. */
export function reclaimNotices(source: ReclaimSource, options: ReclaimOptions): ReclaimNotices {
  return sources[source](options);
}

const sources = {
  aws: (options) => new AwsNotices(options),
  azure: (options) => new AzureNotices(options),
  auto: (options) => new AutoNotices(options),
  none: () => noNotices,
} satisfies Record<ReclaimSource, (options: ReclaimOptions) => ReclaimNotices>;

const noNotices: ReclaimNotices = {
  async watch(_onNotice, signal) {
    if (!signal.aborted) await once(signal, "abort");
  },
};

/** How long a cloud may take to show itself: its metadata service is on the host and answers in milliseconds. */
const probeTimeoutMs = 1_000;

/** Asks both clouds once whether this is one of their machines, and listens to the one that says so. */
class AutoNotices implements ReclaimNotices {
  readonly #options: ReclaimOptions;

  constructor(options: ReclaimOptions) {
    this.#options = options;
  }

  async watch(onNotice: (notice: ReclaimNotice) => void, signal: AbortSignal): Promise<void> {
    const probe = { ...this.#options, timeoutMs: Math.min(probeTimeoutMs, this.#options.timeoutMs ?? probeTimeoutMs) };
    const [aws, azure] = await Promise.all([
      new AwsNotices(probe).answers(signal),
      new AzureNotices(probe).answers(signal),
    ]);
    const found = aws ? "aws" : azure ? "azure" : "none";
    this.#options.log.info({ cloud: found }, "cloud that reclaim notices are expected from");
    await reclaimNotices(found, this.#options).watch(onNotice, signal);
  }
}
