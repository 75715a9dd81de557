/**
 * Random histories of whole simulated clusters; every promise is checked after every event.
 *
 *     deno task simulate --seeds N [--seed FIRST] [--seconds S] [--jobs J] [--json FILE]
 *     deno task simulate --seed S [--steps K] [--trace]              one history, or the first K actions of it
 *     deno task simulate --mutants [--only NAME]… [--json FILE]      breaks each rule in turn: how soon does it show?
 *
 * The file of --json is written every minute. A run of the same first seed that is interrupted, or asked for more seeds,
 * continues behind the last one it holds, after those that failed before. What it has of mutants stays there for those
 * that are not hunted: so they may be hunted in parts. A history that breaks a promise is printed with the fewest actions
 * that still break it, and how to see them.
 */
import { spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import process, { execArgv, execPath } from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Counters } from "../tests/simulation/counters.ts";
import { runHistory } from "../tests/simulation/history.ts";
import { MUTANTS } from "../tests/simulation/mutants.ts";
import { type Found, hunt } from "../tests/simulation/mutation.ts";
import { RunReport, type SeedReport } from "../tests/simulation/report.ts";

const DEFAULT_SEEDS = 1_000;
const SEED_LIMIT = 2 ** 31;
/** Failures that are looked at closely */
const SHORTENED = 3;
const PROGRESS_MS = 10_000;
const WRITE_MS = 60_000;
/** Each mutant must be found within these */
const MUTANT_SEEDS = 2_000;

const print = (line: string) => void process.stdout.write(`${line}\n`);

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string" },
      seed: { type: "string" },
      steps: { type: "string" },
      jobs: { type: "string" },
      /** no history begins later than this */
      seconds: { type: "string" },
      json: { type: "string" },
      trace: { type: "boolean" },
      digests: { type: "boolean" },
      mutants: { type: "boolean" },
      only: { type: "string", multiple: true },
      /** stops at a history that fails, and prints it as JSON */
      "first-failure": { type: "boolean" },
      /** a part of a run: every so many seeds, as lines of JSON */
      part: { type: "string" },
    },
  });
  const first = values.seed === undefined ? Date.now() % SEED_LIMIT : Number(values.seed);
  const seconds = Number(values.seconds ?? Infinity);
  if (values.mutants) return await huntMutants(first, Number(values.seeds ?? MUTANT_SEEDS), values);
  if (values["first-failure"]) return await runUntilFailure(first, Number(values.seeds));
  if (values.part !== undefined) return await runPart(first, Number(values.seeds), Number(values.part), seconds);
  if (values.seed !== undefined && values.seeds === undefined) {
    return await runOne(first, values.steps === undefined ? undefined : Number(values.steps), values.trace ?? false);
  }
  const seeds = Number(values.seeds ?? DEFAULT_SEEDS);
  const jobs = Math.min(seeds, Number(values.jobs ?? cpus().length));
  return await runMany(first, seeds, jobs, { json: values.json, digests: values.digests ?? false, seconds });
}

async function runOne(seed: number, steps: number | undefined, trace: boolean): Promise<number> {
  const result = await runHistory({
    seed,
    ...(steps === undefined ? {} : { steps }),
    ...(trace ? { trace: print } : {}),
  });
  print(result.failure ?? `seed ${seed}: ${result.steps} actions, every promise held, digest ${result.digest}`);
  return result.failure === undefined ? 0 : 1;
}

async function runPart(first: number, seeds: number, stride: number, seconds: number): Promise<number> {
  const { ppid } = process;
  for (let seed = first; seed < first + seeds && performance.now() < seconds * 1_000; seed += stride) {
    // whoever it is a part of was killed
    if (process.ppid !== ppid) return 1;
    const { counters, digest, failure, failedAt } = await runHistory({ seed });
    print(JSON.stringify({ seed, digest, failure, failedAt, counters: [...counters.counts] }));
  }
  return 0;
}

async function runUntilFailure(first: number, seeds: number): Promise<number> {
  for (let seed = first; seed < first + seeds; seed++) {
    const { failure } = await runHistory({ seed });
    if (failure === undefined) continue;
    print(JSON.stringify({ seed, failure }));
    return 1;
  }
  return 0;
}

