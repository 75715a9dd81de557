import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { test } from "node:test";
import { PROJECT } from "./support/runtime.ts";
import { functions, separate, type SourceFile, sourceFiles } from "./support/source.ts";

const FUNCTION_LINES = 70;
const FILE_LINES = 400;

const ENTRIES = ["cli.ts", "mod.ts"].filter((path) => existsSync(join(PROJECT, path)));
const PROGRAM = sourceFiles("src", ...ENTRIES);
const ALL = [...PROGRAM, ...sourceFiles("scripts", "tests")];

/** Where each file and folder of src/ stands. A new one has to be placed here, which is a decision. */
const LAYERS = {
  vocabulary: [
    ...[
      "acceptance",
      "bytes",
      "change",
      "change_codec",
      "defaults",
      "errors",
      "frame_codec",
      "shape_codec",
      "hex",
      "pace",
      "queues",
      "shard",
      "sharing",
    ],
    ...["table_filter", "value_codec", "version", "waiting"],
  ],
  contracts: ["broker", "change_stream", "database", "runtime", "watcher"],
  /** adapters, but the core may speak SQL */
  sqlite: ["sqlite/"],
  nats: ["nats/"],
  runtimes: ["runtime/"],
  configuration: ["config", "config/", "log"],
  stages: ["capture", "publish", "subscribe", "apply"],
  around: ["cleanup", "clone", "observation", "place", "placements", "settling", "status", "stream_size", "trouble"],
  wiring: ["marmot", "replication"],
  cli: ["cli/"],
} as const;
type Layer = keyof typeof LAYERS;

const PURE = ["vocabulary", "contracts"] as const;
/** What each layer may import, besides itself; stages never import each other. */
const MAY_IMPORT: Readonly<Record<Layer, readonly Layer[]>> = {
  vocabulary: ["vocabulary"],
  contracts: [...PURE],
  sqlite: [...PURE, "sqlite"],
  nats: [...PURE, "nats"],
  runtimes: [...PURE, "runtimes"],
  configuration: [...PURE, "configuration"],
  stages: [...PURE, "sqlite"],
  around: [...PURE, "sqlite", "around"],
  wiring: [...PURE, "sqlite", "around", "stages", "wiring"],
  cli: Object.keys(LAYERS) as Layer[],
};
const THIRD_PARTY: readonly Layer[] = ["nats", "configuration", "cli"];

function layerOf(path: string): Layer | undefined {
  const inside = path.replace(/^src\//, "").replace(/\.ts$/, "");
  const names = inside.includes("/") ? inside.replace(/\/.*/, "/") : inside;
  const found = Object.entries(LAYERS).find(([, files]) => (files as readonly string[]).includes(names));
  return found?.[0] as Layer | undefined;
}

function isRelative(specifier: string): boolean {
  return specifier.startsWith(".");
}

/** Fails with all that was found, not the first only. */
function none(found: readonly string[]): void {
  assert.deepEqual(found, []);
}

/** Every line of code (comments and strings apart) that matches. */
function linesLike(files: readonly SourceFile[], pattern: RegExp): string[] {
  return files.flatMap(({ path, code }) =>
    code.split("\n").flatMap((line, index) => pattern.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])
  );
}

test("files have at most 400 lines, and functions 70", () => {
  const long = ALL.map(({ path, text }) => ({ path, lines: text.split("\n").length - 1 }));
  none(long.filter(({ lines }) => lines > FILE_LINES).map(({ path, lines }) => `${path}: ${lines} lines`));
  none(
    ALL.flatMap((file) =>
      functions(file).filter(({ lines }) => lines > FUNCTION_LINES).map(({ head, lines }) =>
        `${file.path}: ${head} ${lines}`
      )
    ),
  );
});

test("every file of src has its place, and imports only what is below it", () => {
  const wrong = PROGRAM.filter(({ path }) => path.startsWith("src/")).flatMap(({ path, imports }) => {
    const layer = layerOf(path);
    if (layer === undefined) return [`${path} has no layer: name it in tests/tidy.test.ts`];
    return imports.filter(isRelative).flatMap((specifier) => {
      const target = layerOf(posix.join(posix.dirname(path), specifier));
      if (target !== undefined && MAY_IMPORT[layer].includes(target)) return [];
      return [`${path} (${layer}) imports ${specifier} (${target ?? "outside src"})`];
    });
  });
  none(wrong);
});

