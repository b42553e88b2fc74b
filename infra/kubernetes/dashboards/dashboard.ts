/** Units that Grafana knows, as far as they are used here. */
export type Unit =
  "s" | "reqps" | "short" | "percentunit" | "percent" | "bytes" | "celsius" | "watt" | "currencyUSD" | "decmbytes";

/** A query and what its lines are called, such as `{{model}}`. */
export interface Query {
  readonly expr: string;
  readonly legend: string;
}

/** A panel of a dashboard. */
export interface Panel {
  readonly title: string;
  /** What it shows, and what to do about it. */
  readonly about: string;
  readonly unit: Unit;
  readonly queries: readonly Query[];
  /** `lines` over time, one `number`, or a `table` of the last values. Default: lines. */
  readonly as?: "lines" | "number" | "table";
  /** Lines on top of each other, where their sum is of interest. */
  readonly stacked?: boolean;
}

/** Panels under a title. */
export interface Row {
  readonly title: string;
  readonly panels: readonly Panel[];
}

/** A dashboard as we write it; `grafanaJson` makes Grafana's of it. */
export interface Dashboard {
  /** Address in Grafana, and file name. */
  readonly uid: string;
  readonly title: string;
  readonly rows: readonly Row[];
}

/** Three panels beside each other in Grafana's 24 columns. */
const perRow = 3;
const size = { w: 24 / perRow, h: 8 } as const;
const datasource = { type: "prometheus", uid: "${datasource}" } as const;
/** Names of a panel's queries. */
const refIds = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const kinds = { lines: "timeseries", number: "stat", table: "table" } as const;

/** Grafana's JSON, the same for the same dashboard. It asks for the Prometheus to read, so that it fits each one. */
export function grafanaJson({ uid, title, rows }: Dashboard): Record<string, unknown> {
  return {
    uid,
    title,
    tags: ["penstock"],
    editable: false,
    schemaVersion: 39,
    version: 1,
    refresh: "30s",
    time: { from: "now-3h", to: "now" },
    timezone: "utc",
    templating: {
      list: [{ name: "datasource", label: "Prometheus", type: "datasource", query: "prometheus", hide: 0 }],
    },
    panels: panelsOf(rows),
  };
}

function panelsOf(rows: readonly Row[]): Record<string, unknown>[] {
  const panels: Record<string, unknown>[] = [];
  let y = 0;
  const nextId = (): number => panels.length + 1;
  for (const { title, panels: inRow } of rows) {
    panels.push({ id: nextId(), type: "row", title, collapsed: false, gridPos: { x: 0, y, w: 24, h: 1 }, panels: [] });
    y += 1;
    for (const [at, panel] of inRow.entries()) {
      const place = { x: (at % perRow) * size.w, y: y + Math.floor(at / perRow) * size.h, ...size };
      panels.push(panelOf(panel, nextId(), place));
    }
    y += Math.ceil(inRow.length / perRow) * size.h;
  }
  return panels;
}

function panelOf(panel: Panel, id: number, gridPos: Record<string, number>): Record<string, unknown> {
  const { title, about, unit, queries, as = "lines", stacked = false } = panel;
  return {
    id,
    type: kinds[as],
    title,
    description: about,
    datasource,
    gridPos,
    fieldConfig: {
      defaults: {
        unit,
        ...(as === "lines" ? { custom: lineStyle(stacked) } : {}),
      },
      overrides: [],
    },
    options: optionsOf(as),
    targets: queries.map(({ expr, legend }, at) => ({
      refId: refIds.charAt(at),
      datasource,
      expr,
      legendFormat: legend,
      ...(as === "table" ? { format: "table", instant: true } : {}),
    })),
  };
}

function lineStyle(stacked: boolean): Record<string, unknown> {
  return {
    drawStyle: "line",
    lineWidth: 1,
    fillOpacity: stacked ? 30 : 5,
    showPoints: "never",
    stacking: { mode: stacked ? "normal" : "none" },
  };
}

function optionsOf(as: NonNullable<Panel["as"]>): Record<string, unknown> {
  if (as === "table") return { showHeader: true };
  if (as === "number") return { reduceOptions: { calcs: ["lastNotNull"] }, textMode: "value_and_name" };
  return { legend: { displayMode: "list", placement: "bottom" }, tooltip: { mode: "multi", sort: "desc" } };
}
