import { describe, expect, it } from "vitest";
import { createSource } from "../../../runtime/agent/sources/index.ts";
import { lacking } from "../../support/servers/tools.ts";
import { failureOf } from "../sources.contract.ts";
import { nginxServer } from "./servers.ts";

const never = new AbortController().signal;

describe.skipIf(lacking("nginx", "openssl") !== undefined)("nginx over TLS", () => {
  it("is not read while nobody trusts who signed its certificate", async () => {
    await using server = await nginxServer({ tls: true, trusted: false });
    await using store = await server.open();
    await store.put("m.gguf", Buffer.from("model"));
    const error = await failureOf(createSource(store.uri("m.gguf")).list(never));
    expect(error.code).toBe("source_failed");
    expect(error.message).toContain("UNABLE_TO_VERIFY_LEAF_SIGNATURE");
  });

  it("is read once its authority is trusted", async () => {
    await using server = await nginxServer({ tls: true });
    await using store = await server.open();
    await store.put("m.gguf", Buffer.from("model"));
    expect(await createSource(store.uri("m.gguf")).list(never)).toMatchObject([{ path: "m.gguf", ranges: true }]);
  });
});
