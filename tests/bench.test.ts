import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { collapsed, recordOf } from "../scripts/bench/check.ts";
import { filled, picture, savedReports } from "../scripts/bench/report.ts";
import { Measurement } from "../scripts/bench/results.ts";
import { costTable, speedTable } from "../scripts/bench/tables.ts";
import { PROJECT } from "./support/runtime.ts";

/** Rounds of one scenario, whose writer got these shares of the speed of bare SQLite. */
function replicatedAt(...shares: readonly number[]): Measurement {
  const result = new Measurement("insert", "Marmot", "single rows", 1_000);
  for (const share of shares) result.add({ bare: 50_000, replicated: 50_000 * share, replicatedRatio: share });
  return result;
}

function squeezed(text: string): string {
  return text.replace(/-{3,}/g, "---").replace(/\s+/g, " ");
}

test("less than half of a recorded ratio is a collapse, more is not, and one undisturbed round is enough", () => {
  const recorded = recordOf([replicatedAt(0.3, 0.5, 0.4)]);
  assert.deepEqual(recorded, { "insert, single rows": { replicatedRatio: 0.4 } });
  assert.deepEqual(collapsed([replicatedAt(0.21)], recorded), []);
  assert.deepEqual(collapsed([replicatedAt(0.02, 0.21)], recorded), []);
  assert.deepEqual(collapsed([replicatedAt(0.19, 0.1)], recorded), [
    "insert, single rows: replicatedRatio is 19.0 % of bare SQLite, and was 40.0 %",
  ]);
});

test("what was recorded and is not measured any more counts as a collapse", () => {
  const recorded = { "insert, single rows": { endToEndRatio: 0.4 } };
  assert.deepEqual(collapsed([replicatedAt(0.5)], recorded), ["insert, single rows: endToEndRatio was not measured"]);
});

test("tables show medians with the lowest and highest round, speeds with their share of bare SQLite, and costs", () => {
  const result = replicatedAt(0.3, 0.5, 0.4);
  const cost = { bytesIn: 80_000, bytesOut: 160_000, peakMemory: { "node a": 99.6 }, foreignCores: 0.05 };
  result.costs.push({ cpu: { "node a": 0.012, broker: 0.001, "application a": 0.01 }, ...cost });
  assert.equal(
    speedTable([result]),
    "|  | system | rows | bare SQLite, rows/s | while replicated |\n| --- | --- | --- | --- | --- |\n" +
      "| single rows | Marmot | 1,000 | 50,000 (50,000–50,000) | 20,000 rows/s = 40.0 (30.0–50.0) % of bare |\n",
  );
  assert.match(
    costTable([result]),
    /\| 12\.0 ms \| 1\.00 ms \| 10\.0 ms \| 80\.0 kB \| 160 kB \| node a 100 MB \| 0\.05/,
  );
});

test("the tables and pictures of docs/BENCHMARKS.md are those of the files that the benchmark saved", async () => {
  const reports = await savedReports();
  assert.ok(reports.length > 0);
  const document = readFileSync(join(PROJECT, "docs/BENCHMARKS.md"), "utf8");
  assert.equal(squeezed(filled(document, reports)), squeezed(document));
  for (const report of reports) {
    const drawn = picture(report);
    if (drawn === undefined) continue;
    assert.equal(readFileSync(join(PROJECT, `docs/benchmarks/${report.scenario}.svg`), "utf8"), drawn);
  }
});
