import assert from "node:assert/strict";
import { test } from "node:test";
import { haveProgram } from "./support/skip.ts";
import { RUNTIME } from "./support/runtime.ts";
import { describeTorture } from "./torture/report.ts";
import { torture } from "./torture/run.ts";

/** On Deno the nodes are mixed, so that Bun's are tried as well. */
const SECONDS = RUNTIME === "deno" ? 60 : 20;
const NODES = 3;
const SEEDS = 2 ** 31;

test("whatever is killed, frozen, cut off or put back to an older copy, nothing is lost and all nodes end equal", async (context) => {
  if (!await haveProgram(context, ["python3", "--version"])) return;
  if (!await haveProgram(context, ["sqlite3", "--version"])) return;
  const seed = Math.floor(Math.random() * SEEDS);
  const lines = [`Again: deno task torture --seconds ${SECONDS} --nodes ${NODES} --seed ${seed}`];
  console.log(lines[0]);
  const result = await torture({ seconds: SECONDS, seed, nodes: NODES, say: (line) => lines.push(line) });
  assert.deepEqual(result.violations, [], [...lines, describeTorture(result)].join("\n"));
  assert.ok(result.commits > SECONDS && result.reads > SECONDS, describeTorture(result));
});