test("the core needs nothing but what is built in; packages are for the adapters, configuration and command line", () => {
  const wrong = PROGRAM.flatMap(({ path, imports }) => {
    const layer = layerOf(path);
    if (layer !== undefined && THIRD_PARTY.includes(layer)) return [];
    const outside = imports.filter((specifier) => !isRelative(specifier) && !specifier.startsWith("node:"));
    return outside.map((specifier) => `${path} imports ${specifier}`);
  });
  none(wrong);
});

test("what is imported is named in full: node: for what is built in, .ts for files", () => {
  none(
    ALL.flatMap(({ path, imports }) =>
      imports.filter((specifier) =>
        isRelative(specifier) ? !specifier.endsWith(".ts") : /^(npm|jsr|https?):/.test(specifier)
      )
        .map((specifier) => `${path} imports ${specifier}`)
    ),
  );
});

test("SQL is written in src/sqlite only", () => {
  const sql =
    /^\s*(SELECT\s|INSERT\s|REPLACE\s+INTO|UPDATE\s+["$\w]+\s+SET|DELETE\s+FROM|CREATE\s|DROP\s|ALTER\s|PRAGMA\s|BEGIN(?:$|\s+(?:IMMEDIATE|EXCLUSIVE|DEFERRED))|COMMIT\b|ROLLBACK\b|SAVEPOINT\s|ATTACH\s|VACUUM\b|WITH\s+\w+\s+AS)/;
  const elsewhere = PROGRAM.filter(({ path }) => !path.startsWith("src/sqlite/"));
  none(
    elsewhere.flatMap(({ path, strings }) =>
      strings.filter((text) => sql.test(text)).map((text) => `${path}: ${text}`)
    ),
  );
});

test("types are told: no any, no default export, no enum, no namespace", () => {
  none(linesLike(ALL, /(?::|<|\bas|\||&|,|=)\s*any\b(?!\w)/));
  none(
    linesLike(ALL, /^\s*export default\b|^\s*(export )?(const |declare )?enum\b|^\s*(export )?(declare )?namespace\b/),
  );
});

test("the program speaks to its runtime by node: alone", () => {
  none(linesLike(PROGRAM, /\b(Deno|Bun)\b\s*[.[]|\bglobalThis\.(Deno|Bun)\b/));
  none(linesLike(ALL, /\btypeof (Deno|Bun)\b/));
});

test("time is measured by a clock that nobody can set; the log alone tells the time of day", () => {
  none(linesLike(PROGRAM.filter(({ path }) => path !== "src/log.ts"), /\bDate\.now\b|\bnew Date\b/));
});

test("only the command line prints or exits", () => {
  const others = PROGRAM.filter(({ path }) => path !== "cli.ts" && !path.startsWith("src/cli/"));
  none(linesLike(others, /\bconsole\.|\bprocess\.exit\(|\bprocess\.exitCode\b|\bstdout\.write\(/));
});

test("Deno and Bun get the same packages, and the lock file names no host", () => {
  const read = (path: string) => readFileSync(join(PROJECT, path), "utf8");
  const deno: { imports: Record<string, string> } = JSON.parse(read("deno.json"));
  const bun: Record<"dependencies" | "devDependencies", Record<string, string>> = JSON.parse(read("package.json"));
  const pins = Object.entries({ ...bun.dependencies, ...bun.devDependencies });
  assert.deepEqual(deno.imports, Object.fromEntries(pins.map(([name, version]) => [name, `npm:${name}@${version}`])));
  for (const [name, version] of pins) assert.match(version, /^\d+\.\d+\.\d+$/, name);
  assert.doesNotMatch(read("deno.lock"), /https?:|registry/);
});

test("the rules see through comments, strings, templates and regular expressions", () => {
  const text = 'a(/["`{]/); // "x" {\nconst b = `c ${d({ e: `f` })} g`; /* { */ const h = "i//j" + k / l / m;\n';
  const { code, strings } = separate(text);
  assert.equal(code.length, text.length);
  assert.deepEqual(strings, ["c ", "f", " g", "i//j"]);
  assert.equal(code.replace(/ +/g, " "), 'a( ); \nconst b = ` ${d({ e: ` ` })} `; const h = " " + k / l / m;\n');
});
