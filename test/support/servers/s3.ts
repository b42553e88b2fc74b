import { temporaryFolder } from "../folders.ts";
import { packageScript } from "./packages.ts";
import { startServer } from "./process.ts";

/** s3rver: an S3 server that checks who signed, but not what. It has no conditional requests and no checksums. */
export interface S3Server extends AsyncDisposable {
  readonly url: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** Starts an s3rver with empty buckets of these names. */
export async function s3(...buckets: readonly string[]): Promise<S3Server> {
  const script = await packageScript("s3rver/bin/s3rver.js");
  await using scope = new AsyncDisposableStack();
  const folder = scope.use(await temporaryFolder());
  const server = scope.use(
    await startServer({
      command: process.execPath,
      // It encrypts the tokens that continue a list with DES.
      args: ["--openssl-legacy-provider", script, "--silent", "--no-vhost-buckets"].concat(
        ["--address", "127.0.0.1", "--port", "0"],
        ["--directory", folder.path],
        buckets.flatMap((bucket) => ["--configure-bucket", bucket]),
      ),
      ready: /listening on (127\.0\.0\.1:\d+)/,
    }),
  );
  const running = scope.move();
  return {
    url: `http://${server.match[1] ?? ""}`,
    // The one account that it has.
    accessKeyId: "S3RVER",
    secretAccessKey: "S3RVER",
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}
