import { DefaultAzureCredential } from "@azure/identity";
import { BlobServiceClient, type ContainerClient } from "@azure/storage-blob";
import type { ModelStore, StoreAccess, StoredFile, Upload } from "./store.ts";

/** Blobs that a batch may delete at once. */
const deletesAtOnce = 8;

/** Azure Blob Storage: parts are staged blocks, which Azure drops after a week unless they are committed. */
export function azureStore(
  { account, container }: { readonly account: string; readonly container: string },
  { azureConnection }: StoreAccess,
): ModelStore {
  const service =
    azureConnection === undefined
      ? new BlobServiceClient(`https://${account}.blob.core.windows.net`, new DefaultAzureCredential())
      : BlobServiceClient.fromConnectionString(azureConnection);
  const client = service.getContainerClient(container);
  return {
    list: (prefix) => list(client, prefix),
    put: async (path, bytes) => {
      await client.getBlockBlobClient(path).uploadData(bytes);
    },
    upload: async (path) => upload(client, path),
    async remove(paths) {
      const queue = paths.values();
      const worker = async (): Promise<void> => {
        for (const path of queue) await client.getBlobClient(path).deleteIfExists();
      };
      await Promise.all(Array.from({ length: deletesAtOnce }, worker));
    },
    explain: (error) => explain(error, account),
  };
}

async function list(client: ContainerClient, prefix: string): Promise<StoredFile[]> {
  const files: StoredFile[] = [];
  for await (const { name, properties } of client.listBlobsFlat({ prefix })) {
    files.push({ path: name, sizeBytes: properties.contentLength ?? 0, modified: properties.lastModified });
  }
  return files;
}

function upload(client: ContainerClient, path: string): Upload {
  const blob = client.getBlockBlobClient(path);
  const blocks = new Map<number, string>();
  return {
    async part(index, bytes, signal) {
      // All ids of a blob must have one length.
      const id = Buffer.from(String(index).padStart(8, "0")).toString("base64");
      await blob.stageBlock(id, bytes, bytes.length, { abortSignal: signal });
      blocks.set(index, id);
    },
    async finish() {
      await blob.commitBlockList([...blocks].toSorted(([a], [b]) => a - b).map(([, id]) => id));
    },
    async abort() {
      // What is staged and never committed is no blob, and is not paid for after a week.
    },
  };
}

function explain(error: unknown, account: string): string | null {
  const words = error instanceof Error ? `${error.name} ${error.message}` : "";
  const status = error instanceof Error && "statusCode" in error ? error.statusCode : undefined;
  if (status === 403 || words.includes("CredentialUnavailable") || words.includes("AuthenticationError")) {
    return `Sign in with \`az login\` as somebody with the role Storage Blob Data Contributor on ${account}, or set AZURE_STORAGE_CONNECTION_STRING.`;
  }
  if (status === 404) return `Is there a container of that name in ${account}? \`npm run up\` makes it.`;
  if (words.includes("ENOTFOUND")) return `There is no storage account ${account} yet: \`npm run up\` makes it.`;
  return null;
}
