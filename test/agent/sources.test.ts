import { chmod, mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { stdSerializers } from "pino";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { listWithChecksums } from "../../runtime/agent/sources/checksums.ts";
import { createSource } from "../../runtime/agent/sources/index.ts";
import type { SourceOptions } from "../../runtime/agent/sources/source.ts";
import { identityOf, safeUri } from "../../runtime/agent/sources/uri.ts";
import { patternedBytes, RangeServer, type Reply, type SeenRequest } from "../fakes/range-server.ts";
import { blobRoute, blobSum, hubCommit, hubRoute, s3Route, s3Sum } from "../fakes/range-server-stores.ts";
import { failureOf, read, send, sourceContract, type Store } from "./sources.contract.ts";

const never = new AbortController().signal;

/** A store of one dialect on the fault-injecting server, whose files lie under `base`. */
async function served(options: {
  route?: (request: SeenRequest, server: RangeServer) => Reply | undefined;
  base: string;
  uri: (path: string, origin: string) => string;
  sources: (origin: string) => SourceOptions;
}): Promise<Store & { server: RangeServer }> {
  const server = await RangeServer.start(options.route === undefined ? {} : { route: options.route });
  return {
    server,
    options: options.sources(server.url),
    uri: (path) => options.uri(path, server.url),
    put: async (path, body) => server.put(`${options.base}/${path}`, body),
    deny: async () => server.fail(Infinity, { kind: "status", status: 403 }),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

const openHttp = () =>
  served({
    base: "",
    uri: (path, origin) => `${origin.replace("://", "://user:secret@")}/${path}?sig=secret`,
    sources: () => ({}),
  });

const openHub = () =>
  served({
    base: "/org/repo",
    route: hubRoute,
    uri: (path) => `hf://org/repo/${path}@main`,
    sources: (hubEndpoint) => ({ hubEndpoint, hubToken: "secret-token" }),
  });

const openS3 = () =>
  served({
    base: "/bucket",
    route: s3Route,
    uri: (path) => `s3://bucket/${path}`,
    sources: (endpoint) => ({ s3: { endpoint, pathStyle: true } }),
  });

const openBlob = () =>
  served({
    base: "/account/container",
    route: blobRoute,
    uri: (path) => `az://account/container/${path}`,
    sources: (origin) => ({ azure: { endpoint: `${origin}/account`, sasToken: "sv=2026-01-01&sig=secret" } }),
  });

async function openDirectory(): Promise<Store> {
  const root = await mkdtemp(join(tmpdir(), "penstock-source-"));
  let writes = 0;
  return {
    options: {},
    uri: (path) => pathToFileURL(join(root, path)).href,
    put: async (path, body) => {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), body);
      // Two writes within one tick of the file system's clock would look like one.
      writes += 1;
      await utimes(join(root, path), 1_700_000_000, 1_700_000_000 + writes);
    },
    deny: async () => {
      await chmod(join(root, "models"), 0o000);
      // Root may read everything, so it becomes nobody for a while.
      if (process.getuid?.() === 0) process.seteuid?.(65_534);
    },
    [Symbol.asyncDispose]: async () => {
      if (process.getuid?.() === 0) process.seteuid?.(0);
      await chmod(join(root, "models"), 0o700).catch(() => undefined);
      await rm(root, { recursive: true, force: true });
    },
  };
}

beforeEach(() => {
  vi.stubEnv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", "secret");
  vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
});
afterEach(() => vi.unstubAllEnvs());

describe("file://", () => {
  sourceContract(openDirectory, {
    remedy: /user that runs the agent/,
    gaps: { ownChecksums: "a file system keeps none", direct: "what lies here needs no socket" },
  });

  it("follows links to files, as the hub's cache has them, but not to folders", async () => {
    await using store = await openDirectory();
    await store.put("blobs/abc", Buffer.from("weights"));
    await store.put("snapshot/config.json", Buffer.from("{}"));
    const snapshot = new URL(`${store.uri("snapshot")}/`);
    await symlink("../blobs/abc", new URL("model.safetensors", snapshot));
    await symlink("../blobs", new URL("folder", snapshot));
    await symlink("nowhere", new URL("dangling.json", snapshot));
    const error = await failureOf(createSource(store.uri("snapshot")).list(never));
    expect(error.code).toBe("source_not_found");
    await rm(new URL("dangling.json", snapshot));
    const files = await createSource(store.uri("snapshot")).list(never);
    expect(files.map((file) => file.path).toSorted()).toEqual(["config.json", "model.safetensors"]);
  });

  it("refuses another machine's file", () => {
    expect(() => createSource("file://server/share/model.gguf")).toThrow(/file:\/\/\/path/);
  });
});

describe("http://", () => {
  sourceContract(openHttp, {
    remedy: /user:password@/,
    gaps: {
      folders: "HTTP has no listing",
      sidecars: "each model would cost a request that mostly fails; the spec's sha256 serves",
      ownChecksums: "no common header",
    },
  });

  it("sends user and password as a header, to the first origin only", async () => {
    await using store = await openHttp();
    const other = await RangeServer.start();
    await using _ = other;
    other.put("/m.gguf", Buffer.from("model"));
    store.server.fail(1, { kind: "status", status: 307, headers: { location: `${other.url}/m.gguf` } });
    const [file] = await createSource(store.uri("m.gguf")).list(never);
    expect(file?.sizeBytes).toBe(5);
    expect(store.server.requests[0]?.headers.authorization).toBe(`Basic ${btoa("user:secret")}`);
    expect(other.requests[0]?.headers.authorization).toBeUndefined();
  });

  it("asks the first address again when the link behind its redirect has expired", async () => {
    await using server = await RangeServer.start({
      route: ({ path }, { requests }) =>
        path === "/m.gguf"
          ? { status: 302, headers: { location: `/signed-${requests.filter((r) => r.path === "/m.gguf").length}` } }
          : undefined,
    });
    server.put("/signed-1", Buffer.from("model"), '"v1"');
    server.put("/signed-2", Buffer.from("model"), '"v1"');
    const source = createSource(`${server.url}/m.gguf`);
    const [file] = await source.list(never);
    expect(file).toBeDefined();
    if (file === undefined) return;
    server.fail(1, { kind: "status", status: 403 }, ({ path }) => path === "/signed-1");
    expect((await read(source, { file, start: 1, end: 3 })).toString()).toBe("od");
    expect(server.requests.map((request) => request.path)).toEqual([
      "/m.gguf",
      "/signed-1",
      "/signed-1",
      "/m.gguf",
      "/signed-2",
    ]);
  });

  it.each([
    ["a loop", "/m.gguf", /redirects more than 5 times/],
    ["another protocol", "ftp://host/m.gguf", /redirects from https to something else/],
  ])("refuses a redirect to %s", async (_, location, words) => {
    await using server = await RangeServer.start({ route: () => ({ status: 302, headers: { location } }) });
    const error = await failureOf(createSource(`${server.url}/m.gguf`).list(never));
    expect(error).toMatchObject({ code: "source_failed", retry: "never" });
    expect(error.message).toMatch(words);
  });

  it("tells a server without ranges, and one that tells no length", async () => {
    await using server = await RangeServer.start({
      ranges: false,
      route: ({ path }) =>
        path === "/chunked" ? { status: 200, headers: { "transfer-encoding": "chunked" } } : undefined,
    });
    server.put("/m.gguf", Buffer.from("model"));
    const source = createSource(`${server.url}/m.gguf`);
    const [file] = await source.list(never);
    expect(file).toMatchObject({ ranges: false, sizeBytes: 5 });
    if (file === undefined) return;
    expect((await read(source, { file, start: 0, end: 5 })).toString()).toBe("model");
    expect(await failureOf(createSource(`${server.url}/chunked`).list(never))).toMatchObject({ retry: "never" });
  });

  it.each([429, 500, 503])("calls %i temporary and keeps the server's Retry-After", async (status) => {
    await using server = await RangeServer.start();
    server.fail(1, { kind: "status", status, headers: { "retry-after": "7" } });
    const error = await failureOf(createSource(`${server.url}/m.gguf`).list(never));
    expect(error).toMatchObject({ code: "source_failed", retry: "range", retryAfterSeconds: 7 });
  });

  it("calls a server that is not there temporary, without its address's secrets", async () => {
    const gone = await RangeServer.start();
    const { url } = gone;
    await gone[Symbol.asyncDispose]();
    const error = await failureOf(createSource(`${url}/m.gguf?sig=secret`).list(never));
    expect(error).toMatchObject({ code: "source_failed", retry: "range" });
    expect(error.message).toContain("ECONNREFUSED");
    expect(error.message).not.toContain("secret");
  });
});

describe("hf://", () => {
  sourceContract(openHub, {
    remedy: /HF_TOKEN/,
    gaps: {
      sidecars: "the hub has the sha256 of large files itself",
      replacement: "a pinned commit never changes",
    },
  });

  it("reads at the commit that the revision was at, and keeps the token away from the CDN", async () => {
    await using store = await openHub();
    const body = patternedBytes(100_000);
    await store.put("m.gguf", body);
    const source = createSource("hf://org/repo/m.gguf@v1", store.options);
    const [file] = await source.list(never);
    expect(file).toBeDefined();
    if (file === undefined) return;
    expect(await read(source, { file, start: 10, end: 90_000 })).toEqual(body.subarray(10, 90_000));
    await read(source, { file, start: 0, end: 10 });
    const paths = store.server.requests.map((request) => request.path);
    expect(paths).toContain(`/org/repo/resolve/${hubCommit}/m.gguf`);
    expect(paths.filter((path) => path.includes("/resolve/"))).toHaveLength(1);
    for (const { path, headers } of store.server.requests) {
      expect(headers.authorization).toBe(path.startsWith("/cdn/") ? undefined : "Bearer secret-token");
    }
  });

  it("puts the token into plain requests to the hub itself only", async () => {
    await using store = await openHub();
    await store.put("m.gguf", Buffer.from("model"));
    await store.put("config.json", Buffer.from("{}"));
    const source = createSource("hf://org/repo", store.options);
    for (const file of await source.list(never)) {
      const direct = await source.direct?.(file, never);
      const isInGit = file.path === "config.json";
      expect(direct?.url.pathname).toBe(isInGit ? `/org/repo/resolve/${hubCommit}/config.json` : "/cdn/m.gguf");
      expect(direct?.headers["authorization"]).toBe(isInGit ? "Bearer secret-token" : undefined);
      // A commit's files do not change, and the CDN's ETag is none that the hub listed.
      expect(direct).toMatchObject({ etag: null });
    }
  });

  it("does not send the token to another origin that a page of the list names", async () => {
    await using other = await RangeServer.start({ route: () => ({ status: 200, body: "[]" }) });
    await using server = await RangeServer.start({
      route: (request, own) => {
        const reply = hubRoute(request, own);
        if (!request.path.includes("/tree/") || reply === undefined) return reply;
        return { ...reply, headers: { link: `<${other.url}/next>; rel="next"` } };
      },
    });
    server.put("/org/repo/a.json", Buffer.from("{}"));
    await createSource("hf://org/repo", { hubEndpoint: server.url, hubToken: "secret" }).list(never);
    expect(other.requests).toHaveLength(1);
    expect(other.requests[0]?.headers.authorization).toBeUndefined();
  });

  it.each(["hf://repo", "hf://org/repo/../../../etc", "hf://org/repo/%2e%2e/x"])("refuses %s", (uri) => {
    expect(() => createSource(uri)).toThrow(expect.objectContaining({ code: "invalid_config" }));
  });
});

describe("s3://", () => {
  sourceContract(openS3, { remedy: /s3:GetObject.*AWS_PROFILE/s, gaps: {} });

  it("signs requests with the default chain's credentials, and none when anonymous", async () => {
    await using store = await openS3();
    await store.put("m.gguf", Buffer.from("model"));
    await createSource("s3://bucket/m.gguf", store.options).list(never);
    expect(store.server.requests.at(-1)?.headers.authorization).toMatch(/^AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/);
    await createSource("s3://bucket/m.gguf", { s3: { ...store.options.s3, anonymous: true } }).list(never);
    expect(store.server.requests.at(-1)?.headers.authorization).toBeUndefined();
  });

  it("presigns plain requests, and makes none without credentials", async () => {
    await using store = await openS3();
    await store.put("a b/m.gguf", Buffer.from("model"));
    const source = createSource("s3://bucket/a%20b/m.gguf", store.options);
    const [file] = await source.list(never);
    expect(file).toBeDefined();
    if (file === undefined) return;
    const direct = await source.direct?.(file, never);
    expect(direct?.url.searchParams.get("X-Amz-Signature")).toMatch(/^[0-9a-f]{64}$/);
    expect(direct?.url.searchParams.get("X-Amz-SignedHeaders")).toBe("host");
    expect(direct?.url.pathname).toBe("/bucket/a%20b/m.gguf");
    expect(direct?.headers).toEqual({ "if-match": file.etag });
    const open = createSource("s3://bucket/a%20b/m.gguf", { s3: { ...store.options.s3, anonymous: true } });
    await open.list(never);
    expect(await open.direct?.(file, never)).toBeNull();
  });

  it("takes the object's own CRC-64/NVME, of one object and in a folder", async () => {
    await using store = await openS3();
    await store.put("m/summed.gguf", patternedBytes(1 << 20));
    for (const path of ["m/summed.gguf", "m"]) {
      const [file] = await listWithChecksums(createSource(store.uri(path), store.options), never);
      expect(file).toMatchObject({ sha256: null, checksum: { algorithm: "crc64nvme", value: s3Sum } });
    }
  });

  it("says which credentials to set when the chain finds none", async () => {
    vi.unstubAllEnvs();
    vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
    vi.stubEnv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
    vi.stubEnv("AWS_CONFIG_FILE", "/nonexistent");
    await using store = await openS3();
    const error = await failureOf(createSource("s3://bucket/m.gguf", store.options).list(never));
    expect(error).toMatchObject({ code: "source_denied" });
    expect(error.message).toContain("AWS_ACCESS_KEY_ID");
  });
});

describe("az://", () => {
  sourceContract(openBlob, { remedy: /Storage Blob Data Reader/, gaps: {} });

  it("reads a blob with a SAS that may not list, given in the URI", async () => {
    await using store = await openBlob();
    await store.put("m.gguf", Buffer.from("model"));
    store.server.fail(
      Infinity,
      { kind: "status", status: 403 },
      ({ query, path }) => query.get("comp") === "list" || path.endsWith(".sha256"),
    );
    const source = createSource("az://account/container/m.gguf?sv=1&sig=mine", store.options);
    expect(source.uri).toBe("az://account/container/m.gguf");
    const [file] = await source.list(never);
    expect(file?.sizeBytes).toBe(5);
    expect(store.server.requests[0]?.query.get("sig")).toBe("mine");
  });

  it("reads a public container without credentials, and one by connection string", async () => {
    await using store = await openBlob();
    await store.put("m.gguf", Buffer.from("model"));
    const endpoint = `${store.server.url}/account`;
    await createSource("az://account/container/m.gguf", { azure: { endpoint, anonymous: true } }).list(never);
    expect(store.server.requests.at(-1)?.headers.authorization).toBeUndefined();
    const key = Buffer.from("secret").toString("base64");
    const connectionString = `DefaultEndpointsProtocol=http;AccountName=account;AccountKey=${key};BlobEndpoint=${endpoint};`;
    await createSource("az://account/container/m.gguf", { azure: { connectionString } }).list(never);
    expect(store.server.requests.at(-1)?.headers.authorization).toMatch(/^SharedKey account:/);
  });

  it("signs plain requests with a key, for reading that blob only", async () => {
    await using store = await openBlob();
    await store.put("m.gguf", Buffer.from("model"));
    const key = Buffer.from("secret").toString("base64");
    const endpoint = `${store.server.url}/account`;
    const connectionString = `DefaultEndpointsProtocol=http;AccountName=account;AccountKey=${key};BlobEndpoint=${endpoint};`;
    const source = createSource("az://account/container/m.gguf", { azure: { connectionString } });
    const [file] = await source.list(never);
    const direct = file === undefined ? undefined : await source.direct?.(file, never);
    expect(direct).toBeTruthy();
    if (direct === undefined || direct === null) return;
    const query = Object.fromEntries(direct.url.searchParams);
    expect(query).toMatchObject({ sp: "r", sr: "b", sig: expect.stringMatching(/.{40}/) });
    expect(direct.expiresAtMs).toBeLessThan(Date.now() + 3_700_000);
    expect(JSON.stringify(direct)).not.toContain(key);
    expect((await send(direct, { start: 1, end: 3 })).body.toString()).toBe("od");
  });

  it("sends a bearer token where nothing else is given, and never in the clear", async () => {
    const getToken = vi.fn<() => Promise<{ token: string; expiresOnTimestamp: number }>>(async () => ({
      token: "secret-token",
      expiresOnTimestamp: Date.now() + 3_600_000,
    }));
    vi.doMock("@azure/identity", () => ({
      DefaultAzureCredential: class {
        getToken = getToken;
      },
    }));
    try {
      const file = { path: "m.gguf", sizeBytes: 5, etag: '"v"', sha256: null, ranges: true };
      const direct = await createSource("az://account/container").direct?.(file, never);
      expect(direct).toMatchObject({
        url: new URL("https://account.blob.core.windows.net/container/m.gguf"),
        headers: { authorization: "Bearer secret-token", "if-match": '"v"', "x-ms-version": expect.any(String) },
      });
      expect(getToken).toHaveBeenCalledWith("https://storage.azure.com/.default", expect.anything());
      const azure = { endpoint: "http://emulator/account" };
      expect(await createSource("az://account/container", { azure }).direct?.(file, never)).toBeNull();
      expect(getToken).toHaveBeenCalledTimes(1);
    } finally {
      vi.doUnmock("@azure/identity");
    }
  });

  it("takes the blob's own MD5, of one blob and in a folder", async () => {
    await using store = await openBlob();
    await store.put("m/summed.gguf", Buffer.from("model"));
    for (const path of ["m/summed.gguf", "m"]) {
      const [file] = await listWithChecksums(createSource(store.uri(path), store.options), never);
      expect(file).toMatchObject({ sha256: null, checksum: { algorithm: "md5", value: blobSum } });
    }
  });

  it("leaves out the markers of folders that accounts with a hierarchical namespace list", async () => {
    await using store = await openBlob();
    await using server = await RangeServer.start({
      route: (request, own) => {
        const reply = blobRoute(request, own);
        if (request.query.get("comp") !== "list" || reply === undefined || !("body" in reply)) return reply;
        const marker =
          "<Blob><Name>m/sub</Name><Properties><Content-Length>0</Content-Length></Properties>" +
          "<Metadata><hdi_isfolder>true</hdi_isfolder></Metadata></Blob></Blobs>";
        return { ...reply, body: reply.body?.replace("</Blobs>", marker) ?? "" };
      },
    });
    server.put("/account/container/m/sub/a.json", Buffer.from("{}"));
    const azure = { ...store.options.azure, endpoint: `${server.url}/account` };
    const files = await createSource("az://account/container/m", { azure }).list(never);
    expect(files.map((file) => file.path)).toEqual(["sub/a.json"]);
  });
});

describe("refusals with a status of their own", () => {
  it.each([
    ["s3", openS3, 400],
    ["az", openBlob, 400],
    ["az", openBlob, 409],
  ])("of %s are source_denied", async (_, open, status) => {
    await using store = await open();
    store.server.fail(Infinity, { kind: "status", status });
    expect(await failureOf(createSource(store.uri("m.gguf"), store.options).list(never))).toMatchObject({
      code: "source_denied",
    });
  });
});

describe("logs", () => {
  it.each([
    ["az", openBlob],
    ["s3", openS3],
    ["hf", openHub],
    ["http", openHttp],
  ])("show no credential of %s, not even what the client's own error holds", async (_, open) => {
    await using store = await open();
    for (const fault of [
      { kind: "status", status: 403 },
      { kind: "status", status: 500 },
    ] as const) {
      store.server.fail(Infinity, fault);
      const error = await failureOf(createSource(store.uri("m.gguf"), store.options).list(never));
      const lines = JSON.stringify([stdSerializers.err(error), stdSerializers.err(error.cause as Error)]); // or undefined
      expect(lines).not.toContain("secret");
      store.server.faults.length = 0;
    }
  });
});

describe("URIs", () => {
  it.each([
    ["https://user:pw@host/a/m.gguf?X-Amz-Signature=1#f", "https://host/a/m.gguf"],
    ["az://a/c/m.gguf?sv=1&sig=2", "az://a/c/m.gguf"],
    ["hf://org/repo/m.gguf@refs/pr/1", "hf://org/repo/m.gguf@refs/pr/1"],
  ])("shows %s as %s", (uri, shown) => {
    expect(safeUri(uri)).toBe(shown);
  });

  it("keeps one identity for links that are signed anew, but not for other queries", () => {
    expect(identityOf("https://h/m?X-Amz-Signature=1&X-Amz-Date=2")).toBe(
      identityOf("https://u:p@h/m?X-Amz-Signature=3"),
    );
    expect(identityOf("https://h/m?id=1&sig=a")).toBe("https://h/m?id=1");
    expect(identityOf("https://h/m?id=1")).not.toBe(identityOf("https://h/m?id=2"));
  });

  it("refuses a scheme that it does not know", () => {
    expect(() => createSource("ftp://host/m.gguf")).toThrow(/should start with file:\/\//);
  });
});
