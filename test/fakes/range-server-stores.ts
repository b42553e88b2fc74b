import { createHash } from "node:crypto";
import { sha256, type RangeServer, type Reply, type SeenRequest, type ServedFile } from "./range-server.ts";

/** Commit that every branch of the fake hub is at. */
export const hubCommit = "0123456789abcdef0123456789abcdef01234567";

/**
 * The part of the Hugging Face hub's API that a download uses, for one repository `org/repo` whose files are those of the
 * server under `/org/repo/`. Large files redirect to `/cdn/...`, as the hub does; names with `.json` are kept in git.
 */
export function hubRoute(request: SeenRequest, server: RangeServer): Reply | undefined {
  const { path } = request;
  const prefix = "/org/repo/";
  const files = [...server.files].filter(([name]) => name.startsWith(prefix));
  const revision = /^\/api\/models\/org\/repo\/revision\/(.+)$/.exec(path)?.[1];
  if (revision !== undefined) {
    if (!["main", "v1", hubCommit].includes(revision)) return json(404, { error: "Revision not found" });
    return json(200, { _id: "1", id: "org/repo", sha: hubCommit, lastModified: "2026-01-01T00:00:00Z", siblings: [] });
  }
  const entries = files.map(([name, file]) => hubEntry(name.slice(prefix.length), file));
  if (path === `/api/models/org/repo/paths-info/${hubCommit}`) {
    const { paths } = JSON.parse(request.body) as { paths: string[] }; // what the client sends
    const wanted = entries.filter((entry) => paths.includes(entry.path));
    const folder = paths.find((name) => entries.some((entry) => entry.path.startsWith(`${name}/`)));
    return json(
      200,
      folder === undefined ? wanted : [...wanted, { type: "directory", path: folder, size: 0, oid: "0" }],
    );
  }
  const tree = /^\/api\/models\/org\/repo\/tree\/([0-9a-f]+)\/?(.*)$/.exec(path);
  if (tree?.[1] === hubCommit) return hubTree(request, { entries, folder: tree[2] ?? "", origin: server.url });
  const file = new RegExp(`^/org/repo/resolve/${hubCommit}/(.+)$`).exec(path)?.[1];
  if (file === undefined) return undefined;
  const served = server.files.get(prefix + file);
  if (served === undefined) return { status: 404, headers: { "x-error-code": "EntryNotFound" } };
  if (file.endsWith(".json")) return { file: served };
  server.files.set(`/cdn/${file}`, { ...served, etag: '"of-the-cdn"' });
  return {
    status: 302,
    headers: { location: `${server.url.replace("127.0.0.1", "localhost")}/cdn/${encodeURIComponent(file)}` },
  };
}

interface HubEntry {
  readonly type: "file";
  readonly path: string;
  readonly size: number;
  readonly oid: string;
  readonly lfs?: { oid: string; size: number; pointerSize: number };
}

function hubEntry(path: string, { body }: ServedFile): HubEntry {
  const entry = { type: "file", path, size: body.length, oid: createHash("sha1").update(body).digest("hex") } as const;
  if (path.endsWith(".json")) return entry;
  return { ...entry, lfs: { oid: sha256(body), size: body.length, pointerSize: 134 } };
}

/** The tree in pages of two, each with a `Link` to the next. */
function hubTree(
  { query }: SeenRequest,
  { entries, folder, origin }: { entries: readonly HubEntry[]; folder: string; origin: string },
): Reply {
  const inside = entries.filter(({ path }) => folder === "" || path.startsWith(`${folder}/`));
  if (inside.length === 0) return json(404, { error: "Entry not found" });
  const from = Number(query.get("cursor") ?? 0);
  const next = `<${origin}/api/models/org/repo/tree/${hubCommit}/${folder}?recursive=true&cursor=${from + 2}>; rel="next"`;
  return json(200, inside.slice(from, from + 2), from + 2 < inside.length ? { link: next } : {});
}

/** The CRC-64/NVME that the fake S3 has of objects with `summed` in their names, and the MD5 of fake blobs with it. */
export const s3Sum = "rosUhgp5mIg=";
export const blobSum = "9e107d9d372bb6826bd81d3542a419d6";

