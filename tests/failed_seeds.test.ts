/**
 * Every seed whose history ever broke a promise, what it showed, and the test that holds that. What is drawn has grown
 * since, so that most of them give another history now than the one that failed: those other tests, of `simulation` the
 * rules that are broken there, keep it mended.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { runProgram } from "./support/process.ts";
import { PROJECT, scriptCommand } from "./support/runtime.ts";

const LIMIT_MS = 120_000;

const FAILED: readonly [seed: number, showed: string, heldBy: string][] = [
  [60, "rows of a renamed table in another stream", "core_migrations"],
  [110, "a new column laid over what others said of it", "core_migrations"],
  [248, "a new column laid over what others said of it", "core_migrations"],
  [1499, "a lease that outlived its process", "simulation"],
  [5069, "rows pending under a name from before a rename", "core_migrations"],
  [5372, "a text that a lock cut off", "entry_reader"],
  [5509, "a table parked for validation beside a trigger that fires itself", "trigger_silence"],
  [8157, "answers about a table that was gone for a moment", "core_placements"],
  [8352, "a file that was replaced while a start waited", "file_replaced"],
  [9061, "an older copy from before a rename: a limit that docs/DESIGN.md names", "docs"],
  [15229, "a DEFAULT under another type", "core_types"],
  [17550, "the parts of a transaction in another order: the simulation's fault", "simulation"],
  [21717, "the parts of a transaction in another order: the simulation's fault", "simulation"],
  [22481, "the parts of a transaction in another order: the simulation's fault", "simulation"],
  [57081, "a clone of a file whose schema changed meanwhile", "integration/lifecycle"],
  [70461, "a node that ended for an old marker", "publish"],
  [73427, "a value under the type of a column that had not migrated", "core_types"],
  [400022, "a schema taken up in part where a lock was in the way", "simulation"],
  [23767745, "a commit forgotten at a lock", "capture_locked"],
  [30000508, "a clone with rows of messages that its stream lost", "lost_tail"],
  [49094048, "a copy with its original's lease: the simulation's fault", "simulation"],
];

for (const [seed, showed, heldBy] of FAILED) {
  test(`seed ${seed} showed: ${showed}`, async () => {
    assert.ok(existsSync(`${PROJECT}tests/${heldBy}.test.ts`), heldBy);
    const command = [...scriptCommand("scripts/simulate.ts"), "--seed", `${seed}`];
    const { code, stdout, stderr } = await runProgram(command, { timeoutMs: LIMIT_MS });
    assert.equal(code, 0, `${stdout}${stderr}`);
    assert.match(stdout, new RegExp(`^seed ${seed}: \\d+ actions, every promise held`));
  });
}
