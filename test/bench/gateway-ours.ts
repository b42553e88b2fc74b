/**
 * This gateway with everything on that a tenant's request meets: a key of the record store, limits, a budget and prices,
 * routing, metering into the record store, and metrics.
 * `node test/bench/gateway-ours.ts <agent url> <folder> <key as JSON>` prints `{"url": ...}`.
 */
import { mkdirSync, mkdtempSync } from "node:fs";
import { join } from "node:path";
import { engineSpec } from "../../runtime/contracts/engine.ts";
import { tenant } from "../../runtime/contracts/tenant.ts";
import { startGateway } from "../../runtime/gateway/gateway.ts";
import type { NewApiKey } from "../../runtime/gateway/identity/api-key.ts";
import { openRecordStore } from "../../runtime/gateway/stores/index.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { model } from "./gateway-messages.ts";

const [agentUrl = "", folder = "", keyJson = ""] = process.argv.slice(2);
const { id, prefix, hash } = JSON.parse(keyJson) as NewApiKey; // what the bench made
const plenty = 1e9;

const buyer = tenant.parse({
  id: "bench",
  limits: {
    requestsPerMinute: plenty,
    tokensPerMinute: plenty * 1_000,
    concurrentRequests: plenty,
    budget: { usd: 1e6 },
  },
});

mkdirSync(folder, { recursive: true });
const own = mkdtempSync(join(folder, "penstock-"));
const record = { kind: "sqlite", file: join(own, "records.sqlite") } as const;
{
  await using records = await openRecordStore(record, () => undefined);
  await records.putTenant(buyer);
  await records.addKey({
    id,
    prefix,
    hash,
    tenant: buyer.id,
    name: "bench",
    isAdmin: false,
    createdMs: Date.now(),
    expiresMs: null,
    revokedMs: null,
    lastUsedMs: null,
  });
}
const gateway = await startGateway(
  {
    listen: { host: "127.0.0.1", port: 0 },
    apiKey: null,
    stores: { hot: { kind: "memory", file: join(own, "limits.sqlite") }, record },
    prices: { [model]: { perMillionPromptTokens: 0.15, perMillionCompletionTokens: 0.6 } },
    fleets: [{ name: "bench", agents: { kind: "static", urls: [agentUrl] } }],
    agentToken: "bench-agent-token",
    models: [
      {
        spec: { id: model, source: "file:///m.gguf", format: "gguf", adapters: [] },
        engine: engineSpec.parse({ kind: "embedded" }),
        fleet: "bench",
        warm: false,
      },
    ],
    hold: { maxRequests: 1_000, maxBytes: 64 * 2 ** 20, maxSeconds: 30 },
    maxBodyBytes: 16 * 2 ** 20,
    firstByteTimeoutMs: 600_000,
    betweenBytesTimeoutMs: 600_000,
    drainTimeoutMs: 0,
  },
  createLog("gateway", "error"),
);
process.on("SIGTERM", () => void gateway.stop().then(() => process.exit(0)));
process.stdout.write(`${JSON.stringify({ url: gateway.url })}\n`);
