/**
 * Runs the tests on Deno and on Bun, each file in a process of its own.
 *
 *     deno task test [--deno | --bun | --program FILE] [--jobs N] [WORD…]
 *
 * With --program, Deno runs the tests that start a Marmot, and that program is the Marmot they start. A WORD picks the
 * files whose path contains it. JUnit reports and totals go to .test-results/. The last line is `N passed, N failed`, with
 * `, N skipped` if any; the exit code is 0 only if tests ran and none failed.
 */
import { spawn } from "node:child_process";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import process, { env } from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ensureNatsServer } from "./nats_server.ts";
import { describeTotals, joinJUnit, type TestCase, testCases, total } from "./test_results.ts";
import { bunRuntime, denoRuntime, programRuntime, type TestRuntime } from "./test_runtimes.ts";

/** Measured on two cores, since most tests wait more than they work: 92 s with 1, 59 with 2, 48 with 3, 41 with 4. */
const JOBS = 3;
const FILE_TIMEOUT_MS = 600_000;
const SLOWEST_SHOWN = 5;
const RESULTS = ".test-results";
const RECORDED_SKIPS = "MARMOT_TEST_SKIPS";
/** Of a compiled program alone. */
const PROGRAM_ONLY = /^tests\/smoke\.test\.ts$/;
/** Files whose tests start a Marmot of their own, so that it may be a compiled program. */
const START_MARMOT =
  /^tests\/((integration|applications)\/.*|cli_process|cli_run|docs|fixtures|service|smoke)\.test\.ts$/;
/** What the tests may be told from outside; any other MARMOT_ variable would configure the nodes that they start. */
const VARIABLES_KEPT = ["MARMOT_REQUIRE_ALL", "MARMOT_PROGRAM", "MARMOT_NATS_SERVER"];

interface Job {
  readonly runtime: TestRuntime;
  readonly file: string;
}

interface FileResult extends Job {
  readonly cases: readonly TestCase[];
  readonly reasons: readonly string[];
  readonly junit: string;
  readonly seconds: number;
}

const print = (line = "") => void process.stdout.write(`${line}\n`);

/** Process groups of the runners, ended with this script. */
const groups = new Set<number>();

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      deno: { type: "boolean" },
      bun: { type: "boolean" },
      program: { type: "string" },
      jobs: { type: "string" },
    },
  });
  const program = values.program === undefined ? undefined : resolve(values.program);
  process.chdir(fileURLToPath(new URL("..", import.meta.url)));
  const files = (await testFiles(positionals)).filter((file) =>
    program === undefined ? !PROGRAM_ONLY.test(file) : START_MARMOT.test(file)
  );
  const binary = await ensureNatsServer(env.MARMOT_NATS_SERVER, print);
  env.MARMOT_NATS_SERVER = binary.path;
  const runtimes: TestRuntime[] = [];
  if (program !== undefined) {
    env.MARMOT_PROGRAM = program;
    runtimes.push(await programRuntime(program));
  } else {
    if (!values.bun || values.deno) runtimes.push(denoRuntime());
    if (!values.deno || values.bun) runtimes.push(await bunRuntime());
  }
  for (const { name } of runtimes) await rm(join(RESULTS, name), { recursive: true, force: true });
  print(`nats-server ${binary.version}, ${runtimes.map((runtime) => `${runtime.name} ${runtime.version}`).join(", ")}`);
  const jobs = runtimes.flatMap((runtime) => files.map((file) => ({ runtime, file })));
  const results = await runAll(jobs, Number(values.jobs ?? JOBS));
  for (const runtime of runtimes) await report(runtime, results.filter((result) => result.runtime === runtime));
  const totals = total(results.flatMap((result) => result.cases));
  print();
  print(describeTotals(totals));
  return totals.failed === 0 && totals.passed > 0 ? 0 : 1;
}

async function testFiles(words: readonly string[]): Promise<string[]> {
  const names = (await readdir("tests", { recursive: true })).map((name) => join("tests", name).replaceAll("\\", "/"));
  const files = names.filter((name) => name.endsWith(".test.ts")).sort();
  return words.length === 0 ? files : files.filter((name) => words.some((word) => name.includes(word)));
}

