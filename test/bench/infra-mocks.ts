import program from "../../infra/index.ts";
import { stackOf } from "../support/plans.ts";
import { awsMocks } from "../support/pulumi/aws.ts";
import { azureMocks } from "../support/pulumi/azure.ts";
import { underMocks } from "../support/pulumi/mocks.ts";

// `node test/bench/infra-mocks.ts azure-prod`: the whole program of a stack under Pulumi's mocks, once, for bench:infra.
const stack = process.argv[2] === "aws-prod" ? "aws-prod" : "azure-prod";
const mocks = stack === "aws-prod" ? awsMocks : azureMocks;
const config = {
  "penstock:stack": JSON.stringify(await stackOf(stack)),
  "penstock:tlsCertificate": "certificate",
  "penstock:tlsKey": "key",
};
const { resources } = await underMocks({ program, ...mocks, config, stack });
process.stdout.write(`${resources.length} resources\n`);
