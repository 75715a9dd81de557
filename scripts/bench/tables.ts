/** Results as Markdown tables: one of speed, one of cost. */
import { type Cost, type FigureName, FIGURES, median, type Result } from "./results.ts";

const SHARE_DIGITS = 1;
const SIGNIFICANT_DIGITS = 3;
const BYTES_PER_KB = 1_000;

export function speedTable(results: readonly Result[]): string {
  const measured = (name: FigureName) => results.some(({ figures }) => figures[name] !== undefined);
  const names = (Object.keys(FIGURES) as FigureName[]).filter(measured);
  const columns = names.filter((name) => !names.some((other) => ratioOf(other) === name));
  const heads = columns.map((name) => {
    const rate = ratioOf(name);
    return rate === undefined ? `${FIGURES[name].title}, ${unitShown(FIGURES[name].unit)}` : FIGURES[rate].title;
  });
  const withRows = results.some(({ rows }) => rows > 0);
  const lines = results.map(({ variant, system, rows, figures, failures }) => [
    variant + (failures.length === 0 ? "" : ` (${failures.length} rounds failed: ${failures[0]})`),
    system,
    ...(withRows ? [count(rows)] : []),
    ...columns.map((name) => cell(name, figures)),
  ]);
  return table(["", "system", ...(withRows ? ["rows"] : []), ...heads], lines);
}

/** The figure that this one is the ratio to bare SQLite of; both share a column. */
function ratioOf(name: FigureName): FigureName | undefined {
  const found = name.endsWith("Ratio") ? name.slice(0, -"Ratio".length) : undefined;
  return found !== undefined && found in FIGURES ? found as FigureName : undefined;
}

function cell(name: FigureName, figures: Result["figures"]): string {
  const own = spread(figures[name] ?? [], FIGURES[name].unit);
  const rate = ratioOf(name);
  if (rate === undefined || own === "") return own;
  return `${format(median(figures[rate] ?? []), FIGURES[rate].unit)} rows/s = ${own} % of bare`;
}

export function costTable(results: readonly Result[]): string {
  const heads = ["CPU: nodes", "broker", "applications", "bytes sent to the broker", "by it"];
  const measured = results.filter(({ costs }) => costs.length > 0);
  const lines = measured.map(({ variant, system, costs }) => [
    variant,
    system,
    ...["node", "broker", "application"].map((kind) => cpuShown(costs, kind)),
    ...[(cost: Cost) => cost.bytesIn, (cost: Cost) => cost.bytesOut].map((bytes) =>
      `${significant(median(costs.map(bytes)) / BYTES_PER_KB)} kB`
    ),
    memoryShown(costs),
    significant(median(costs.map((cost) => cost.foreignCores))),
  ]);
  if (lines.length === 0) return "";
  return table(["per 1,000 rows", "system", ...heads, "peak memory", "cores that others used meanwhile"], lines);
}

/** Of processes whose name begins so, in order. */
function cpuShown(costs: readonly Cost[], kind: string): string {
  const names = Object.keys(costs[0]?.cpu ?? {}).filter((name) => name.startsWith(kind) && !name.endsWith("reader"));
  const values = names.map((name) => significant(median(costs.map((cost) => (cost.cpu[name] ?? NaN) * 1000))));
  return `${values.join(" / ")} ms`;
}

function memoryShown(costs: readonly Cost[]): string {
  const names = Object.keys(costs[0]?.peakMemory ?? {});
  return names.map((name) => `${name} ${Math.max(...costs.map((cost) => cost.peakMemory[name] ?? NaN)).toFixed(0)}`)
    .join(", ") + " MB";
}

/** The median, and what the rounds were between. */
export function spread(values: readonly number[], unit: string): string {
  if (values.length === 0) return "";
  const shown = (value: number) => format(value, unit);
  const middle = shown(median(values));
  if (values.length === 1) return middle;
  return `${middle} (${shown(Math.min(...values))}–${shown(Math.max(...values))})`;
}

export function unitShown(unit: string): string {
  return unit === "share" ? "%" : unit === "share of a core" ? "% of a core" : unit;
}

export function format(value: number, unit: string): string {
  if (unit.startsWith("share")) return (value * 100).toFixed(SHARE_DIGITS);
  return unit.startsWith("rows") ? count(value) : significant(value);
}

function count(value: number): string {
  return Math.round(value).toLocaleString("en");
}

function significant(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(SIGNIFICANT_DIGITS);
}

function table(heads: readonly string[], lines: readonly (readonly string[])[]): string {
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [row(heads), row(heads.map(() => "---")), ...lines.map(row), ""].join("\n");
}
