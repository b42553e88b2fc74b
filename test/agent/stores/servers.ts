import { randomUUID } from "node:crypto";
import { mkdir, utimes, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { getCACertificates, setDefaultCACertificates } from "node:tls";
import { CreateBucketCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import {
  BlobServiceClient,
  ContainerSASPermissions,
  generateBlobSASQueryParameters,
  StorageSharedKeyCredential,
  type ContainerClient,
} from "@azure/storage-blob";
import { vi } from "vitest";
import { RangeServer, sha256 } from "../../fakes/range-server.ts";
import { s3Route } from "../../fakes/range-server-stores.ts";
import { temporaryFolder } from "../../support/folders.ts";
import { azurite, type Azurite } from "../../support/servers/azurite.ts";
import { nginx } from "../../support/servers/nginx.ts";
import { s3, type S3Server } from "../../support/servers/s3.ts";
import type { Store } from "../sources.contract.ts";

/** A server that runs. */
export interface StoreServer extends AsyncDisposable {
  /** Its origin. */
  readonly url: string;
  /** An empty store on it, which the agent reaches at `origin`: the server's own, or that of a proxy in front. */
  open(origin?: string): Promise<Store>;
}

/** Azurite with a container for each store. The agent is given a connection string, or a SAS for reading and listing. */
export async function azureServer(credential: "connectionString" | "sas"): Promise<StoreServer> {
  const server = await azurite();
  return {
    url: server.url,
    open: async (origin = server.url) => openContainer(server, { credential, origin }),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function openContainer(
  server: Azurite,
  { credential, origin }: { credential: "connectionString" | "sas"; origin: string },
): Promise<Store> {
  const container = await newContainer(server);
  const connectionString = server.connectionString(origin);
  const sasToken = sasOf(server, { container: container.containerName });
  const wrongKey = Buffer.from("another key").toString("base64");
  const azure = {
    connectionString: { connectionString },
    sas: { endpoint: server.endpoint(origin), sasToken },
  }[credential];
  const wrong = {
    connectionString: { connectionString: connectionString.replace(server.accountKey, wrongKey) },
    sas: { ...azure, sasToken: sasOf({ ...server, accountKey: wrongKey }, { container: container.containerName }) },
  }[credential];
  let denied = false;
  return {
    get options() {
      return { azure: denied ? wrong : azure };
    },
    uri: (path) => `az://${server.account}/${container.containerName}/${path}`,
    put: async (path, body) => {
      const metadata: Record<string, string> = path.includes("hashed") ? { sha256: sha256(body) } : {};
      await container.getBlockBlobClient(path).upload(body, body.length, { metadata });
    },
    deny: async () => void (denied = true),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

/** Makes an empty container with a name of its own. */
export async function newContainer(server: Azurite): Promise<ContainerClient> {
  const name = `models-${randomUUID()}`;
  const { containerClient } = await BlobServiceClient.fromConnectionString(server.connectionString()).createContainer(
    name,
  );
  return containerClient;
}

/** A SAS for a container, good for an hour unless `expiresOn` says otherwise. */
export function sasOf(
  { account, accountKey }: Pick<Azurite, "account" | "accountKey">,
  about: { container: string; permissions?: string; expiresOn?: Date },
): string {
  return generateBlobSASQueryParameters(
    {
      containerName: about.container,
      permissions: ContainerSASPermissions.parse(about.permissions ?? "rl"),
      expiresOn: about.expiresOn ?? new Date(Date.now() + 3_600_000),
    },
    new StorageSharedKeyCredential(account, accountKey),
  ).toString();
}

/** s3rver with a bucket for each store. The agent finds its credentials in the environment, which tests stub. */
export async function s3Server(): Promise<StoreServer> {
  const server = await s3();
  return {
    url: server.url,
    open: async (origin = server.url) => {
      const client = s3Client(server);
      const bucket = `models-${randomUUID()}`;
      await client.send(new CreateBucketCommand({ Bucket: bucket }));
      stubCredentials(server);
      return {
        options: { s3: { endpoint: origin, pathStyle: true } },
        uri: (path) => `s3://${bucket}/${path}`,
        put: async (path, body) => {
          const Metadata: Record<string, string> = path.includes("hashed") ? { sha256: sha256(body) } : {};
          await client.send(new PutObjectCommand({ Bucket: bucket, Key: path, Body: body, Metadata }));
        },
        // It checks no signature of this version, only whether it knows who signed.
        deny: async () => void vi.stubEnv("AWS_ACCESS_KEY_ID", "unknown"),
        [Symbol.asyncDispose]: async () => client.destroy(),
      };
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

/** A client that writes to s3rver. */
export function s3Client({ url, accessKeyId, secretAccessKey }: S3Server): S3Client {
  return new S3Client({
    endpoint: url,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    // s3rver would store the framing that the SDK's own checksums put around the content.
    requestChecksumCalculation: "WHEN_REQUIRED",
  });
}

/** Puts credentials where the AWS SDK's chain looks first. */
export function stubCredentials({ accessKeyId, secretAccessKey }: S3Server): void {
  vi.stubEnv("AWS_ACCESS_KEY_ID", accessKeyId);
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", secretAccessKey);
}

/** The fault-injecting fake with the dialect of S3, one per store. */
export async function s3Fake(): Promise<StoreServer> {
  const server = await RangeServer.start({ route: s3Route });
  return {
    url: server.url,
    open: async (origin = server.url) => {
      const bucket = randomUUID();
      stubCredentials({ url: "", accessKeyId: "AKIDEXAMPLE", secretAccessKey: "secret", ...nothingToDispose });
      return {
        options: { s3: { endpoint: origin, pathStyle: true } },
        uri: (path) => `s3://${bucket}/${path}`,
        put: async (path, body) => server.put(`/${bucket}/${path}`, body),
        deny: async () =>
          server.fail(Infinity, { kind: "status", status: 403 }, (request) => request.path.startsWith(`/${bucket}`)),
        ...nothingToDispose,
      };
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

/** nginx with a folder for each store. With `tls` this process trusts its authority, unless `trusted` is false. */
export async function nginxServer({ tls, trusted = tls }: { tls: boolean; trusted?: boolean }): Promise<StoreServer> {
  await using scope = new AsyncDisposableStack();
  const root = scope.use(await temporaryFolder());
  const server = scope.use(await nginx(root.path, { tls }));
  if (server.ca !== undefined && trusted) {
    const before = getCACertificates("default");
    setDefaultCACertificates([...before, server.ca]);
    scope.defer(() => setDefaultCACertificates(before));
  }
  const running = scope.move();
  return {
    url: server.url,
    open: async (origin = server.url) => {
      const folder = randomUUID();
      let writes = 0;
      const put = async (path: string, body: Buffer) => {
        const file = join(root.path, folder, path);
        await mkdir(dirname(file), { recursive: true });
        await writeFile(file, body);
        // nginx makes the ETag of the time in seconds and the length.
        writes += 1;
        await utimes(file, 1_700_000_000, 1_700_000_000 + writes);
      };
      return {
        options: {},
        uri: (path) => `${origin}/${folder}/${path}`,
        put,
        deny: () => put(".denied", Buffer.alloc(0)),
        ...nothingToDispose,
      };
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

const nothingToDispose = { [Symbol.asyncDispose]: async () => undefined } as const;
