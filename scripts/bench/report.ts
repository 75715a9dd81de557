/** docs/BENCHMARKS.md and its pictures, made from the JSON that a run saved. */
import { execFile } from "node:child_process";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { barChart, type Chart } from "./pictures.ts";
import type { Result } from "./results.ts";
import type { Surroundings } from "./surroundings.ts";
import { costTable, speedTable } from "./tables.ts";

const FOLDER = fileURLToPath(new URL("../../docs/benchmarks/", import.meta.url));
const DOCUMENT = fileURLToPath(new URL("../../docs/BENCHMARKS.md", import.meta.url));
/** what stands between these two is written by this file */
const BLOCK = /<!-- (scenario|machine) ?([\w-]*) -->\n.*?<!-- end -->/gs;
const FIRST_OF_LATENCIES_MS = 0.01;

/** What one scenario gave, with all that it was made with. */
export interface Report extends Surroundings {
  readonly scenario: string;
  readonly about: string;
  readonly rounds: number;
  readonly quick: boolean;
  readonly results: readonly Result[];
}

const SHARES: Chart["figures"] = ["capturedRatio", "replicatedRatio", "endToEndRatio"];
/** scenarios without one have no picture */
const CHARTS: Readonly<Record<string, Chart>> = {
  insert: { title: "Inserts: share of the speed of bare SQLite", figures: SHARES },
  update: { title: "Updates: share of the speed of bare SQLite", figures: SHARES },
  latency: { title: "From commit to visible on another node", figures: ["visibleP50", "visibleP99"] },
  backlog: { title: "Speed of a backlog, by its size", figures: ["catchUp"] },
  "table-size": { title: "Updates in tables of different sizes", figures: ["replicated", "endToEnd"] },
  application: {
    title: "99 of 100 commits of an application are faster than this (logarithmic)",
    figures: ["bareP99", "commitP99"],
    logarithmicFrom: FIRST_OF_LATENCIES_MS,
  },
  nodes: { title: "Speed with more nodes on the same two cores", figures: ["replicated", "endToEnd"] },
};

/** Keeps what a scenario gave, for the document. */
export async function saveReport(report: Report): Promise<void> {
  await mkdir(FOLDER, { recursive: true });
  await writeFile(join(FOLDER, `${report.scenario}.json`), `${JSON.stringify(report)}\n`);
}

/** Writes the tables of the document, and the pictures, from everything that was kept. */
export async function writeDocument(): Promise<void> {
  const reports = await savedReports();
  for (const report of reports) {
    const drawn = picture(report);
    if (drawn !== undefined) await writeFile(join(FOLDER, `${report.scenario}.svg`), drawn);
  }
  await writeFile(DOCUMENT, filled(await readFile(DOCUMENT, "utf8"), reports));
  await promisify(execFile)(process.execPath, ["fmt", "--quiet", DOCUMENT]);
}

/** SVG; undefined where the scenario has none. */
export function picture({ scenario, results }: Report): string | undefined {
  const chart = CHARTS[scenario];
  return chart === undefined ? undefined : barChart(chart, results);
}

export async function savedReports(): Promise<Report[]> {
  const names = (await readdir(FOLDER)).filter((name) => name.endsWith(".json") && name !== "recorded.json").sort();
  return await Promise.all(names.map(async (name): Promise<Report> => {
    return JSON.parse(await readFile(join(FOLDER, name), "utf8"));
  }));
}

/** The document with the blocks of these reports filled in. */
export function filled(document: string, reports: readonly Report[]): string {
  return document.replace(BLOCK, (_, kind: string, name: string) => {
    const report = reports.find(({ scenario }) => scenario === name);
    const content = kind === "machine"
      ? machineTable(reports)
      : report === undefined
      ? "Not measured yet.\n"
      : section(report);
    return `<!-- ${kind}${name === "" ? "" : ` ${name}`} -->\n\n${content}\n<!-- end -->`;
  });
}

function section(report: Report): string {
  const { scenario, about, results } = report;
  const chart = CHARTS[scenario];
  const pictures = chart === undefined ? [] : [`![${chart.title}](benchmarks/${scenario}.svg)`];
  const made = `\`deno task bench --scenario ${scenario}\`, ${report.rounds} rounds on ${report.date}, ` +
    `commit ${report.commit}${report.quick ? ", --quick: a first look" : ""}.`;
  return [`${about} ${made}`, ...pictures, speedTable(results), costTable(results)].filter((part) => part !== "")
    .join("\n\n");
}

/** Each machine and set of versions that figures were made with, and for which scenarios. */
function machineTable(reports: readonly Report[]): string {
  const groups = new Map<string, string[]>();
  for (const { machine, versions, scenario } of reports) {
    const { processor, cores, memoryGB, kernel } = machine;
    const software = Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ");
    const line = `${cores} cores of ${processor}, ${memoryGB} GB, Linux ${kernel} | ${software}`;
    groups.set(line, [...groups.get(line) ?? [], scenario]);
  }
  const lines = [...groups].map(([line, scenarios]) => `| ${line} | ${scenarios.join(", ")} |`);
  return ["| machine | versions | scenarios |", "| --- | --- | --- |", ...lines, ""].join("\n");
}