async function runAll(jobs: readonly Job[], atOnce: number): Promise<FileResult[]> {
  const waiting = [...jobs];
  const results: FileResult[] = [];
  async function worker(): Promise<void> {
    for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) results.push(await runFile(job));
  }
  await Promise.all(Array.from({ length: atOnce }, worker));
  return results;
}

async function runFile(job: Job): Promise<FileResult> {
  const stem = join(RESULTS, job.runtime.name, job.file.replaceAll("/", "__"));
  await mkdir(join(RESULTS, job.runtime.name), { recursive: true });
  const started = performance.now();
  const { exitCode, output } = await runCommand(job.runtime.command(job.file, `${stem}.xml`), `${stem}.skips`);
  const seconds = (performance.now() - started) / 1000;
  const junit = await readFile(`${stem}.xml`, "utf8").catch(() => undefined);
  const recorded = (await readFile(`${stem}.skips`, "utf8").catch(() => "")).split("\n").filter((line) => line !== "");
  const skips = recorded.map((line): { test: string; reason: string } => JSON.parse(line));
  const cases = testCases({ junit, exitCode, skips: skips.map((skip) => skip.test) });
  const { failed } = total(cases);
  print(`${failed === 0 ? "ok  " : "FAIL"} ${job.runtime.name.padEnd(4)} ${job.file} (${seconds.toFixed(1)} s)`);
  if (failed > 0) print(output.replace(/^/gm, "     "));
  return { ...job, cases, junit: junit ?? "", seconds, reasons: skips.map((skip) => `${skip.test}: ${skip.reason}`) };
}

function runCommand(
  command: readonly string[],
  skips: string,
): Promise<{ exitCode: number | null; output: string }> {
  const kept = Object.entries(env).filter(([name]) => !name.startsWith("MARMOT_") || VARIABLES_KEPT.includes(name));
  const environment = { ...Object.fromEntries(kept), [RECORDED_SKIPS]: skips, NO_COLOR: "1" };
  const [program = "", ...args] = command;
  return new Promise((resolve, reject) => {
    // A group of its own, so that whatever a test left running can be ended with it.
    const child = spawn(program, args, { env: environment, stdio: ["ignore", "pipe", "pipe"], detached: true });
    const group = child.pid ?? 0;
    groups.add(group);
    let output = "";
    const timer = setTimeout(() => {
      output += `\nstopped: it still ran after ${FILE_TIMEOUT_MS / 1000} s\n`;
      endGroup(group);
    }, FILE_TIMEOUT_MS);
    child.stdout.setEncoding("utf8").on("data", (text: string) => output += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => output += text);
    child.once("error", reject);
    child.once("exit", () => endGroup(group));
    child.once("close", (exitCode) => {
      clearTimeout(timer);
      groups.delete(group);
      resolve({ exitCode, output });
    });
  });
}

function endGroup(group: number): void {
  try {
    process.kill(-group, "SIGKILL");
  } catch {
    // nothing of it is left
  }
}

async function report(runtime: TestRuntime, results: readonly FileResult[]): Promise<void> {
  const cases = results.flatMap((result) => result.cases);
  const seconds = results.reduce((sum, result) => sum + result.seconds, 0);
  await writeFile(join(RESULTS, `${runtime.name}.json`), JSON.stringify(total(cases)));
  await writeFile(join(RESULTS, `${runtime.name}.xml`), joinJUnit(runtime.name, results.map((result) => result.junit)));
  print();
  print(
    `${runtime.name} ${runtime.version}: ${describeTotals(total(cases))} in ${seconds.toFixed(0)} s of runner time`,
  );
  const slowest = [...results].sort((a, b) => b.seconds - a.seconds).slice(0, SLOWEST_SHOWN);
  print(`  slowest: ${slowest.map((result) => `${result.file} ${result.seconds.toFixed(1)} s`).join(", ")}`);
  for (const result of results) {
    for (const reason of result.reasons) print(`  skipped: ${result.file}: ${reason}`);
    const failed = result.cases.filter((found) => found.outcome === "failed");
    for (const found of failed) print(`  FAILED: ${result.file}: ${found.name}`);
  }
}

function endAll(): void {
  for (const group of groups) endGroup(group);
}
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    endAll();
    process.exit(130);
  });
}
process.exitCode = await main();
