import { expect, test } from "vitest";
import { engineEnvOf, isProxied, streamEnvOf } from "../../runtime/agent/environment.ts";

test("engines see what they need and no credential", () => {
  const env = {
    PATH: "/bin",
    CUDA_VISIBLE_DEVICES: "0",
    GGML_CUDA_ENABLE_UNIFIED_MEMORY: "1",
    NCCL_SOCKET_IFNAME: "eth0",
    OPAL_PREFIX: "/opt/hpcx",
    HF_TOKEN: "x",
    AWS_SECRET_ACCESS_KEY: "x",
    AZURE_CLIENT_SECRET: "x",
    PENSTOCK_API_KEY: "x",
    DATABASE_PASSWORD: "x",
    LANG: undefined,
  };
  expect(engineEnvOf(env)).toEqual({
    PATH: "/bin",
    CUDA_VISIBLE_DEVICES: "0",
    GGML_CUDA_ENABLE_UNIFIED_MEMORY: "1",
    NCCL_SOCKET_IFNAME: "eth0",
    OPAL_PREFIX: "/opt/hpcx",
  });
});

test("an engine that reads a blob store gets the node's identity, and no static key", () => {
  const env = {
    AWS_REGION: "eu-north-1",
    AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://169.254.170.23/v1/credentials",
    AWS_ACCESS_KEY_ID: "x",
    AWS_SECRET_ACCESS_KEY: "x",
    AZURE_CLIENT_ID: "id",
    AZURE_CLIENT_SECRET: "x",
    AZURE_STORAGE_CONNECTION_STRING: "x",
  };
  expect(Object.keys(streamEnvOf(env))).toEqual([
    "AWS_REGION",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AZURE_CLIENT_ID",
  ]);
});

test.each([
  [{ HTTPS_PROXY: "http://proxy:3128" }, true],
  [{ all_proxy: "socks5://proxy" }, true],
  [{ HTTPS_PROXY: "" }, false],
  [{ NO_PROXY: "x" }, false],
])("a proxy in %j: %s", (env, proxied) => {
  expect(isProxied(env)).toBe(proxied);
});
