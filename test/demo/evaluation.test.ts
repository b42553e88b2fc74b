import { expect, test } from "vitest";
import { scoreTable } from "../../runtime/demo/evaluate.ts";
import { evaluateEndpoint } from "../../runtime/demo/score.ts";
import { EngineProcess } from "../embedded/engine-process.ts";
import { demoModel } from "../support/repository.ts";

test("the checked-in model passes its evaluation through the embedded engine", async () => {
  await using engine = await EngineProcess.start("--model-path", demoModel);
  const card = await evaluateEndpoint({ url: `${engine.url}/v1` });
  expect(card.results.length).toBeGreaterThan(60);
  expect(card.score, scoreTable(card)).toBeGreaterThanOrEqual(card.passingScore);
});
