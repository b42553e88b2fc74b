import { expect, test } from "vitest";
import { banner } from "../../runtime/local/banner.ts";
import { idOf, parseOptions, sourceOf } from "../../runtime/local/options.ts";
import { formatBytes } from "../../runtime/lib/bytes.ts";
import { progressLine } from "../../runtime/local/progress.ts";
import { modelId } from "../../runtime/contracts/model.ts";

test.each([
  ["hf://Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf", "Qwen3-0.6B-Q8_0"],
  ["https://host/a/b%20c.gguf?sig=x", "b-c"],
  ["s3://bucket/models/big-00001-of-00009.gguf", "big"],
  ["az://account/container/folder/", "folder"],
  ["file:///tmp/..gguf", "model"],
  ["file:///tmp/%2e%2e%2fpasswd.gguf", "passwd"],
])("the id of %s is %s", (source, id) => {
  expect(idOf(source)).toBe(id);
  expect(modelId.safeParse(idOf(source)).success).toBe(true);
});

test("a source is a path or a URI that an agent understands", () => {
  expect(sourceOf("hf://org/repo/file.gguf")).toBe("hf://org/repo/file.gguf");
  expect(sourceOf("runtime/demo/blobs")).toMatch(/^file:\/\/\/.*blobs$/);
  expect(() => sourceOf("gs://bucket/x.gguf")).toThrow("unknown kind");
  expect(() => sourceOf("package.json")).toThrow("not a .gguf file");
});

test("every wrong option is named at once", () => {
  expect(() => parseOptions(["--port", "x", "--log-level", "y", "--model", "gs://z"])).toThrow(
    /--port: x.*\n--log-level: use one of.*\n--model: gs:\/\/z/,
  );
});

test("progress is a line that people can read", () => {
  const progress = {
    model_id: "m",
    phase: "download" as const,
    bytes_done: 42e6,
    bytes_total: 100e6,
    bytes_per_second: 9.5e6,
    eta_seconds: 6.1,
  };
  expect(progressLine(progress)).toBe("Downloading  [##########..............]   42 %  of 100 MB  9.5 MB/s  7 s left");
  expect([0, 999, 1000, 4_200_000, 70e9].map(formatBytes)).toEqual(["0 B", "999 B", "1.0 kB", "4.2 MB", "70.0 GB"]);
});

test("the banner names the URL, the key and the model", () => {
  const text = banner({ url: "http://127.0.0.1:8080", apiKey: "k-1", models: ["m", "n"] });
  for (const part of ["http://127.0.0.1:8080/v1", "k-1", "m, n", '"model":"m"']) expect(text).toContain(part);
});
