/** What a run of one test file came to: from its JUnit report, its exit code, and the skips it wrote down. */

export type Outcome = "passed" | "failed" | "skipped";

export interface TestCase {
  readonly name: string;
  readonly outcome: Outcome;
  readonly seconds: number;
}

export interface Totals {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

export interface FileEnd {
  /** what the runner wrote; undefined when it wrote nothing */
  readonly junit: string | undefined;
  /** null when a signal ended the runner */
  readonly exitCode: number | null;
  /** names of tests that skipped themselves while they ran: Deno reports them as passed */
  readonly skips: readonly string[];
}

const NAME_OF_FILE_FAILURE = "(the file itself: a hook, an import, or something left behind)";

/** The test cases of a file. A runner that failed without naming a test, or ran no test, counts as a failure. */
export function testCases(end: FileEnd): TestCase[] {
  const cases = parseJUnit(end.junit ?? "").map((found) => ({
    ...found,
    outcome: found.outcome === "passed" && end.skips.includes(found.name) ? "skipped" as const : found.outcome,
  }));
  const named = cases.some((found) => found.outcome === "failed");
  const failed = end.exitCode !== 0 || cases.length === 0;
  if (failed && !named) cases.push({ name: NAME_OF_FILE_FAILURE, outcome: "failed", seconds: 0 });
  return cases;
}

function parseJUnit(xml: string): TestCase[] {
  const cases: TestCase[] = [];
  for (const match of xml.matchAll(/<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)) {
    const [, attributes = "", body = ""] = match;
    const outcome = /<(failure|error)\b/.test(body) ? "failed" : /<skipped\b/.test(body) ? "skipped" : "passed";
    cases.push({ name: attribute(attributes, "name"), outcome, seconds: Number(attribute(attributes, "time")) || 0 });
  }
  return cases;
}

function attribute(attributes: string, name: string): string {
  const value = new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1] ?? "";
  const entities: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return value.replace(/&(?:#x([0-9a-f]+)|#(\d+)|(\w+));/gi, (whole, hex, decimal, entity) => {
    if (hex !== undefined) return String.fromCodePoint(parseInt(hex, 16));
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
    return entities[entity] ?? whole;
  });
}

export function total(cases: readonly TestCase[]): Totals {
  const count = (outcome: Outcome) => cases.filter((found) => found.outcome === outcome).length;
  return { passed: count("passed"), failed: count("failed"), skipped: count("skipped") };
}

/** `3 passed, 1 failed` or `3 passed, 1 failed, 2 skipped` */
export function describeTotals(totals: Totals): string {
  const line = `${totals.passed} passed, ${totals.failed} failed`;
  return totals.skipped === 0 ? line : `${line}, ${totals.skipped} skipped`;
}

/** One JUnit report out of many: their test suites, one after the other. */
export function joinJUnit(name: string, reports: readonly string[]): string {
  const suites = reports.map((xml) => /<testsuites\b[^>]*>([\s\S]*)<\/testsuites>/.exec(xml)?.[1] ?? "");
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="${name}">${suites.join("")}</testsuites>\n`;
}
