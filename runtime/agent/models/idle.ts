import { toPenstockError } from "../../contracts/errors.ts";
import { engineOf } from "../../engines/index.ts";
import type { Logger } from "../../lib/log.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { ModelRecord } from "./record.ts";
import type { LowerTier } from "./tiers.ts";

/** Idle times are told in seconds. */
const tickMs = 1_000;

/** A model that could not be taken down is left alone for this long. */
const pauseMs = 60_000;

/** Takes models down that nobody has asked anything for a while. On the monotonic clock: a clock that jumps wakes nobody. */
export class IdleTimer implements Disposable {
  readonly #lifecycle: Lifecycle;
  readonly #log: Logger;
  readonly #paused = new WeakMap<ModelRecord, number>();
  readonly #timer: NodeJS.Timeout;

  constructor(lifecycle: Lifecycle, log: Logger) {
    this.#lifecycle = lifecycle;
    this.#log = log;
    this.#timer = setInterval(() => this.#tick(), tickMs).unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    const now = performance.now();
    for (const record of this.#lifecycle.records) {
      if ((this.#paused.get(record) ?? 0) > now) continue;
      const to = dueTier(record, now);
      if (to === null) continue;
      this.#paused.set(record, now + pauseMs);
      void this.#takeDown(record, to);
    }
  }

  async #takeDown(record: ModelRecord, to: LowerTier): Promise<void> {
    try {
      await this.#lifecycle.unload(record.id, to);
      this.#paused.delete(record);
      this.#log.info({ model: record.id, to }, "idle model was taken down");
    } catch (thrown) {
      const { message } = toPenstockError(thrown);
      this.#log.warn({ model: record.id, to, reason: message }, "idle model could not be taken down");
    }
  }
}

/** Where an idle model belongs now; null when it stays. */
export function dueTier(record: ModelRecord, nowMs: number): LowerTier | null {
  if (record.engine === null || record.running > 0 || record.transition !== null) return null;
  const idleSeconds = (nowMs - record.lastUsedMs) / 1_000;
  const { sleep_after_seconds: sleepAfter, unload_after_seconds: unloadAfter } = record.idle;
  if (unloadAfter !== null && idleSeconds >= unloadAfter) return "NVME_CACHED";
  const canSleep = record.state === "READY" && engineOf(record.engineSpec).sleep(record.engineSpec, record.id) !== null;
  return canSleep && sleepAfter !== null && idleSeconds >= sleepAfter ? "DRAM_CACHED" : null;
}
