import type { UsageCounters } from "./counters.ts";
import { costOf, type PriceTable } from "./prices.ts";
import type { UsageOutcome, UsageRecord } from "./record.ts";
import { UsageTap } from "./tap.ts";

/** What is known of a request when its body has been read. */
export type Opening = Pick<
  UsageRecord,
  "requestId" | "tenant" | "credentialId" | "model" | "adapter" | "endpoint" | "class"
> & {
  /** `performance.now()` when the request arrived. */
  readonly arrivedMs: number;
  /** What the prompt was reserved at: it stands where the engine does not tell. */
  readonly estimatedPromptTokens: number;
  /** See `JsonCall`; false for a form. */
  readonly hidesUsage: boolean;
};

/** How a request ended. */
export interface Ending {
  readonly outcome: UsageOutcome;
  readonly status: number;
}

/** Where settled records go; a `UsageWriter` is one. */
export interface UsageOutlet {
  write(record: UsageRecord): void;
}

export interface MeteringOptions {
  /** Read anew for each request, so that prices may change. */
  readonly prices: () => PriceTable;
  readonly counters: UsageCounters;
  readonly outlets: readonly UsageOutlet[];
}

/** Measures requests and writes down what each cost. */
export class Metering {
  readonly #options: MeteringOptions;

  constructor(options: MeteringOptions) {
    this.#options = options;
  }

  /** Opens the account of one request. Keep it with `using`, so that it is settled whatever happens. */
  open(opening: Opening): Account {
    return new Account(opening, this.#options);
  }
}

/** The account of one request, settled exactly once. */
export class Account implements Disposable {
  /** Goes into the relay. */
  readonly tap: UsageTap;
  /** The replica that the request was last sent to. */
  replica: string | null = null;
  /** Who answers in place of a replica, and what that costs, by model. */
  provider: { readonly name: string; readonly prices: PriceTable } | null = null;
  /** Set by whoever waited for a replica to start because of this request. */
  coldStartSeconds = 0;
  readonly #opening: Opening;
  readonly #options: MeteringOptions;
  #settled: UsageRecord | null = null;

  constructor(opening: Opening, options: MeteringOptions) {
    this.#opening = opening;
    this.#options = options;
    this.tap = new UsageTap(opening.hidesUsage);
  }

  /** Writes down how the request ended. Only the first call counts; later ones return what that wrote. */
  settle({ outcome, status }: Ending): UsageRecord {
    if (this.#settled !== null) return this.#settled;
    const opening = this.#opening;
    const { arrivedMs } = opening;
    const { tokens, estimated, firstByteMs } = this.tap.seen(opening.estimatedPromptTokens);
    const record: UsageRecord = {
      time: isoTime(Date.now()),
      // One by one: to spread what is left of an object costs a multiple.
      requestId: opening.requestId,
      tenant: opening.tenant,
      credentialId: opening.credentialId,
      model: opening.model,
      adapter: opening.adapter,
      endpoint: opening.endpoint,
      class: opening.class,
      promptTokens: tokens.prompt,
      cachedTokens: tokens.cached,
      completionTokens: tokens.completion,
      audioSeconds: tokens.audioSeconds,
      estimated,
      durationMs: performance.now() - arrivedMs,
      ttftMs: firstByteMs === null ? null : firstByteMs - arrivedMs,
      outcome,
      status,
      replica: this.replica,
      provider: this.provider?.name ?? null,
      costUsd: costOf(this.provider?.prices ?? this.#options.prices(), opening, tokens),
      coldStartSeconds: this.coldStartSeconds,
    };
    this.#settled = record;
    this.#options.counters.record(record);
    for (const outlet of this.#options.outlets) outlet.write(record);
    return record;
  }

  /** Settles a request that nobody settled: it failed before an answer. */
  [Symbol.dispose](): void {
    this.settle({ outcome: "refused", status: 500 });
  }
}

let lastIso = { ms: 0, text: "" };

/** A time in ISO 8601. The last one is kept: on a busy gateway several requests end in one millisecond. */
function isoTime(ms: number): string {
  if (ms !== lastIso.ms) lastIso = { ms, text: new Date(ms).toISOString() };
  return lastIso.text;
}
