import { expect, test } from "vitest";
import { engineEnvOf } from "../../runtime/agent/engine-env.ts";

test("engines see what they need and no credential", () => {
  const env = {
    PATH: "/bin",
    CUDA_VISIBLE_DEVICES: "0",
    GGML_CUDA_ENABLE_UNIFIED_MEMORY: "1",
    HF_TOKEN: "x",
    AWS_SECRET_ACCESS_KEY: "x",
    AZURE_CLIENT_SECRET: "x",
    PENSTOCK_API_KEY: "x",
    DATABASE_PASSWORD: "x",
    LANG: undefined,
  };
  expect(engineEnvOf(env)).toEqual({ PATH: "/bin", CUDA_VISIBLE_DEVICES: "0", GGML_CUDA_ENABLE_UNIFIED_MEMORY: "1" });
});
