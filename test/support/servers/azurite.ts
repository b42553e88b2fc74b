import { temporaryFolder } from "../folders.ts";
import { packageScript } from "./packages.ts";
import { startServer } from "./process.ts";

/** Azurite: Azure Blob Storage as Microsoft's emulator has it. */
export interface Azurite extends AsyncDisposable {
  /** Its origin. */
  readonly url: string;
  readonly account: string;
  readonly accountKey: string;
  /** The blob endpoint of the account; `origin` is that of a proxy in front. */
  endpoint(origin?: string): string;
  connectionString(origin?: string): string;
}

const account = "penstock";
const accountKey = Buffer.from("a key for tests").toString("base64");

/** Starts an empty Azurite with one account. */
export async function azurite(): Promise<Azurite> {
  const script = await packageScript("azurite/dist/src/blob/main.js");
  await using scope = new AsyncDisposableStack();
  const folder = scope.use(await temporaryFolder());
  const server = scope.use(
    await startServer({
      command: process.execPath,
      // Without the check, as the Azure SDK speaks a newer version of the API than Azurite knows by name.
      args: [script, "--silent", "--disableTelemetry", "--skipApiVersionCheck"].concat(
        ["--blobPort", "0"],
        ["--location", folder.path],
      ),
      env: { AZURITE_ACCOUNTS: `${account}:${accountKey}` },
      ready: /listens on (http:\/\/127\.0\.0\.1:\d+)/,
    }),
  );
  const url = server.match[1] ?? "";
  const endpoint = (origin = url) => `${origin}/${account}`;
  const running = scope.move();
  return {
    url,
    account,
    accountKey,
    endpoint,
    connectionString: (origin) =>
      `DefaultEndpointsProtocol=http;AccountName=${account};AccountKey=${accountKey};BlobEndpoint=${endpoint(origin)};`,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}
