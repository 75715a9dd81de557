/** Runs histories against a copy of src/ in which one rule is broken, until one shows it. */
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process, { execPath } from "node:process";
import { fileURLToPath } from "node:url";
import { BROKEN } from "./history.ts";
import type { Mutant } from "./mutant.ts";

const PROJECT = fileURLToPath(new URL("../../", import.meta.url));
const COPIED = [
  "src",
  "tests/simulation",
  "tests/support/commit.ts",
  "tests/support/drop_column.ts",
  "tests/support/random.ts",
  "scripts/simulate.ts",
];

/** Of what a history shows, characters */
const SHOWN = 120;

/** Where a history has its files */
const FOLDER = /\S*marmot-sim-\w+\//g;

export interface Found {
  readonly name: string;
  readonly rule: string;
  readonly firstSeed: number;
  /** it took so many; null: none showed it */
  readonly histories: number | null;
  readonly seconds: number;
  /** what the history showed */
  readonly shown: string;
}

/** @throws when the mutant no longer fits the source */
export function mutate(text: string, { name, file, from, to }: Mutant): string {
  const parts = text.split(from);
  if (parts.length !== 2) throw new Error(`The mutant "${name}" fits ${file} ${parts.length - 1} times, not once.`);
  return parts.join(to);
}

/** Copies into a folder what histories need, with a rule broken. */
export function copyBroken(folder: string, mutant: Mutant): void {
  for (const path of COPIED) cpSync(join(PROJECT, path), join(folder, path), { recursive: true });
  const file = join(folder, mutant.file);
  writeFileSync(file, mutate(readFileSync(file, "utf8"), mutant));
}

export async function hunt(mutant: Mutant, firstSeed: number, mostSeeds: number): Promise<Found> {
  const folder = mkdtempSync(join(tmpdir(), "marmot-mutant-"));
  const started = performance.now();
  try {
    copyBroken(folder, mutant);
    const shown = await firstFailure(folder, firstSeed, mostSeeds);
    if (shown?.failure.startsWith(BROKEN)) throw new Error(`${mutant.name}: ${shown.failure}`);
    const seconds = Math.round((performance.now() - started) / 1000);
    const histories = shown === undefined ? null : shown.seed - firstSeed + 1;
    const [line = ""] = shown?.failure.split("\n") ?? [];
    const first = line.replaceAll(FOLDER, "").slice(0, SHOWN);
    return { name: mutant.name, rule: mutant.rule, firstSeed, histories, seconds, shown: first };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function firstFailure(
  folder: string,
  firstSeed: number,
  mostSeeds: number,
): Promise<{ seed: number; failure: string } | undefined> {
  const options = process.versions.bun === undefined ? ["run", "--quiet", "--allow-all", "--no-check"] : [];
  const script = join(folder, "scripts/simulate.ts");
  const args = [...options, script, "--seed", `${firstSeed}`, "--seeds", `${mostSeeds}`, "--first-failure"];
  const child = spawn(execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  child.stdout.on("data", (data) => output += data);
  child.stderr.on("data", (data) => output += data);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code === 0) return undefined;
  if (code === null) throw new Error("the histories were killed");
  const line = output.split("\n").find((text) => text.startsWith("{"));
  if (line === undefined) return { seed: firstSeed, failure: `the process ended: ${output.slice(0, 300)}` };
  return JSON.parse(line);
}
