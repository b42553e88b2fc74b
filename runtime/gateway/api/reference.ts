import { isRecord } from "../metering/tokens.ts";
import type { JsonSchema, OpenApiDocument, Operation } from "./openapi.ts";

/** What the page may load: nothing but its own style. Send it as `content-security-policy`. */
export const referencePolicy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

const style = `
:root { color-scheme: light dark; --line: light-dark(#ddd, #3a3f47); --soft: light-dark(#f5f6f8, #1c2026); --ink: light-dark(#1b1f24, #e6e8eb); --paper: light-dark(#fff, #14171b); --mute: light-dark(#5b6470, #9aa4b0); --post: #0b7a4b; --get: #1f5fbf; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
.page { display: grid; grid-template-columns: 17rem minmax(0, 1fr); max-width: 78rem; margin: 0 auto; }
nav { position: sticky; top: 0; align-self: start; max-height: 100vh; overflow: auto; padding: 1.5rem 1rem; border-right: 1px solid var(--line); font-size: .875rem; }
nav a { display: block; padding: .2rem 0; color: inherit; text-decoration: none; overflow-wrap: anywhere; }
nav a:hover { text-decoration: underline; }
nav div { margin-bottom: .8rem; }
nav b { display: block; color: var(--mute); text-transform: capitalize; }
main { padding: 1.5rem 2rem 4rem; min-width: 0; }
h1 { margin: 0 0 .5rem; font-size: 1.6rem; }
section { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line); scroll-margin-top: 0; }
h2 { margin: 0; font: 600 1.05rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.method { display: inline-block; margin-right: .5rem; padding: 0 .45rem; border-radius: .25rem; color: #fff; background: var(--get); font-size: .8rem; }
.post { background: var(--post); }
pre { padding: .75rem 1rem; border: 1px solid var(--line); border-radius: .4rem; background: var(--soft); overflow-x: auto; font-size: .85rem; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
.fields { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
th, td { padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td:first-child { white-space: nowrap; }
summary { cursor: pointer; color: var(--mute); margin-top: .75rem; }
.mute { color: var(--mute); }
@media (max-width: 48rem) {
  .page { display: block; }
  nav { position: static; max-height: none; border-right: 0; border-bottom: 1px solid var(--line); columns: 2; column-gap: 1rem; padding: 1rem; }
  nav div { break-inside: avoid; }
  main { padding: 1rem 1rem 3rem; }
}`;

interface Entry {
  readonly path: string;
  readonly method: "get" | "post";
  readonly operation: Operation;
}

/** The reference as one page without scripts: it asks for nothing else, so it also works where there is no internet. */
export function referencePage(document: OpenApiDocument): string {
  const entries = Object.entries(document.paths).flatMap(([path, { get, post }]): Entry[] => [
    ...(post === undefined ? [] : [{ path, method: "post", operation: post } as const]),
    ...(get === undefined ? [] : [{ path, method: "get", operation: get } as const]),
  ]);
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(document.info.title)}</title><style>${style}</style></head>
<body><div class="page"><nav>${navigation(entries)}</nav><main>
<h1>${escape(document.info.title)}</h1>
<p>${rich(document.info.description)}</p>
<p class="mute">Version ${escape(document.info.version)}. Send your key as <code>Authorization: Bearer &lt;key&gt;</code>.
For programs: <a href="/openapi.json">openapi.json</a>.</p>
${entries.map((entry) => section(entry)).join("\n")}
</main></div></body></html>
`;
}

function navigation(entries: readonly Entry[]): string {
  const tags = Map.groupBy(entries, ({ operation }) => operation.tags[0] ?? "");
  return [...tags]
    .map(([tag, group]) => {
      const links = group.map(({ path, operation }) => `<a href="#${operation.operationId}">${escape(path)}</a>`);
      return `<div><b>${escape(tag)}</b>${links.join("")}</div>`;
    })
    .join("");
}

function section({ path, method, operation }: Entry): string {
  const body = Object.entries(operation.requestBody?.content ?? {})[0];
  const responses = Object.entries(operation.responses).map(
    ([status, { description }]: [string, { description?: string }]) => [
      `<code>${status}</code>`,
      rich(description ?? ""),
    ],
  );
  return `<section id="${operation.operationId}">
<h2><span class="method ${method}">${method.toUpperCase()}</span>${escape(path)}</h2>
<p>${rich(operation.summary)} ${rich(operation.description ?? "")}</p>
<pre><code>${escape(curl(path, body))}</code></pre>
${body === undefined ? "" : fields(body[1].schema)}
<details><summary>Answers</summary>${table(["status", "meaning"], responses)}</details>
</section>`;
}

function curl(path: string, body: readonly [type: string, { readonly example: unknown }] | undefined): string {
  const head = `curl $URL${path} -H "Authorization: Bearer $KEY"`;
  if (body === undefined) return head;
  const [type, { example }] = body;
  if (type === "application/json") {
    return `${head} \\\n  -H "Content-Type: application/json" \\\n  -d '${JSON.stringify(example)}'`;
  }
  const parts = Object.entries(isRecord(example) ? example : {}).map(([name, value]) => `-F ${name}=${String(value)}`);
  return `${head} \\\n  ${parts.join(" ")}`;
}

function fields({ properties, required }: JsonSchema): string {
  if (!isRecord(properties)) return "";
  const needed: readonly unknown[] = Array.isArray(required) ? required : [];
  const rows = Object.entries(properties).map(([name, schema]) => [
    `<code>${escape(name)}</code>`,
    escape(isRecord(schema) ? describe(schema) : ""),
    needed.includes(name) ? "required" : "",
  ]);
  return `<div class="fields">${table(["field", "value", ""], rows)}</div>`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return `<table><thead>${cells("th", head)}</thead><tbody>${rows.map((row) => cells("td", row)).join("")}</tbody></table>`;
}

function cells(tag: "td" | "th", row: readonly string[]): string {
  return `<tr>${row.map((cell) => `<${tag}>${cell}</${tag}>`).join("")}</tr>`;
}

/** A schema in a few words: `integer, at least 1`. */
function describe(schema: JsonSchema): string {
  const options = schema["anyOf"] ?? schema["oneOf"];
  if (Array.isArray(options)) {
    const words = options
      .filter((one) => isRecord(one) && one["type"] !== "null")
      .map((one) => describe(one as JsonSchema)); // filtered
    return [...new Set(words)].join(" or ");
  }
  if (Array.isArray(schema["enum"])) return schema["enum"].map((value) => JSON.stringify(value)).join(", ");
  if ("const" in schema) return JSON.stringify(schema["const"]);
  if (schema["type"] === "array")
    return `list of ${isRecord(schema["items"]) ? describe(schema["items"]) : "anything"}`;
  if (schema["format"] === "binary") return "file";
  const types = [schema["type"]].flat().filter((type) => typeof type === "string" && type !== "null");
  return [types.join(" or ") || "anything", ...bounds(schema)].join(", ");
}

function bounds(schema: JsonSchema): string[] {
  const told: readonly [key: string, words: string][] = [
    ["minimum", "at least"],
    ["exclusiveMinimum", "above"],
    ["maximum", "at most"],
  ];
  return told.flatMap(([key, words]) => {
    const bound = schema[key];
    // zod gives every integer the bounds of what JavaScript can hold.
    return typeof bound === "number" && Math.abs(bound) < Number.MAX_SAFE_INTEGER ? [`${words} ${bound}`] : [];
  });
}

/** Escapes, and turns `code` into code. */
function rich(text: string): string {
  return escape(text).replaceAll(/`([^`]*)`/g, "<code>$1</code>");
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
