import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { readJsonCall } from "../../runtime/gateway/api/call.ts";
import { applied, editBody, renameModel } from "../../runtime/gateway/api/edit-body.ts";
import { endpointOf, endpointPaths, errorBodyOf, type EndpointPath } from "../../runtime/gateway/api/endpoints.ts";
import { examples } from "../../runtime/gateway/api/examples.ts";
import { openApiDocument } from "../../runtime/gateway/api/openapi.ts";
import { referencePage } from "../../runtime/gateway/api/reference.ts";

const bytes = (value: unknown): Buffer => Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
const how = { allowedHosts: ["a.example", ".b.example"], whole: false };
const user = (content: unknown) => ({ model: "m", messages: [{ role: "user", content }] });

function refusal(path: EndpointPath, body: unknown, hosts: readonly string[] = []): PenstockError {
  try {
    readJsonCall(path, bytes(body), { allowedHosts: hosts, whole: false });
  } catch (error) {
    if (error instanceof PenstockError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

test.each(endpointPaths.filter((path) => endpointOf(path).body === "json"))("the example of %s is valid", (path) => {
  const example = bytes({ ...examples[path], of_the_engine_alone: [1] });
  const call = readJsonCall(path, example, how);
  expect(call.model).toBe("my-model");
  expect(applied(call.body)).toBe(example);
});

test.each<[EndpointPath, unknown, string]>([
  ["/v1/chat/completions", { model: "m", messages: "hi" }, "messages"],
  ["/v1/chat/completions", { messages: [] }, "model"],
  ["/v1/chat/completions", user([{ type: "image_url", image_url: 3 }]), "messages[0].content"],
  ["/v1/chat/completions", { ...user("x"), n: 0 }, "n"],
  ["/v1/chat/completions", { ...user("x"), logprobs: 3 }, "logprobs"],
  ["/v1/chat/completions", { ...user("x"), stream_options: { include_usage: "yes" } }, "stream_options.include_usage"],
  ["/v1/responses", { model: "m", input: 3 }, "input"],
  ["/v1/messages", { model: "m", messages: [{ role: "user", content: "x" }] }, "max_tokens"],
  ["/v1/embeddings", { model: "m", input: {} }, "input"],
  ["/v1/rerank", { model: "m", query: "q", documents: [] }, "documents"],
  ["/v1/audio/speech", { model: "m", input: "x", speed: 9 }, "speed"],
  ["/tokenize", { model: "m", prompt: 3 }, "prompt"],
])("%s refuses %j and names the field", (path, body, param) => {
  const error = refusal(path, body);
  expect(error.kind.status).toBe(400);
  expect(error.param).toBe(param);
});

test("errors of Anthropic's endpoints have Anthropic's shape, all others OpenAI's", () => {
  const error = new PenstockError("rate_limited", "Slow down.");
  expect(errorBodyOf("/v1/messages", error)).toEqual({
    type: "error",
    error: { type: "rate_limit_error", message: "Slow down." },
  });
  expect(errorBodyOf("/v1/chat/completions", error)).toEqual(error.toBody());
  expect(errorBodyOf("/toString", error)).toEqual(error.toBody());
});

describe("usage of a stream", () => {
  const stream = { ...user("hi"), stream: true };

  test("is asked for when the client did not, and its event is hidden", () => {
    const call = readJsonCall("/v1/chat/completions", bytes(stream), how);
    expect(call.hidesUsage).toBe(true);
    expect(JSON.parse(applied(call.body).toString())).toEqual({ ...stream, stream_options: { include_usage: true } });
  });

  test("keeps the client's other stream options", () => {
    const call = readJsonCall(
      "/v1/completions",
      bytes('{"model":"m","prompt":"a","stream":true,"stream_options":{"x":1}}'),
      how,
    );
    expect(JSON.parse(applied(call.body).toString())).toMatchObject({ stream_options: { x: 1, include_usage: true } });
  });

  test.each<[EndpointPath, object]>([
    ["/v1/chat/completions", { ...stream, stream_options: { include_usage: true } }],
    ["/v1/chat/completions", user("hi")],
    ["/v1/messages", { ...stream, max_tokens: 1 }],
    ["/v1/responses", { model: "m", input: "x", stream: true }],
  ])("is left alone otherwise: %s %j", (path, body) => {
    const sent = bytes(body);
    const call = readJsonCall(path, sent, how);
    expect(applied(call.body)).toBe(sent);
    expect(call.hidesUsage).toBe(false);
  });
});

test("an edit changes the named fields, and nothing else", () => {
  const fields = fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 5, noNullPrototype: true });
  const space = fc.constantFrom("", " ", "\n\t");
  fc.assert(
    fc.property(fields, fields, space, (parsed, changes, padding) => {
      const body = Buffer.from(`${padding}${JSON.stringify(parsed, null, padding)}${padding}`);
      const edited = applied(editBody(body, JSON.parse(body.toString()), changes));
      expect(JSON.parse(edited.toString())).toEqual(JSON.parse(JSON.stringify({ ...parsed, ...changes })));
    }),
  );
});

describe("another model", () => {
  const renaming = (body: string, from: string, to: string): string =>
    applied(renameModel({ bytes: Buffer.from(body), edits: [] }, from, to)).toString();
  const names = fc.oneof(fc.constantFrom("m", "model", "m:one", 'a"b', "\\"), fc.string());
  const inner = fc.constantFrom<unknown>(1, "model", '"model"', { model: "m" }, [{ model: "m" }], {
    "mod\\u0065l": "m",
  });
  const others = fc.dictionary(fc.string(), inner, { maxKeys: 3, noNullPrototype: true });

  test("is named in place of the client's, and nothing else changes", () => {
    const padding = fc.constantFrom("", " ", "\n\t");
    const requests = fc.record({ before: others, after: others, from: names, to: names, padding });
    fc.assert(
      fc.property(requests, (request) => {
        const { before, after, from, to } = request;
        const parsed: Record<string, unknown> = { ...before, model: from, ...after };
        parsed["model"] = from;
        const body = request.padding + JSON.stringify(parsed, null, request.padding) + request.padding;
        expect(JSON.parse(renaming(body, from, to))).toEqual({ ...parsed, model: to });
      }),
    );
  });

  test("leaves every other byte of a long conversation as it is", () => {
    const body = '{ "messages" :[{"content":"a \\"model\\": \\u00e4"}],"model"\n: "m", "x":1.0 }';
    expect(renaming(body, "m", "m:one")).toBe(body.replace('"m"', '"m:one"'));
  });

  test("is named beside what metering adds", () => {
    const body = bytes({ stream: true, model: "m", x: { y: 1 } });
    const edited = editBody(body, { stream: true, model: "m", x: 1 }, { added: 1 });
    const renamed = applied(renameModel(edited, "m", "longer")).toString();
    expect(renamed).toBe('{"stream":true,"model":"longer","x":{"y":1},"added":1}');
  });

  test.each([
    '{"model":"m","x":{"model":"m"}}',
    '{"x":{"model":"m"},"model":"m"}',
    '{"model":"other","model":"m"}',
    '{"mod\\u0065l":"m","x":{"model":"m"}}',
    '{"\\u006dodel":"m"}',
    '{"model":"\\u006d"}',
    '{"x":"model","model":"m"}',
    '{"x":["model"],"y":{"model" :"m"},"model":"m"}',
  ])("is found wherever it stands: %s", (body) => {
    expect(JSON.parse(renaming(body, "m", "n"))).toEqual({ ...JSON.parse(body), model: "n" });
  });
});

describe("addresses", () => {
  const remote = "https://internal.example/x.png";
  test.each<[EndpointPath, object, string]>([
    [
      "/v1/chat/completions",
      user([{ type: "image_url", image_url: { url: remote } }]),
      "messages[0].content[0].image_url.url",
    ],
    ["/v1/chat/completions", user([{ type: "image_url", image_url: remote }]), "messages[0].content[0].image_url"],
    ["/v1/chat/completions", user([{ type: "x", video_url: { url: remote } }]), "messages[0].content[0].video_url.url"],
    [
      "/v1/chat/completions",
      user([
        { type: "text", text: "a" },
        { type: "audio_url", audio_url: { url: "file:///etc/passwd" } },
      ]),
      "messages[0].content[1].audio_url.url",
    ],
    [
      "/v1/responses",
      { model: "m", input: [{ role: "user", content: [{ type: "input_image", image_url: remote }] }] },
      "input[0].content[0].image_url",
    ],
    [
      "/v1/responses",
      { model: "m", input: [{ type: "function_call_output", output: [{ type: "input_file", file_url: remote }] }] },
      "input[0].output[0].file_url",
    ],
    ["/v1/responses", { model: "m", input: "x", tools: [{ type: "mcp", server_url: remote }] }, "tools[0].server_url"],
    [
      "/v1/messages",
      { ...user([{ type: "image", source: { type: "url", url: remote } }]), max_tokens: 1 },
      "messages[0].content[0].source.url",
    ],
    [
      "/v1/messages",
      {
        ...user([{ type: "tool_result", content: [{ type: "image", source: { type: "url", url: remote } }] }]),
        max_tokens: 1,
      },
      "messages[0].content[0].content[0].source.url",
    ],
    [
      "/v1/score",
      { model: "m", text_1: "a", text_2: { content: [{ type: "image_url", image_url: { url: remote } }] } },
      "text_2.content[0].image_url.url",
    ],
  ])("%s: nothing is fetched for %j", (path, body, param) => {
    expect(refusal(path, body).param).toBe(param);
  });

  test.each([
    "http://a.example@evil.test/x",
    "https://a.example.evil.test/",
    "https://evil.test/a.example",
    "//a.example/x",
    "ftp://a.example/x",
    "a.example",
  ])("%s is not a.example", (url) => {
    expect(refusal("/v1/chat/completions", user([{ type: "image_url", image_url: { url } }]), ["a.example"]).code).toBe(
      "invalid_value",
    );
  });

  test.each<[string, unknown]>([
    ["data: holds the content", user([{ type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } }])],
    ["an allowed host", user([{ type: "image_url", image_url: { url: "https://a.example/x.png" } }])],
    ["below an allowed domain", user([{ type: "image_url", image_url: { url: "https://x.b.example/y" } }])],
    ["words of a user", user("see https://internal.example/")],
    [
      "what a tool is called with",
      {
        ...user("x"),
        tools: [
          { type: "function", function: { name: "get", parameters: { properties: { url: { const: remote } } } } },
        ],
      },
    ],
  ])("pass: %s", (_, body) => {
    expect(readJsonCall("/v1/chat/completions", bytes(body), how).model).toBe("m");
  });

  test("content that nests without end is refused, not followed", () => {
    let content: unknown = [];
    for (let depth = 0; depth < 1_000; depth += 1) content = [{ type: "tool_result", content }];
    expect(refusal("/v1/messages", { ...user(content), max_tokens: 1 }).code).toBe("invalid_value");
  });
});

