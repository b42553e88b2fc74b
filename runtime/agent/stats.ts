import type { Heartbeat } from "../contracts/agent.ts";
import type { Node } from "./node.ts";

/** What an engine said last, in `/stats`. */
const shownLines = 20;

/** `GET /stats`: the heartbeat, and what a person wants to know beside it. */
export interface AgentStats extends Heartbeat {
  readonly uptime_seconds: number;
  readonly resident_bytes: number;
  readonly cached: readonly {
    readonly key: string;
    readonly source: string;
    readonly model_ids: readonly string[];
    readonly size_bytes: number;
    readonly last_used_at: string;
    readonly pinned: boolean;
    readonly in_use: boolean;
  }[];
  /** Last lines of each engine's output, by model. */
  readonly engine_output: Readonly<Record<string, readonly string[]>>;
}

/** Reads the statistics of a node. */
export async function statsOf(node: Node): Promise<AgentStats> {
  return {
    ...(await node.heartbeat()),
    uptime_seconds: Math.round(process.uptime()),
    resident_bytes: process.memoryUsage.rss(),
    cached: node.cache.list().map((entry) => ({
      key: entry.key,
      source: entry.source,
      model_ids: entry.modelIds,
      size_bytes: entry.sizeBytes,
      last_used_at: entry.lastUsedAt.toISOString(),
      pinned: entry.pinned,
      in_use: entry.inUse,
    })),
    engine_output: Object.fromEntries(
      node.lifecycle.records.flatMap(({ id, engine }) =>
        engine === null ? [] : [[id, engine.output.tail(shownLines)]],
      ),
    ),
  };
}
