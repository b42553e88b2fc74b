import type { CostReport } from "./report.ts";

/** Says that prices are old, for every form of a report; null: they are not. */
export function staleText({ sources, assumptions }: Pick<CostReport, "sources" | "assumptions">): string | null {
  const stale = sources.filter(({ isStale }) => isStale);
  const oldest = stale[0];
  if (oldest === undefined) return null;
  return (
    `The catalogue is old: ${stale.length} of ${sources.length} price sources are older than ` +
    `${assumptions.staleAfterDays} days, the oldest from ${oldest.asOf}. ` +
    "`npm run prices -- refresh` fetches today's prices of nodes."
  );
}
