/**
 * This gateway with everything on that a tenant's request meets: a key, limits, a budget and prices, routing, metering
 * to a file, and metrics. `node test/bench/gateway-ours.ts <agent url> <usage file>` prints `{"url": ...}`.
 */
import { engineSpec } from "../../runtime/contracts/engine.ts";
import { tenant } from "../../runtime/contracts/tenant.ts";
import { startGateway } from "../../runtime/gateway/gateway.ts";
import { createLog } from "../../runtime/lib/log.ts";
import { model } from "./gateway-messages.ts";

const [agentUrl = "", usageFile = "", apiKey = ""] = process.argv.slice(2);
const plenty = 1e9;

const gateway = await startGateway(
  {
    listen: { host: "127.0.0.1", port: 0 },
    apiKey,
    tenants: [
      tenant.parse({
        id: "default",
        limits: {
          requestsPerMinute: plenty,
          tokensPerMinute: plenty * 1_000,
          concurrentRequests: plenty,
          budget: { usd: plenty },
        },
      }),
    ],
    prices: { [model]: { perMillionPromptTokens: 0.15, perMillionCompletionTokens: 0.6 } },
    usageFile,
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
