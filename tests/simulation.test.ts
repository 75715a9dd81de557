/**
 * Whole clusters in virtual time, over a network and disks that fail as a seed says: see scripts/simulate.ts. Each run takes
 * other seeds, and prints the first.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { bunProgram } from "../scripts/test_runtimes.ts";
import { MUTANTS } from "./simulation/mutants.ts";
import { copyBroken, mutate } from "./simulation/mutation.ts";
import { runProgram } from "./support/process.ts";
import { PROJECT, RUNTIME, scriptCommand } from "./support/runtime.ts";
import { tempFolder } from "./support/tmp.ts";

/** On Bun, where they take a fifth less; few on Deno, to see that they run there, too. */
const SEEDS = RUNTIME === "bun" ? 1_000 : 50;
const COMPARED = 20;
/** A busy machine does fewer */
const SECONDS = 150;
const FEWEST = 20;
const LIMIT_MS = 400_000;
/** Of acceptance, the rebase, acknowledgements, capture and triggers one each that shows within a few histories */
const SHOWN_SOON = [
  "accepted numbers not kept",
  "no rebase",
  "neighbours acknowledged",
  "transactions cut between parts",
  "triggers insert twice",
];
const SOON = 200;

test("no random history breaks a promise", async () => {
  const command = [...scriptCommand("scripts/simulate.ts"), "--seeds", String(SEEDS), "--seconds", String(SECONDS)];
  const { code, stdout, stderr } = await runProgram(command, { timeoutMs: LIMIT_MS });
  const [, done = ""] = /^(\d+) histories in /m.exec(stdout) ?? [];
  console.log(`${stdout.split("\n")[0]}: ${done}`);
  assert.equal(code, 0, `${stdout}${stderr}`);
  assert.ok(Number(done) >= FEWEST, stdout);
});

test("random histories show a rule that is broken", async () => {
  const only = SHOWN_SOON.flatMap((name) => ["--only", name]);
  const command = [...scriptCommand("scripts/simulate.ts"), "--mutants", "--seeds", String(SOON), ...only];
  const { code, stdout, stderr } = await runProgram(command, { timeoutMs: LIMIT_MS });
  assert.equal(code, 0, `${stdout}${stderr}`);
  assert.match(stdout, new RegExp(`^${SHOWN_SOON.length} of ${SHOWN_SOON.length} mutants were found$`, "m"));
});

test("each rule that is broken stands in the source, once", () => {
  assert.equal(new Set(MUTANTS.map(({ name }) => name)).size, MUTANTS.length);
  for (const mutant of MUTANTS) mutate(readFileSync(`${PROJECT}${mutant.file}`, "utf8"), mutant);
});

test("a history that fails is printed with the fewest actions that still fail, and with what replays them", async () => {
  await using folder = await tempFolder();
  copyBroken(folder.path, MUTANTS.find(({ name }) => name === "no rebase")!);
  const [runtime = ""] = scriptCommand("");
  const options = RUNTIME === "deno" ? ["run", "--quiet", "--allow-all", "--no-check"] : [];
  const simulate = (args: readonly string[]) =>
    runProgram([runtime, ...options, folder.file("scripts/simulate.ts"), ...args], { timeoutMs: LIMIT_MS });
  const { code, stdout } = await simulate(["--seeds", "4", "--seed", "1", "--jobs", "1"]);
  assert.equal(code, 1, stdout);
  const printed = [...stdout.matchAll(/^seed (\d+) fails after (\d+) actions: .*[^]*?^ {2}deno task simulate (.+)$/gm)];
  const [, seed = "", steps, replay = ""] = printed.toSorted((a, b) => Number(a[2]) - Number(b[2]))[0] ??
    assert.fail(stdout);
  const again = await simulate(replay.split(" "));
  assert.equal(again.code, 1);
  for (let step = 1; step <= Number(steps); step++) assert.ok(again.stdout.includes(`--- step ${step}\n`), `${step}`);
  for (let fewer = 0; fewer < Number(steps); fewer++) {
    assert.equal((await simulate(["--seed", seed, "--steps", `${fewer}`])).code, 0, `seed ${seed}, ${fewer} steps`);
  }
});

test("a run that was interrupted goes on behind the last history that it wrote down", async () => {
  const folder = mkdtempSync(join(tmpdir(), "marmot-runs-"));
  try {
    const run = async (seeds: number, file: string) => {
      const args = ["--seeds", String(seeds), "--seed", "7", "--jobs", "2", "--json", join(folder, file)];
      const { stdout, stderr } = await runProgram([...scriptCommand("scripts/simulate.ts"), ...args], {
        timeoutMs: LIMIT_MS,
      });
      const [, ran] = /^(\d+) histories in /m.exec(stdout) ?? assert.fail(`${stdout}${stderr}`);
      const { seconds: _, ...written } = JSON.parse(readFileSync(join(folder, file), "utf8"));
      return { ran: Number(ran), written };
    };
    assert.equal((await run(3, "parts")).ran, 3);
    const second = await run(8, "parts");
    assert.equal(second.ran, 5);
    assert.deepEqual(second.written, (await run(8, "whole")).written);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("a seed is one history, to the byte, on Deno and on Bun", async () => {
  const first = Date.now() % 1_000_000;
  const args = ["--seeds", String(COMPARED), "--seed", String(first), "--jobs", "1", "--digests"];
  const digests = async (command: readonly string[]) => {
    const { stdout, stderr } = await runProgram([...command, ...args], { timeoutMs: LIMIT_MS });
    const lines = stdout.split("\n").filter((line) => /^\d+ [0-9a-f]{64}$/.test(line));
    assert.equal(lines.length, COMPARED, `${stdout}${stderr}`);
    return lines;
  };
  const here = await digests(scriptCommand("scripts/simulate.ts"));
  const there = RUNTIME === "deno"
    ? await digests([await bunProgram(), `${PROJECT}scripts/simulate.ts`])
    : await digests(scriptCommand("scripts/simulate.ts"));
  assert.deepEqual(there, here);
});
