/**
 * Writes the tables of docs/PROOF.md from what the runs themselves wrote into docs/proof/.
 *
 *     deno task proof
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { MUTANTS } from "../tests/simulation/mutants.ts";
import type { Found } from "../tests/simulation/mutation.ts";

const PROJECT = fileURLToPath(new URL("..", import.meta.url));
const PAGE = join(PROJECT, "docs/PROOF.md");

type Json = string | number | null | readonly Json[] | { readonly [name: string]: Json };

function read(name: string): { readonly [name: string]: Json } {
  return JSON.parse(readFileSync(join(PROJECT, `docs/proof/${name}.json`), "utf8"));
}

/** What the page holds between `<!-- NAME -->` and `<!-- end -->`, by name. */
const TABLES: Readonly<Record<string, () => string>> = {
  simulation: () => counters(read("simulation")),
  torture: () => counters(read("torture")),
  mutants: () => mutants(read("mutants")),
};

/** How soon each broken rule showed. */
function mutants(report: { readonly [name: string]: Json }): string {
  const found = report.mutants as unknown as readonly Found[];
  const rows = found.map(({ rule, histories, shown }) => [rule, `${histories ?? "not found"}`, shown.trim()]);
  const showed = found.filter(({ histories }) => histories !== null).length;
  const said = `Of ${MUTANTS.length} rules ${found.length} were broken so far, and ${showed} of them showed.`;
  return `${said}\n\n${table(["rule that was broken", "histories until it showed", "as"], rows)}`;
}

/** A row for each number, text or list; the numbers of an object inside as rows of their own. */
function counters(report: { readonly [name: string]: Json }): string {
  const rows = Object.entries(report).flatMap(([name, value]): [string, string][] => {
    if (value === null || typeof value !== "object") return [[words(name), shown(value)]];
    if (Array.isArray(value)) return [[words(name), value.length === 0 ? "none" : value.join(", ")]];
    return Object.entries(value).map(([inner, count]) => [words(inner), shown(count)]);
  });
  return table(["what", "how many"], rows);
}

function shown(value: Json): string {
  return typeof value === "number" ? value.toLocaleString("en-US") : String(value);
}

/** `firstSeed` as "first seed" */
function words(name: string): string {
  return name.replace(/([a-z])([A-Z])/g, (_, before, after) => `${before} ${after.toLowerCase()}`);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** The page with its tables as the runs say. */
export function withTables(page: string): string {
  return page.replace(/(<!-- (\w+) -->\n)[\s\S]*?(\n<!-- end -->)/g, (_, begin, name, end) => {
    const make = TABLES[name];
    if (make === undefined) throw new Error(`Cannot make the table ${name} of docs/PROOF.md: no run is called so.`);
    return `${begin}\n${make()}\n${end}`;
  });
}

/** Without what `deno fmt` aligns. */
export function plain(page: string): string {
  return page.replace(/ {2,}/g, " ").replace(/-{3,}/g, "---");
}

if (import.meta.main) writeFileSync(PAGE, withTables(readFileSync(PAGE, "utf8")));
