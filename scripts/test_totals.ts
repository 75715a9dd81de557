/** The sum of all that is in .test-results: the last runs on Deno, on Bun and of each program. `N passed, N failed` */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describeTotals, type Totals } from "./test_results.ts";

const RESULTS = ".test-results";

const runs = (await readdir(RESULTS)).filter((name) => name.endsWith(".json")).sort();
const sum = { passed: 0, failed: 0, skipped: 0 };
for (const name of runs) {
  const totals: Totals = JSON.parse(await readFile(join(RESULTS, name), "utf8"));
  process.stdout.write(`${name.slice(0, -".json".length)}: ${describeTotals(totals)}\n`);
  sum.passed += totals.passed;
  sum.failed += totals.failed;
  sum.skipped += totals.skipped;
}
process.stdout.write(`${describeTotals(sum)}\n`);
process.exitCode = sum.failed === 0 && sum.passed > 0 ? 0 : 1;
