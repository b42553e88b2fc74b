import { z } from "zod";
import content from "./aux-prices.json" with { type: "json" };
import { checked, day } from "./read.ts";

const file = z.strictObject({
  asOf: day,
  currency: z.literal("USD"),
  prices: z.array(
    z.strictObject({
      cloud: z.enum(["azure", "aws"]),
      item: z.string().min(1),
      usd: z.number().min(0),
      unit: z.string().min(1),
      source: z.string().min(1),
    }),
  ),
});

const { asOf, prices } = checked("aux-prices.json", file, content);

/** Price of something beside the nodes, in a US region: control plane, NAT, storage. */
export type AuxPrice = z.infer<typeof file>["prices"][number] & { readonly asOf: string };

/** All of them. */
export const auxPrices: readonly AuxPrice[] = prices.map((price) => ({ ...price, asOf }));
