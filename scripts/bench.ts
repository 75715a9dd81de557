/**
 * Measures Marmot: each scenario with real applications, two nodes and a broker on this machine.
 *
 *     deno task bench [--scenario WORD…] [--quick] [--rounds N] [--runtime deno|bun…] [--program PATH…]
 *                     [--checkout NAME=FOLDER…] [--peer NAME=PATH…] [--large] [--out FOLDER]
 *
 * Every option may come more than once; all systems take turns within each round. Prints tables, and writes them with
 * all figures as JSON into dist/bench, or --out.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Measurement } from "./bench/results.ts";
import type { Run, Scenario } from "./bench/run.ts";
import { APPLICATION } from "./bench/scenarios/application.ts";
import { BACKLOG, CATCH_UP } from "./bench/scenarios/catch_up.ts";
import { IDLE } from "./bench/scenarios/idle.ts";
import { LATENCY } from "./bench/scenarios/latency.ts";
import { PENDING_CHANGES, TABLE_SIZE } from "./bench/scenarios/tables.ts";
import { TOGETHER } from "./bench/scenarios/together.ts";
import { WRITES } from "./bench/scenarios/writes.ts";
import { checkout, compiled, onBun, onDeno, peer, type System } from "./bench/systems.ts";
import { surroundings } from "./bench/surroundings.ts";
import { tables } from "./bench/tables.ts";

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
    },
  });
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
    const results: readonly Measurement[] = await scenario.measure(run);
    const report = { scenario: scenario.name, about: scenario.about, quick: run.quick, ...around, results };
    await writeFile(join(out, `${scenario.name}.json`), `${JSON.stringify(report, null, 1)}\n`);
    process.stdout.write(`\n${tables(results)}\n`);
  }
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
    systems.push(runtime === "deno" ? onDeno() : await onBun());
  }
  systems.push(...(options.program ?? []).map(compiled), ...(options.checkout ?? []).map(checkout));
  for (const text of options.peer ?? []) systems.push(await peer(text));
  return systems;
}

/** Those whose name holds one of the words; without words all that don't run by hand only. */
function chosenScenarios(words: readonly string[]): readonly Scenario[] {
  if (words.length === 0) return SCENARIOS.filter((scenario) => !scenario.byHand);
  const found = SCENARIOS.filter(({ name }) => words.some((word) => name.includes(word)));
  if (found.length > 0) return found;
  const names = SCENARIOS.map(({ name }) => name).join(", ");
  throw new Error(`Cannot measure ${words.join(", ")}: there are the scenarios ${names}`);
}

await main();
