import { once } from "node:events";
import { request } from "node:http";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { boundaryOf, FormWatcher } from "../../runtime/gateway/api/multipart.ts";
import { apiKey, gatewayUnderTest } from "./support.ts";

const bounds = { fieldsBytes: 1_000, parts: 10 };

interface Part {
  readonly name: string;
  readonly value: string;
  readonly filename?: string;
}

function form(parts: readonly Part[], boundary = "b0und"): Buffer {
  const text = parts.map(({ name, value, filename }) => {
    const file = filename === undefined ? "" : `; filename="${filename}"\r\nContent-Type: audio/wav`;
    return `--${boundary}\r\nContent-Disposition: form-data; name="${name}"${file}\r\n\r\n${value}\r\n`;
  });
  return Buffer.from(`${text.join("")}--${boundary}--\r\n`);
}

function watch(body: Buffer | string, sizes: readonly number[] = [1]): FormWatcher {
  const watcher = new FormWatcher("b0und", bounds);
  const bytes = Buffer.from(body);
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const size = sizes[turn % sizes.length] ?? 1;
    watcher.write(bytes.subarray(at, at + size));
    at += size;
  }
  return watcher;
}

test("fields are found wherever the chunks are cut", () => {
  const value = fc.string({ unit: fc.constantFrom("a", "é", "\r", "\n", "-", "b0un", "\r\n--b0un") });
  const parts = fc.uniqueArray(fc.record({ name: fc.stringMatching(/^[a-z]{1,8}$/), value }), {
    selector: ({ name }) => name,
    maxLength: 5,
  });
  fc.assert(
    fc.property(parts, value, fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (fields, file, sizes) => {
      fc.pre(![...fields.map((field) => field.value), file].some((text) => text.includes("--b0und")));
      const watcher = watch(form([...fields, { name: "file", value: file, filename: "a.wav" }]), sizes);
      expect(Object.fromEntries(watcher.fields)).toEqual(
        Object.fromEntries(fields.map((field) => [field.name, field.value])),
      );
      expect(watcher.ended).toBe(true);
    }),
  );
});

const model = { name: "model", value: "m" };
const head = '--b0und\r\nContent-Disposition: form-data; name="model"';
test.each<[what: string, body: string]>([
  ["a second model", form([model, { name: "model", value: "other" }]).toString()],
  ["a model that is a file", form([{ ...model, filename: "x" }]).toString()],
  ["a preamble", `x\r\n${form([model]).toString()}`],
  ["another boundary", form([model], "other").toString()],
  [
    "a delimiter that ends in a bare line feed",
    `${head}\r\n\r\nm\r\n--b0und\nContent-Disposition: form-data; name="x"\r\n\r\n`,
  ],
  [
    "a delimiter after a bare line feed",
    form([
      model,
      { name: "file", value: '\n--b0und\r\nContent-Disposition: form-data; name="model"\n\nx', filename: "f" },
    ]).toString(),
  ],
  ["a delimiter within content", form([model, { name: "file", value: "x--b0und\r\n", filename: "f" }]).toString()],
  ["a longer boundary", form([model, { name: "file", value: "x\r\n--b0undless\r\n", filename: "f" }]).toString()],
  ["a delimiter at once after the head", `${head}\r\n\r\n--b0und--\r\n`],
  ["two dispositions", `${head}\r\nContent-Disposition: form-data; name="x"\r\n\r\nm\r\n--b0und--\r\n`],
  ["two names", '--b0und\r\nContent-Disposition: form-data; name="x"; name="model"\r\n\r\nm\r\n--b0und--\r\n'],
  ["an encoded name", "--b0und\r\nContent-Disposition: form-data; name*=utf-8''model\r\n\r\nm\r\n--b0und--\r\n"],
  ["both kinds of name", `${head}; name*=utf-8''x\r\n\r\nm\r\n--b0und--\r\n`],
  ["no name", "--b0und\r\nContent-Disposition: form-data\r\n\r\nm\r\n--b0und--\r\n"],
  ["an escaped name", '--b0und\r\nContent-Disposition: form-data; name="mo\\"del"\r\n\r\nm\r\n--b0und--\r\n'],
  ["no head", "--b0und\r\n\r\nm\r\n--b0und--\r\n"],
  ["a folded header", `--b0und\r\nContent-Disposition: form-data;\r\n name="model"\r\n\r\nm\r\n--b0und--\r\n`],
  ["a head without end", `--b0und\r\n${"X: y\r\n".repeat(2_000)}`],
  ["a field that is too long", form([{ name: "prompt", value: "x".repeat(2_000) }]).toString()],
  ["too many parts", form(Array.from({ length: 11 }, (_, n) => ({ name: `p${n}`, value: "" }))).toString()],
])("%s is refused", (_, body) => {
  expect(() => watch(body, [7])).toThrow(expect.objectContaining({ code: "invalid_value" }));
});

