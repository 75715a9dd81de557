/** Tests that need an application this machine may not have. */
import { appendFileSync } from "node:fs";
import process from "node:process";
import { runProgram } from "./process.ts";
import { RUNTIME } from "./runtime.ts";

/** What a skip needs of node:test's TestContext. */
export interface SkippableTest {
  readonly name: string;
  skip(reason?: string): void;
}

/**
 * Counts this test as skipped, with the reason; the test has to return after it. With MARMOT_REQUIRE_ALL=1, which CI
 * sets, it throws instead: there everything must be tried.
 */
export function skipTest(context: SkippableTest, reason: string): void {
  if (process.env.MARMOT_REQUIRE_ALL === "1") throw new Error(`Cannot skip with MARMOT_REQUIRE_ALL=1: ${reason}`);
  // Deno reports a test that was skipped while it ran as passed, so the test script counts from this file.
  const record = process.env.MARMOT_TEST_SKIPS;
  if (record !== undefined) {
    appendFileSync(record, `${JSON.stringify({ runtime: RUNTIME, test: context.name, reason })}\n`);
  }
  context.skip(reason);
}

/**
 * Whether `command` (such as `["sqlite3", "--version"]`) runs here and succeeds; if not, the test is skipped:
 * `if (!await haveProgram(context, ["sqlite3", "--version"])) return;`
 */
export async function haveProgram(context: SkippableTest, command: readonly string[]): Promise<boolean> {
  const failure = await runProgram(command).then(
    (result) => result.code === 0 ? undefined : `exit code ${result.code}: ${result.stderr.trim()}`,
    (error: unknown) => error instanceof Error ? error.message : String(error),
  );
  if (failure !== undefined) skipTest(context, `${command.join(" ")} does not run here (${failure})`);
  return failure === undefined;
}
