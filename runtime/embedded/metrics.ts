import { Counter, Gauge, Histogram, Registry } from "prom-client";

const prefix = "penstock_engine_";
const firstTokenSeconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const betweenTokensSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1];
const requestSeconds = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** What is read when somebody asks. */
export interface GaugeReadings {
  readonly running: number;
  readonly waiting: number;
  /** Share of the KV cache that holds tokens, 0 to 1. */
  readonly kvUsage: number;
  /** Tokens that fit in the KV cache. */
  readonly kvTokens: number;
}

/** The engine's Prometheus metrics. They hold counts and times, never text. */
export class EngineMetrics {
  readonly #registry = new Registry();
  readonly #running = this.#gauge("requests_running", "Requests that the engine works on.");
  readonly #waiting = this.#gauge("requests_waiting", "Requests that wait for their turn.");
  readonly #kvUsage = this.#gauge("kv_cache_usage_ratio", "Share of the KV cache that holds tokens, 0 to 1.");
  readonly #kvTokens = this.#gauge("kv_cache_capacity_tokens", "Tokens that fit in the KV cache.");
  readonly #memory = this.#gauge("process_resident_memory_bytes", "Resident memory of the engine process.");
  readonly promptTokens = this.#counter("prompt_tokens_total", "Prompt tokens of all requests.");
  readonly cachedTokens = this.#counter("cached_prompt_tokens_total", "Prompt tokens that were in the KV cache.");
  readonly generatedTokens = this.#counter("generation_tokens_total", "Tokens that were generated.");
  readonly firstToken = this.#histogram(
    "time_to_first_token_seconds",
    "From request to first token.",
    firstTokenSeconds,
  );
  readonly betweenTokens = this.#histogram(
    "inter_token_latency_seconds",
    "Between two tokens of a text.",
    betweenTokensSeconds,
  );
  readonly requests = new Histogram({
    name: `${prefix}request_seconds`,
    help: "From request to end, by how it ended.",
    labelNames: ["outcome"] as const,
    buckets: requestSeconds,
    registers: [this.#registry],
  });

  /** The text of `/metrics`. */
  async text(readings: GaugeReadings): Promise<string> {
    this.#running.set(readings.running);
    this.#waiting.set(readings.waiting);
    this.#kvUsage.set(readings.kvUsage);
    this.#kvTokens.set(readings.kvTokens);
    this.#memory.set(process.memoryUsage.rss());
    return await this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  #gauge(name: string, help: string): Gauge {
    return new Gauge({ name: prefix + name, help, registers: [this.#registry] });
  }

  #counter(name: string, help: string): Counter {
    return new Counter({ name: prefix + name, help, registers: [this.#registry] });
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name: prefix + name, help, buckets, registers: [this.#registry] });
  }
}