test("a field that is not UTF-8 is refused", () => {
  const [before = "", after = ""] = form([model]).toString().split("\r\n\r\nm\r\n");
  const body = Buffer.concat([Buffer.from(`${before}\r\n\r\n`), Buffer.from([0xff]), Buffer.from(`\r\n${after}`)]);
  expect(() => watch(body)).toThrow(/UTF-8/);
});

test("a list may come several times, and a file of a megabyte keeps nothing", () => {
  const list = { name: "timestamp_granularities[]", value: "word" };
  const watcher = watch(
    form([list, list, { name: "file", value: "\r\n".repeat(500_000), filename: "f" }, model]),
    [65_536],
  );
  expect(watcher.fields.get("model")).toBe("m");
});

test.each([
  "",
  "multipart/form-data",
  "multipart/form-data; boundary=a; boundary=b",
  'multipart/form-data; boundary="a b "',
  "multipart/mixed; boundary=a",
  `multipart/form-data; boundary=${"a".repeat(71)}`,
])("the content type %j is refused", (type) => {
  expect(() => boundaryOf(type)).toThrow(/boundary/);
});

test("a content type as clients write it", () => {
  expect(boundaryOf('multipart/form-data; boundary="----x y"')).toBe("----x y");
  expect(boundaryOf("Multipart/Form-Data;boundary=--WebKit123")).toBe("--WebKit123");
});

describe("through the gateway", () => {
  const path = "/v1/audio/transcriptions";
  const headers = { authorization: `Bearer ${apiKey}`, "content-type": "multipart/form-data; boundary=b0und" };

  test("the engine gets the form byte for byte", async () => {
    let seen = "";
    await using under = await gatewayUnderTest({
      onInfer(_, outgoing, body) {
        seen = body;
        outgoing.writeHead(200, { "content-type": "application/json" }).end('{"text":"hello"}');
      },
    });
    const body = form([model, { name: "file", value: "sound\r\n".repeat(100_000), filename: "ü.wav" }]);
    const response = await fetch(under.gateway.url + path, { method: "POST", headers, body });
    expect([response.status, await response.json()]).toEqual([200, { text: "hello" }]);
    expect(seen === body.toString()).toBe(true);
  });

  test("a model after a short file is found", async () => {
    await using under = await gatewayUnderTest({ onInfer: (_, outgoing) => void outgoing.end("{}") });
    const body = form([{ name: "file", value: "short", filename: "f" }, model]);
    expect((await fetch(under.gateway.url + path, { method: "POST", headers, body })).status).toBe(200);
  });

  test.each([
    ["no model", form([{ name: "language", value: "en" }])],
    ["a form that ends early", form([model]).subarray(0, -6)],
    [
      "a second model behind the file",
      form([model, { name: "file", value: "x".repeat(300_000), filename: "f" }, model]),
    ],
  ])("%s is a 400", async (_, body) => {
    await using under = await gatewayUnderTest({ onInfer: (_request, outgoing) => void outgoing.end("{}") });
    const response = await fetch(under.gateway.url + path, { method: "POST", headers, body });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { type: "invalid_request_error" } });
  });

  test("a client that leaves during its upload does no harm", async () => {
    await using under = await gatewayUnderTest({ onInfer: (_, outgoing) => void outgoing.end("{}") });
    const upload = request(under.gateway.url + path, { method: "POST", headers });
    upload.on("error", () => undefined);
    upload.write(form([model, { name: "file", value: "x".repeat(100_000), filename: "f" }]).subarray(0, 50_000));
    await once(upload, "socket");
    upload.destroy();
    const body = form([model, { name: "file", value: "x", filename: "f" }]);
    expect((await fetch(under.gateway.url + path, { method: "POST", headers, body })).status).toBe(200);
  });
});
