import { afterAll, afterEach, beforeAll, describe, vi } from "vitest";
import { lacking } from "../../support/servers/tools.ts";
import { sourceContract, type Gaps } from "../sources.contract.ts";
import { ensureContract } from "./ensure.contract.ts";
import { azureServer, nginxServer, s3Fake, s3Server, type StoreServer } from "./servers.ts";

interface Kind {
  readonly name: string;
  readonly start: () => Promise<StoreServer>;
  /** Which credential the store's refusal should name. */
  readonly remedy: RegExp;
  readonly gaps?: Gaps;
  /** Why the contract of sources is not for it. */
  readonly sourceGap?: string;
  /** Why its server cannot run here. */
  readonly missing?: string | undefined;
}

const http = {
  remedy: /user:password@/,
  gaps: {
    folders: "HTTP has no listing",
    sidecars: "the spec's sha256 serves",
    ownChecksums: "no common header",
  },
  missing: lacking("nginx", "openssl"),
} as const;

const kinds: readonly Kind[] = [
  {
    name: "Azurite by connection string",
    start: () => azureServer("connectionString"),
    remedy: /Storage Blob Data Reader/,
  },
  { name: "Azurite by SAS", start: () => azureServer("sas"), remedy: /Storage Blob Data Reader/ },
  {
    name: "s3rver",
    start: s3Server,
    remedy: /s3:GetObject.*AWS_PROFILE/s,
    sourceGap: "s3rver answers bytes=0-0 with the whole object, and has no conditional requests",
  },
  { name: "an S3 fake", start: s3Fake, remedy: /s3:GetObject.*AWS_PROFILE/s },
  { name: "nginx over HTTP", start: () => nginxServer({ tls: false }), ...http },
  {
    name: "nginx over TLS",
    start: () => nginxServer({ tls: true }),
    ...http,
    gaps: { ...http.gaps, direct: "the contract sends its plain requests without TLS" },
  },
];

describe.each(kinds)("$name", ({ start, remedy, gaps = {}, sourceGap, missing }) => {
  describe.skipIf(missing !== undefined)("serves models", () => {
    let server: StoreServer;
    beforeAll(async () => {
      server = await start();
    });
    afterAll(() => server[Symbol.asyncDispose]());
    afterEach(() => vi.unstubAllEnvs());

    if (sourceGap === undefined) sourceContract(() => server.open(), { remedy, gaps });
    ensureContract(() => server, { folders: gaps.folders });
  });
});
