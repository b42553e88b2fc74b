import * as fc from "fast-check";
import { Histogram, Registry } from "prom-client";
import { expect, test } from "vitest";
import { Distribution, liveHistogram } from "../../runtime/lib/metrics.ts";

const buckets = [0.1, 1, 2.5];
const about = { name: "seconds", help: "How long.", buckets };

test("a histogram that its owner counts is scraped as prom-client's own", async () => {
  const observations = fc.array(fc.tuple(fc.constantFrom("a", 'b"\\'), fc.constantFrom(0, 0.1, 0.5, 1, 2.5, 3, 1e9)));
  await fc.assert(
    fc.asyncProperty(observations, async (observed) => {
      const [own, theirs] = [new Registry(), new Registry()];
      const histogram = new Histogram({ ...about, labelNames: ["model"], registers: [theirs] });
      const lines = new Map<string, Distribution>();
      liveHistogram(own, about, () => [...lines].map(([model, line]) => [{ model }, line] as const));
      for (const [model, value] of observed) {
        histogram.observe({ model }, value);
        const line = lines.get(model) ?? new Distribution(buckets);
        lines.set(model, line);
        line.observe(value);
      }
      expect(await own.metrics()).toBe(await theirs.metrics());
    }),
  );
});
