import assert from "node:assert/strict";
import { test } from "node:test";
import { describeTotals, joinJUnit, testCases, total } from "../scripts/test_results.ts";

const JUNIT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="deno test" tests="4" failures="1" errors="0" time="0.050">
  <testsuite name="./a.test.ts" tests="4" disabled="1" errors="0" failures="1">
    <testcase name="runs &quot;well&quot; &#x41;&#66;" classname="./a.test.ts" time="0.5" line="4" col="1">
    </testcase>
    <testcase name="skips itself" time="0.000" />
    <testcase name="skipped" time="0.000">
      <skipped/>
    </testcase>
    <testcase name="fails" time="0.003">
      <failure message="x">&lt;skipped/&gt;</failure>
    </testcase>
  </testsuite>
</testsuites>`;

test("passed, failed and skipped tests are counted, also those that skipped themselves while they ran", () => {
  const cases = testCases({ junit: JUNIT, exitCode: 1, skips: ["skips itself"] });
  assert.deepEqual(cases.map((found) => found.outcome), ["passed", "skipped", "skipped", "failed"]);
  assert.equal(cases[0]?.name, 'runs "well" AB');
  assert.equal(describeTotals(total(cases)), "1 passed, 1 failed, 2 skipped");
});

test("a failing hook counts as a failure though no test failed", () => {
  const junit = JUNIT.replace(/<failure.*<\/failure>/, "");
  assert.equal(describeTotals(total(testCases({ junit, exitCode: 0, skips: [] }))), "3 passed, 0 failed, 1 skipped");
  assert.equal(total(testCases({ junit, exitCode: 1, skips: [] })).failed, 1);
  assert.equal(total(testCases({ junit, exitCode: null, skips: [] })).failed, 1);
});

test("a file that runs no test, or whose runner writes no report, is a failure", () => {
  assert.equal(total(testCases({ junit: undefined, exitCode: 0, skips: [] })).failed, 1);
  assert.equal(total(testCases({ junit: "<testsuites></testsuites>", exitCode: 0, skips: [] })).failed, 1);
});

test("reports are joined into one", () => {
  const joined = joinJUnit("bun", [JUNIT, JUNIT]);
  assert.equal(joined.match(/<testcase /g)?.length, 8);
  assert.equal(joined.match(/<testsuites /g)?.length, 1);
});