/** S3 with path-style addresses: HeadObject, GetObject by range, ListObjectsV2 in pages of two. */
export function s3Route(request: SeenRequest, server: RangeServer): Reply | undefined {
  const { path, query } = request;
  if (query.get("list-type") !== "2") {
    const file = server.files.get(path);
    if (file === undefined) return xml(404, "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>");
    const wanted = request.headers["x-amz-checksum-mode"] === "ENABLED" && path.includes("hashed");
    const sum = createHash("sha256").update(file.body).digest("base64");
    if (request.headers["x-amz-checksum-mode"] === "ENABLED" && path.includes("summed")) {
      return { file, headers: { "x-amz-checksum-crc64nvme": s3Sum, "x-amz-checksum-type": "FULL_OBJECT" } };
    }
    return { file, headers: wanted ? { "x-amz-checksum-sha256": sum, "x-amz-checksum-type": "FULL_OBJECT" } : {} };
  }
  const bucket = path.replace(/\/$/, "");
  const prefix = query.get("prefix") ?? "";
  const names = [...server.files.keys()].filter((name) => name.startsWith(`${bucket}/${prefix}`)).toSorted();
  const from = Number(query.get("continuation-token") ?? 0);
  const rows = names.slice(from, from + 2).map((name) => {
    const { body, etag } = server.files.get(name) ?? { body: Buffer.alloc(0), etag: "" };
    const key = name.slice(bucket.length + 1);
    return `<Contents><Key>${key}</Key><Size>${body.length}</Size><ETag>${escape(etag)}</ETag></Contents>`;
  });
  const more = from + 2 < names.length;
  const token = more ? `<NextContinuationToken>${from + 2}</NextContinuationToken>` : "";
  return xml(
    200,
    `<ListBucketResult><Name>b</Name><IsTruncated>${more}</IsTruncated>${token}${rows.join("")}</ListBucketResult>`,
  );
}

/** Azure Blob Storage with the account in the path, as emulators have it: properties, ranges, List Blobs in pages of two. */
export function blobRoute(request: SeenRequest, server: RangeServer): Reply | undefined {
  const { path, query } = request;
  if (query.get("comp") !== "list") {
    const file = server.files.get(path);
    if (file === undefined) {
      return xml(404, "<Error><Code>BlobNotFound</Code><Message>none</Message></Error>", {
        "x-ms-error-code": "BlobNotFound",
      });
    }
    const headers: Record<string, string> = { "x-ms-blob-type": "BlockBlob", "last-modified": lastModified };
    if (path.includes("hashed")) headers["x-ms-meta-sha256"] = sha256(file.body);
    if (path.includes("summed")) headers["content-md5"] = Buffer.from(blobSum, "hex").toString("base64");
    return { file, headers };
  }
  const prefix = query.get("prefix") ?? "";
  const names = [...server.files.keys()].filter((name) => name.startsWith(`${path}/${prefix}`)).toSorted();
  const from = Number(query.get("marker") ?? 0);
  const rows = names.slice(from, from + 2).map((name) => blobRow(name.slice(path.length + 1), server.files.get(name)));
  const marker = from + 2 < names.length ? String(from + 2) : "";
  return xml(
    200,
    `<EnumerationResults ServiceEndpoint="x" ContainerName="c"><Blobs>${rows.join("")}</Blobs>` +
      `<NextMarker>${marker}</NextMarker></EnumerationResults>`,
  );
}

const lastModified = "Thu, 01 Jan 2026 00:00:00 GMT";

function blobRow(name: string, file: ServedFile | undefined): string {
  const { body, etag } = file ?? { body: Buffer.alloc(0), etag: "" };
  const metadata = name.includes("hashed") ? `<Metadata><sha256>${sha256(body)}</sha256></Metadata>` : "";
  const sum = name.includes("summed")
    ? `<Content-MD5>${Buffer.from(blobSum, "hex").toString("base64")}</Content-MD5>`
    : "";
  return (
    `<Blob><Name>${name}</Name><Properties>${sum}<Last-Modified>${lastModified}</Last-Modified>` +
    // Lists of the real service give ETags without quotes.
    `<Etag>${etag.replaceAll('"', "")}</Etag><Content-Length>${body.length}</Content-Length>` +
    `<BlobType>BlockBlob</BlobType></Properties>${metadata}</Blob>`
  );
}

function json(status: number, value: unknown, headers: Record<string, string> = {}): Reply {
  return { status, headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(value) };
}

function xml(status: number, body: string, headers: Record<string, string> = {}): Reply {
  const text = `<?xml version="1.0" encoding="UTF-8"?>${body}`;
  return { status, headers: { "content-type": "application/xml", ...headers }, body: text };
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");
}
