import { describe, expect, test } from "vitest";
import { gpuPackages } from "../../runtime/embedded/install-gpu.ts";
import { helpText, parseCommand } from "../../runtime/embedded/options.ts";

describe("the engine's command line", () => {
  test("has the documented defaults", () => {
    expect(parseCommand(["--model-path", "/models/a.b.gguf"])).toEqual({
      kind: "serve",
      options: {
        modelPath: "/models/a.b.gguf",
        host: "127.0.0.1",
        port: 8082,
        nCtx: 4096,
        nGpuLayers: 999,
        maxConcurrentRequests: 10,
        maxQueue: 20,
        parallel: 4,
        threads: undefined,
        servedModelName: "a.b",
        loras: [],
        memory: "lazy",
        apiKey: undefined,
        drainSeconds: 30,
        logLevel: "info",
        stopWithStdin: false,
      },
    });
  });

  test("takes every option", () => {
    const argv =
      "--model-path m.gguf --host 0.0.0.0 --port 1 --n-ctx 512 --n-gpu-layers 0 --max-concurrent-requests 3 --max-queue 0 --parallel 2 --threads 5 --served-model-name x/y --lora a=/l/a.gguf --lora b=c=d --memory eager --api-key k --drain-seconds 0 --log-level debug --stop-with-stdin";
    expect(parseCommand(argv.split(" "))).toMatchObject({
      kind: "serve",
      options: {
        port: 1,
        maxQueue: 0,
        threads: 5,
        servedModelName: "x/y",
        loras: [
          { name: "a", path: "/l/a.gguf" },
          { name: "b", path: "c=d" },
        ],
        memory: "eager",
        apiKey: "k",
        drainSeconds: 0,
        stopWithStdin: true,
      },
    });
  });

  test("tells every problem at once", () => {
    const command = parseCommand([
      "--port",
      "http",
      "--n-ctx",
      "1",
      "--colour",
      "--memory",
      "swap",
      "--lora",
      "x",
      "y",
    ]);
    expect(command).toEqual({
      kind: "wrong",
      problems: [
        "--colour: is not an option of the engine; see --help",
        "y: is not an option; options begin with --",
        "--model-path: is required: the GGUF file to serve",
        "--port: must be a whole number",
        "--n-ctx: must be from 64 to 10000000",
        "--lora: must be name=path, such as --lora pirate=/models/pirate.gguf",
        "--memory: must be lazy or eager",
      ],
    });
  });

  test.each([
    [["--model-path"], "--model-path: needs a value"],
    [["--model-path", "a", "--stop-with-stdin=yes"], "--stop-with-stdin: takes no value"],
    [["--model-path", "a", "--lora", "a=b", "--lora", "a=c"], "--lora: names an adapter twice"],
    [["--model-path", "a", "--lora", "../x=b"], "--lora: must be name=path, such as --lora pirate=/models/pirate.gguf"],
    [["--model-path", "a", "--port", "65536"], "--port: must be from 0 to 65535"],
    [["install"], "install: --gpu must be cuda or vulkan"],
    [["install", "--gpu", "metal"], "install: --gpu must be cuda or vulkan"],
    [["install", "--gpu", "cuda", "now"], "install: takes only --gpu cuda or --gpu vulkan"],
  ])("%j is refused", (argv, problem) => {
    expect(parseCommand(argv)).toEqual({ kind: "wrong", problems: [problem] });
  });

  test("help names every option", () => {
    expect(parseCommand(["--help"])).toEqual({ kind: "help" });
    expect(parseCommand(["-v"])).toEqual({ kind: "version" });
    for (const name of ["model-path", "n-ctx", "max-queue", "parallel", "lora", "memory", "stop-with-stdin"]) {
      expect(helpText).toContain(`--${name}`);
    }
  });
});

describe("GPU builds", () => {
  test.each([
    ["linux-x64", "cuda", ["linux-x64-cuda", "linux-x64-cuda-ext"]],
    ["linux-x64", "vulkan", ["linux-x64-vulkan"]],
    ["win32-x64", "cuda", ["win-x64-cuda", "win-x64-cuda-ext"]],
    ["win32-x64", "vulkan", ["win-x64-vulkan"]],
  ] as const)("%s %s", (platform, build, packages) => {
    expect(gpuPackages(platform, build)).toEqual(packages);
  });

  test("a platform without one says so", () => {
    expect(() => gpuPackages("darwin-arm64", "cuda")).toThrow("Metal is installed already");
    expect(() => gpuPackages("linux-arm64", "vulkan")).toThrow("no vulkan build of llama.cpp for linux-arm64");
  });
});