describe("reference", () => {
  const document = openApiDocument("1.2.3");

  test("has every endpoint, with the fields that are checked", () => {
    for (const path of endpointPaths) {
      const content = Object.entries(document.paths[path]?.post?.requestBody?.content ?? {});
      expect(content[0]?.[0]).toBe(endpointOf(path).body === "json" ? "application/json" : "multipart/form-data");
      expect(content[0]?.[1].schema).toMatchObject({ type: "object", required: expect.arrayContaining(["model"]) });
    }
    const ids = Object.values(document.paths).map(({ get, post }) => (get ?? post)?.operationId);
    expect(new Set(ids).size).toBe(ids.length);
    expect(
      document.paths["/v1/audio/translations"]?.post?.requestBody?.content["multipart/form-data"]?.schema,
    ).toMatchObject({
      properties: { file: { format: "binary" } },
    });
  });

  test("as a page names them all, and loads nothing from anywhere", () => {
    const page = referencePage(document);
    for (const path of Object.keys(document.paths)) expect(page).toContain(`</span>${path}</h2>`);
    expect(page).not.toMatch(/<script|<link|src=|url\(|https?:/i);
    expect(page).toContain("integer, at least 1, at most 128");
    expect(page).toContain("Authorization: Bearer &lt;key&gt;");
  });
});
