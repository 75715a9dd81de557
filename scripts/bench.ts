/**
 * Measures Marmot: each scenario with real applications, two nodes and a broker on this machine.
 *
 *     deno task bench [--scenario WORD…] [--quick] [--rounds N] [--runtime deno|bun…] [--program PATH…]
 *                     [--checkout NAME=FOLDER…] [--peer NAME=PATH…] [--large] [--out FOLDER] [--save]
 *     deno task bench --check [--record]
 *     deno task bench --document
 *
 * Options with … may come more than once; all systems take turns within each round. Prints tables, and writes all
 * figures as JSON into dist/bench, or --out. --save also keeps them for docs/BENCHMARKS.md, and writes it;
 * --document writes it again. --check takes two minutes, and fails when a ratio to bare SQLite is less than half of what
 * --record kept.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { collapsed, type Recorded, recordOf } from "./bench/check.ts";
import { type Report, saveReport, writeDocument } from "./bench/report.ts";
import type { Measurement } from "./bench/results.ts";
import type { Run, Scenario } from "./bench/run.ts";
import { APPLICATION } from "./bench/scenarios/application.ts";
import { BACKLOG, CATCH_UP } from "./bench/scenarios/catch_up.ts";
import { IDLE } from "./bench/scenarios/idle.ts";
import { LATENCY } from "./bench/scenarios/latency.ts";
import { PENDING_CHANGES, TABLE_SIZE } from "./bench/scenarios/tables.ts";
import { TOGETHER } from "./bench/scenarios/together.ts";
import { WRITES } from "./bench/scenarios/writes.ts";
import { ensureNatsServer } from "./nats_server.ts";
import { checkout, compiled, onBun, onDeno, peer, type System } from "./bench/systems.ts";
import { surroundings } from "./bench/surroundings.ts";
import { costTable, speedTable } from "./bench/tables.ts";

const ROUNDS = 5;
const QUICK_ROUNDS = 2;
const SCENARIOS: readonly Scenario[] = [
  ...WRITES,
  LATENCY,
  CATCH_UP,
  BACKLOG,
  TOGETHER,
  APPLICATION,
  TABLE_SIZE,
  PENDING_CHANGES,
  IDLE,
];

/** what --check runs: about two minutes on two cores */
const CHECKED: readonly string[] = ["insert", "together", "catch-up"];
const CHECK_ROUNDS = 3;
const RECORDED = fileURLToPath(new URL("../docs/benchmarks/recorded.json", import.meta.url));

const say = (line: string) => void process.stderr.write(`${line}\n`);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      scenario: { type: "string", multiple: true },
      quick: { type: "boolean", default: false },
      large: { type: "boolean", default: false },
      rounds: { type: "string" },
      runtime: { type: "string", multiple: true },
      program: { type: "string", multiple: true },
      checkout: { type: "string", multiple: true },
      peer: { type: "string", multiple: true },
      out: { type: "string" },
      save: { type: "boolean", default: false },
      document: { type: "boolean", default: false },
      check: { type: "boolean", default: false },
      record: { type: "boolean", default: false },
    },
  });
  if (values.document) return await writeDocument();
  const binary = await ensureNatsServer(process.env.MARMOT_NATS_SERVER, say);
  process.env.MARMOT_NATS_SERVER = binary.path;
  if (values.check) return await check(values.record);
  const run: Run = {
    systems: await chosenSystems(values),
    rounds: Number(values.rounds ?? (values.quick ? QUICK_ROUNDS : ROUNDS)),
    quick: values.quick,
    large: values.large,
    say,
  };
  const out = values.out ?? fileURLToPath(new URL("../dist/bench/", import.meta.url));
  await mkdir(out, { recursive: true });
  for (const scenario of chosenScenarios(values.scenario ?? [])) {
    say(`${scenario.name}: ${scenario.about}`);
    const around = await surroundings();
    const results = await scenario.measure(run);
    const { name, about } = scenario;
    const report: Report = { scenario: name, about, rounds: run.rounds, quick: run.quick, ...around, results };
    await writeFile(join(out, `${name}.json`), `${JSON.stringify(report, null, 1)}\n`);
    process.stdout.write(`\n${speedTable(results)}\n${costTable(results)}\n`);
    if (results.some(({ failures }) => failures.length > 0)) process.exitCode = 1;
    if (values.save) await saveReport(report);
  }
  if (values.save) await writeDocument();
}

/** A short run, compared with the ratios that were recorded, or recorded now. */
async function check(record: boolean): Promise<void> {
  const run: Run = { systems: [await onDeno()], rounds: CHECK_ROUNDS, quick: true, large: false, say };
  const results: Measurement[] = [];
  for (const scenario of SCENARIOS.filter(({ name }) => CHECKED.includes(name))) {
    results.push(...await scenario.measure(run));
  }
  if (record) {
    await writeFile(RECORDED, `${JSON.stringify(recordOf(results), null, 2)}\n`);
    return;
  }
  const recorded: Recorded = JSON.parse(await readFile(RECORDED, "utf8"));
  const found = collapsed(results, recorded);
  for (const line of found) say(`much slower than recorded: ${line}`);
  if (found.length === 0) say("no ratio to bare SQLite is less than half of what was recorded");
  const failed = results.some(({ failures }) => failures.length > 0);
  process.exitCode = found.length === 0 && !failed ? 0 : 1;
}

interface SystemOptions {
  readonly runtime?: readonly string[];
  readonly program?: readonly string[];
  readonly checkout?: readonly string[];
  readonly peer?: readonly string[];
}

/** Deno, unless something else was asked for. */
async function chosenSystems(options: SystemOptions): Promise<System[]> {
  const runtimes = options.runtime ?? (options.program === undefined ? ["deno"] : []);
  const systems: System[] = [];
  for (const runtime of runtimes) {
    if (runtime !== "deno" && runtime !== "bun") throw new Error(`Cannot run on ${runtime}: it is deno or bun`);
    systems.push(await (runtime === "deno" ? onDeno() : onBun()));
  }
  systems.push(...(options.program ?? []).map(compiled));
  for (const text of options.checkout ?? []) systems.push(await checkout(text));
  for (const text of options.peer ?? []) systems.push(await peer(text));
  return systems;
}

/** Those that one of the words names, or else whose name holds it; without words all. */
function chosenScenarios(words: readonly string[]): readonly Scenario[] {
  if (words.length === 0) return SCENARIOS;
  const named = (word: string) => SCENARIOS.some(({ name }) => name === word);
  const found = SCENARIOS.filter(({ name }) => {
    return words.some((word) => named(word) ? name === word : name.includes(word));
  });
  if (found.length > 0) return found;
  const names = SCENARIOS.map(({ name }) => name).join(", ");
  throw new Error(`Cannot measure ${words.join(", ")}: there are the scenarios ${names}`);
}

await main();
