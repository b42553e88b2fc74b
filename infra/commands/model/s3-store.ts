import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import type { ModelStore, StoredFile, Upload } from "./store.ts";

/** Keys in one DeleteObjects, S3's own limit. */
const deletesAtOnce = 1_000;

/** S3: each part carries a checksum that S3 verifies; credentials, region and endpoint are those of the AWS SDK's chain. */
export function s3Store(bucket: string): ModelStore {
  const client = new S3Client({
    followRegionRedirects: true,
    requestChecksumCalculation: "WHEN_SUPPORTED",
    // Names of buckets in paths are what every server understands that AWS_ENDPOINT_URL may name.
    forcePathStyle: true,
  });
  return {
    list: (prefix) => list(client, bucket, prefix),
    put: async (path, bytes) => {
      await client.send(new PutObjectCommand({ Bucket: bucket, Key: path, Body: bytes }));
    },
    upload: (path) => upload(client, bucket, path),
    async remove(paths) {
      for (let at = 0; at < paths.length; at += deletesAtOnce) {
        const Objects = paths.slice(at, at + deletesAtOnce).map((Key) => ({ Key }));
        const { Errors = [] } = await client.send(new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects } }));
        const [first] = Errors;
        if (first !== undefined) throw new Error(`S3 kept ${first.Key ?? "an object"}: ${first.Message ?? first.Code}`);
      }
    },
    explain,
  };
}

async function list(client: S3Client, bucket: string, prefix: string): Promise<StoredFile[]> {
  const files: StoredFile[] = [];
  let token: string | undefined;
  do {
    const page = await client.send(
      new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, ContinuationToken: token }),
    );
    for (const { Key: path = "", Size: sizeBytes = 0, LastModified: modified = null } of page.Contents ?? []) {
      files.push({ path, sizeBytes, modified });
    }
    token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
  } while (token !== undefined);
  return files;
}

async function upload(client: S3Client, bucket: string, path: string): Promise<Upload> {
  const about = { Bucket: bucket, Key: path };
  const { UploadId } = await client.send(new CreateMultipartUploadCommand(about));
  const parts = new Map<number, { readonly ETag: string | undefined; readonly PartNumber: number }>();
  return {
    async part(index, bytes, signal) {
      // S3 counts from 1.
      const PartNumber = index + 1;
      const command = new UploadPartCommand({ ...about, UploadId, PartNumber, Body: bytes });
      const { ETag } = await client.send(command, { abortSignal: signal });
      parts.set(index, { ETag, PartNumber });
    },
    async finish() {
      const Parts = [...parts].toSorted(([a], [b]) => a - b).map(([, part]) => part);
      await client.send(new CompleteMultipartUploadCommand({ ...about, UploadId, MultipartUpload: { Parts } }));
    },
    async abort() {
      await client.send(new AbortMultipartUploadCommand({ ...about, UploadId }));
    },
  };
}

function explain(error: unknown): string | null {
  const name = error instanceof Error ? error.name : "";
  if (/^(CredentialsProviderError|AccessDenied|InvalidAccessKeyId|ExpiredToken|TokenProviderError)/.test(name)) {
    return "Sign in (AWS_PROFILE, `aws sso login`) as a role that may write to the bucket.";
  }
  if (name === "NoSuchBucket") return "There is no bucket of that name yet: `npm run up` makes it.";
  if (error instanceof Error && error.message.includes("Region is missing")) return "Set AWS_REGION.";
  return null;
}
