import { Hono } from "hono";
import { expect, test } from "vitest";
import {
  errorFromBody,
  errorTable,
  isErrorCode,
  PenstockError,
  toPenstockError,
} from "../../runtime/contracts/errors.ts";
import { parseJson, parseRequest } from "../../runtime/contracts/validate.ts";
import { chatCompletionRequest } from "../../runtime/contracts/openai.ts";
import { notFound, onError, requireBearer } from "../../runtime/lib/http.ts";
import { createLog } from "../../runtime/lib/log.ts";
import type { NodeEnv } from "../../runtime/lib/serve.ts";

test.each(Object.keys(errorTable))("%s survives the way from one service to another", (code) => {
  if (!isErrorCode(code)) throw new Error(`${code} is not in the table`);
  const error = new PenstockError(code, "do this", { param: "a.b" });
  expect(error.kind.status).toBeGreaterThanOrEqual(400);
  expect(errorFromBody(JSON.parse(JSON.stringify(error.toBody())))).toMatchObject({
    code,
    message: "do this",
    param: "a.b",
  });
});

test("what is not in the table keeps its message and stack to itself", async () => {
  const app = new Hono<NodeEnv>();
  app.onError(onError(createLog("test", "silent")));
  app.notFound(notFound);
  app.get("/bug", () => {
    throw new TypeError("secret detail");
  });
  const response = await app.request("/bug");
  expect(response.status).toBe(500);
  const text = await response.text();
  expect(text).not.toContain("secret");
  expect(JSON.parse(text)).toMatchObject({ error: { code: "internal_error", type: "server_error" } });
  expect((await app.request("/nowhere")).status).toBe(404);
});

test("an unknown error has the cause for the log", () => {
  const cause = new Error("x");
  expect(toPenstockError(cause)).toMatchObject({ code: "internal_error", cause });
});

test.each([
  [undefined, 401],
  ["Bearer wrong", 401],
  ["Basic a2V5", 401],
  ["Bearer right-key-0001", 200],
  ["bearer right-key-0001", 200],
])("authorization %s is %i", async (authorization, status) => {
  const app = new Hono<NodeEnv>();
  app.onError(onError(createLog("test", "silent")));
  app.use(requireBearer("right-key-0001"));
  app.get("/", (c) => c.text("in"));
  const response = await app.request("/", authorization === undefined ? {} : { headers: { authorization } });
  expect(response.status).toBe(status);
});

test.each([
  [{}, "missing_field", "model"],
  [{ model: "m" }, "missing_field", "messages"],
  [{ model: "m", messages: [] }, "invalid_value", "messages"],
  [{ model: "m", messages: [{ role: "user", content: 3 }] }, "invalid_value", "messages[0].content"],
  [{ model: "m", messages: [{ role: "wizard", content: "x" }] }, "invalid_value", "messages[0].role"],
  [{ model: "m", messages: [{ role: "user", content: "x" }], temperature: "hot" }, "invalid_value", "temperature"],
  [[], "invalid_value", null],
])("a body like %j is refused as %s at %s", (body, code, param) => {
  expect(() => parseRequest(chatCompletionRequest, body)).toThrow(expect.objectContaining({ code, param }));
});

test("unknown fields pass through", () => {
  const body = { model: "m", messages: [{ role: "user", content: "x", extra: 1 }], guided_json: {} };
  expect(parseRequest(chatCompletionRequest, body)).toEqual(body);
});

test.each(["{", "", "\u0000", '{"a":1}x'])("%j is not JSON, and the error does not repeat it", (text) => {
  expect(() => parseJson(Buffer.from(text))).toThrow(expect.objectContaining({ code: "invalid_json" }));
});

test("invalid UTF-8 is not JSON", () => {
  expect(() => parseJson(Buffer.from([0x22, 0xff, 0xfe, 0x22]))).toThrow("not JSON");
});
