import { setImmediate as nextTurn, setTimeout as delay } from "node:timers/promises";
import type { Batch, Sequence, SequenceWork } from "./scheduler.ts";

/** Simulated time: all waiting is divided by `speed`; at speed 0 nothing waits at all. */
export interface Clock {
  readonly speed: number;
}

/** Waits `simulatedMs` of the clock. */
export async function waitOn(clock: Clock, simulatedMs: number): Promise<void> {
  if (clock.speed === 0 || simulatedMs <= 0) await nextTurn();
  else await delay(simulatedMs / clock.speed);
}

/** Knobs that faults turn while the loop runs. */
export interface Drag {
  /** Multiplies the time of a step. */
  readonly slowFactor: number;
  /** ms of real time on top of each step, whatever the clock's speed. */
  readonly stepDelayMs: number;
}

/** Runs a batch step by step in simulated time, as long as there is work. */
export class GpuLoop {
  readonly #batch: Batch;
  readonly #clock: Clock;
  readonly #drag: () => Drag;
  #busy = false;
  #stopped = false;

  constructor(batch: Batch, clock: Clock, drag: () => Drag) {
    this.#batch = batch;
    this.#clock = clock;
    this.#drag = drag;
  }

  submit(work: SequenceWork): Sequence {
    const sequence = this.#batch.add(work);
    if (!this.#busy) void this.#run();
    return sequence;
  }

  /** Ends everything that runs or waits with `abort`. */
  abortAll(): void {
    for (const sequence of [...this.#batch.running, ...this.#batch.waiting]) this.#batch.abort(sequence);
  }

  abort(sequence: Sequence): void {
    this.#batch.abort(sequence);
  }

  /** The virtual GPU is gone: nothing is heard from it any more. */
  stop(): void {
    this.#stopped = true;
  }

  async #run(): Promise<void> {
    this.#busy = true;
    // Steps end on a grid of absolute times, so that a late timer does not slow the GPU down.
    let due = performance.now();
    // Requests that came in the same turn share the first step.
    await nextTurn();
    for (let step = this.#batch.plan(); step !== null && !this.#stopped; step = this.#batch.plan()) {
      const drag = this.#drag();
      const stepMs = this.#clock.speed === 0 ? 0 : (step.ms * drag.slowFactor) / this.#clock.speed;
      due = Math.max(due + stepMs + drag.stepDelayMs, performance.now() - 1_000);
      const waitMs = due - performance.now();
      await (waitMs >= 1 ? delay(waitMs) : nextTurn());
      this.#batch.complete(step);
    }
    this.#busy = false;
  }
}