async function huntMutants(
  first: number,
  seeds: number,
  { only, json, jobs }: { readonly only?: readonly string[]; readonly json?: string; readonly jobs?: string },
): Promise<number> {
  const waiting = MUTANTS.filter(({ name }) => only === undefined || only.some((part) => name.includes(part)));
  print(`${waiting.length} mutants, histories from seed ${first} on`);
  const found: Found[] = [];
  const known = new Map<string, Found>();
  if (json !== undefined && existsSync(json)) {
    const { mutants }: { mutants: readonly Found[] } = JSON.parse(readFileSync(json, "utf8"));
    for (const one of mutants) known.set(one.name, one);
  }
  const hunter = async () => {
    for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift()) {
      const result = await hunt(mutant, first, seeds);
      found.push(result);
      known.set(result.name, result);
      const mutants = MUTANTS.flatMap(({ name }) => known.get(name) ?? []);
      if (json !== undefined) writeFileSync(json, `${JSON.stringify({ mutants }, undefined, 2)}\n`);
      print(`${result.name}: ${result.histories ?? "NOT FOUND"} (${result.seconds} s) ${result.shown}`);
    }
  };
  await Promise.all(Array.from({ length: Number(jobs ?? cpus().length) }, hunter));
  const missed = found.filter(({ histories }) => histories === null);
  print(`${found.length - missed.length} of ${found.length} mutants were found`);
  return missed.length === 0 ? 0 : 1;
}

async function runMany(
  first: number,
  seeds: number,
  jobs: number,
  { json, digests, seconds: limit }: { json: string | undefined; digests: boolean; seconds: number },
): Promise<number> {
  const report = json === undefined ? undefined : new RunReport(json, first);
  const before = report?.histories ?? 0;
  print(
    `${seeds} histories from seed ${first} on, ${jobs} at a time${before === 0 ? "" : `: ${before} were run before`}`,
  );
  if (report !== undefined) await runAgain(report);
  const started = performance.now();
  let wroteAt = started;
  const counters = new Counters();
  const failures: SeedReport[] = [];
  let done = 0;
  let saidAt = started;
  const take = (one: SeedReport) => {
    done++;
    counters.merge(one.counters);
    report?.take(one);
    if (digests) print(`${one.seed} ${one.digest}`);
    if (one.failure !== undefined) {
      failures.push(one);
      print(`seed ${one.seed} fails: ${one.failure.split("\n")[0]}`);
    }
    const now = performance.now();
    if (now - saidAt > PROGRESS_MS) {
      saidAt = now;
      print(`${before + done} of ${seeds}, ${failures.length} failed`);
    }
    if (now - wroteAt > WRITE_MS) {
      wroteAt = now;
      report?.write();
    }
  };
  const [from, left] = [first + before, Math.max(0, seeds - before)];
  try {
    await Promise.all(Array.from({ length: jobs }, (_, job) => runChild([from + job, left - job, jobs, limit], take)));
  } finally {
    report?.write();
  }
  const seconds = (performance.now() - started) / 1000;
  for (const failure of failures.sort((a, b) => a.seed - b.seed).slice(0, SHORTENED)) await shorten(failure);
  const counts = Object.fromEntries([...counters.counts].sort(([a], [b]) => a < b ? -1 : 1));
  print(Object.entries(counts).map(([name, count]) => `${name} ${count}`).join(", "));
  const failed = failures.map(({ seed }) => seed);
  print(
    `${done} histories in ${seconds.toFixed(0)} s, ${failed.length} failed${
      failed.length > 0 ? `: seeds ${failed.join(" ")}` : ""
    }`,
  );
  return failed.length === 0 ? 0 : 1;
}

/** What failed in an earlier part may be mended. */
async function runAgain(report: RunReport): Promise<void> {
  for (const seed of [...report.failed]) {
    const { failure } = await runHistory({ seed });
    if (failure === undefined) report.held(seed);
    print(`seed ${seed} failed before, and ${failure === undefined ? "holds now" : `fails still: ${failure}`}`);
  }
}

function runChild(
  [first, seeds, stride, seconds]: readonly [number, number, number, number],
  take: (report: SeedReport) => void,
): Promise<void> {
  const script = fileURLToPath(import.meta.url);
  const options = process.versions.bun === undefined
    ? ["run", "--quiet", "--allow-all", "--no-check", ...execArgv]
    : [];
  const args = [
    ...options,
    script,
    "--seed",
    String(first),
    "--seeds",
    String(seeds),
    "--part",
    String(stride),
    "--seconds",
    String(seconds),
  ];
  const child = spawn(execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  createInterface({ input: child.stdout }).on("line", (line) => take(JSON.parse(line)));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once(
      "close",
      (code) => code === 0 ? resolve() : reject(new Error(`a part of the run ended with code ${code}`)),
    );
  });
}

/** The fewest actions after which the end still shows a broken promise; with a few more it may hold again, so all are tried. */
async function shorten({ seed, failedAt }: SeedReport): Promise<void> {
  for (let steps = 0; steps <= failedAt; steps++) {
    const { failure } = await runHistory({ seed, steps });
    if (failure === undefined) continue;
    print(`seed ${seed} fails after ${steps} actions: ${failure}`);
    return print(`  deno task simulate --seed ${seed} --steps ${steps} --trace`);
  }
  print(`seed ${seed} holds when it is run again: it is not one history`);
}

process.exitCode = await main();
