import { S3Client } from "@aws-sdk/client-s3";
import { readFile, rename, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { pricesFile } from "../../catalog/prices.ts";
import { gpuSizes } from "../../catalog/sizes.ts";
import { loadStack } from "../../stack/load.ts";
import { parsed, runCommand } from "../cli.ts";
import { stackFile, stackNames } from "../stack-files.ts";
import { awsPrices, awsUrls } from "./aws-prices.ts";
import { azurePrices } from "./azure-prices.ts";
import type { FetchedRegion } from "./fetched.ts";
import { changeLines, merged } from "./merge.ts";
import type { AwsLogin } from "./sign.ts";

const help = `Fetches today's prices of GPU nodes into infra/catalog/prices.json. Nothing else ever does.

Usage: npm run prices -- refresh [options]

  --cloud CLOUD     azure or aws; default: both
  --region REGION   may be repeated; default: the regions of the stacks
  --write           write the file; without it only the changes are printed
  --json            print the changes as JSON

Azure: the Retail Prices API, without a login. AWS: the Price List API and the spot price history, with a login that has
pricing:GetProducts and ec2:DescribeSpotPriceHistory (AWS_PROFILE or another of the SDK's ways). Prices of network, storage
and stores (aux-prices.json, services.ts) are kept by hand.
`;

const options = {
  cloud: { type: "string" },
  region: { type: "string", multiple: true },
  write: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false },
} as const;

const path = fileURLToPath(new URL("../../catalog/prices.json", import.meta.url));

await runCommand("prices", async () => {
  const { values, positionals } = parsed(() => parseArgs({ allowPositionals: true, options }));
  if (values.help || positionals.join(" ") !== "refresh") {
    process.stdout.write(help);
    if (!values.help) process.exitCode = 2;
    return;
  }
  const today = new Date().toISOString().slice(0, 10);
  const fetched: FetchedRegion[] = [];
  for (const { cloud, region } of await wanted(values.cloud, values.region)) {
    const sizes = gpuSizes.filter((size) => size.cloud === cloud).map(({ name }) => name);
    const question = { region, sizes, today };
    fetched.push(
      cloud === "azure"
        ? await azurePrices(question)
        : await awsPrices(question, { ...awsUrls, login: await awsLogin(), now: () => new Date() }),
    );
  }
  const before = pricesFile.parse(JSON.parse(await readFile(path, "utf8")));
  const { file, changes } = merged(before, fetched, today);
  const text = values.json ? JSON.stringify(changes, null, 2) : changeLines(changes).join("\n");
  process.stdout.write(changes.length === 0 && !values.json ? "Every price is as it was.\n" : `${text}\n`);
  if (!values.write) {
    process.stderr.write("Nothing is written; --write does that, and then `git diff` shows it.\n");
    return;
  }
  await writeFile(`${path}.new`, `${JSON.stringify(pricesFile.parse(file), null, 2)}\n`);
  await rename(`${path}.new`, path);
});

/** Pairs of cloud and region to ask about. */
async function wanted(
  cloud: string | undefined,
  regions: readonly string[] | undefined,
): Promise<{ readonly cloud: "azure" | "aws"; readonly region: string }[]> {
  if (cloud !== undefined && cloud !== "azure" && cloud !== "aws") {
    throw new PenstockError("invalid_config", `--cloud ${cloud}: there are azure and aws.`);
  }
  const wrong = regions?.find((region) => !/^[a-z0-9-]{3,40}$/.test(region));
  if (wrong !== undefined) throw new PenstockError("invalid_config", `--region ${wrong} is no name of a region.`);
  if (regions !== undefined) {
    if (cloud === undefined) throw new PenstockError("invalid_config", "--region needs --cloud: whose region is it?");
    return regions.map((region) => ({ cloud, region }));
  }
  const files = await Promise.all((await stackNames()).map(stackFile));
  const stacks = await Promise.all(files.map(({ path: file }) => loadStack(file)));
  const pairs = stacks.flatMap((stack) =>
    stack.cloud === "local" || (cloud !== undefined && stack.cloud !== cloud)
      ? []
      : [{ cloud: stack.cloud, region: stack.region }],
  );
  return [...new Map(pairs.map((pair) => [`${pair.cloud} ${pair.region}`, pair])).values()];
}

/** The login that AWS's SDK finds. */
async function awsLogin(): Promise<AwsLogin> {
  const client = new S3Client({ region: "us-east-1" });
  try {
    return await client.config.credentials();
  } catch (cause) {
    const problem = "No login to AWS: set AWS_PROFILE or log in, or ask for --cloud azure alone.";
    throw new PenstockError("invalid_config", problem, { cause });
  } finally {
    client.destroy();
  }
}
