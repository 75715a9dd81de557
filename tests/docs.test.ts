import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { TARGETS } from "../scripts/build/targets.ts";
import { VERSION } from "../src/version.ts";
import { natsServerFlags, startNatsServer } from "./support/nats.ts";
import { type Program, runProgram, startProgram } from "./support/process.ts";
import { marmotCommand, PROJECT, scriptCommand } from "./support/runtime.ts";
import { haveProgram } from "./support/skip.ts";
import { unhurried } from "./support/slowdown.ts";
import { type TempFolder, tempFolder } from "./support/tmp.ts";

const DOCS = ["README.md", "CHANGELOG.md", ...readdirSync(join(PROJECT, "docs")).map((name) => `docs/${name}`)]
  .filter((name) => name.endsWith(".md"));
/** A change reaches the other node in milliseconds; a busy machine may need longer. */
const ARRIVAL_TIMEOUT_MS = 20_000;
const POLL_MS = 50;
const STOP_TIMEOUT_MS = 2_000;
const START = "marmot ";
const INVARIANTS = 8;
const RELEASE_WORKFLOW = ".github/workflows/release.yml";

function read(name: string): string {
  return readFileSync(join(PROJECT, name), "utf8");
}

/** The shell's blocks of a text, as lines. */
function shellBlocks(text: string): string[][] {
  return [...text.matchAll(/^```sh\n(.*?)^```/gms)].map((match) => match[1]!.trimEnd().split("\n"));
}

/** Words of a command that quotes with double quotes only. */
function words(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!);
}

async function startMarmot(args: readonly string[], folder: TempFolder): Promise<Program> {
  return await startProgram([...marmotCommand(), ...args, ...await natsServerFlags()], { cwd: folder.path });
}

/** @returns what it printed */
async function run(command: readonly string[], folder: TempFolder): Promise<string> {
  const { code, stdout, stderr } = await runProgram(command, { cwd: folder.path });
  assert.equal(code, 0, `${command.join(" ")}: ${stderr}`);
  return stdout.trimEnd();
}

async function stopsAtCtrlC(marmot: Program): Promise<void> {
  const took = await unhurried(async () => {
    marmot.signal("SIGINT");
    assert.equal((await marmot.exited).code, 0, marmot.output);
  });
  assert.ok(took < STOP_TIMEOUT_MS, "it took too long");
}

test("the README's commands make two nodes, and a row written on one is read on the other", async (context) => {
  if (!await haveProgram(context, ["sqlite3", "--version"])) return;
  await using folder = await tempFolder();
  const [, [start], [write], [clone, join], [writeOther, readBack, ...expected]] = shellBlocks(read("README.md")) as [
    string[],
    [string],
    [string],
    [string, string],
    [string, string, ...string[]],
  ];
  assert.ok(start.startsWith(START), start);
  await using first = await startMarmot(words(start.slice(START.length)), folder);
  const [, ...printed] = await first.waitFor(/Another node joins this one with\nmarmot (.*)\nmarmot (.*)\n/);
  await first.waitFor("broker is there");
  await run(words(write), folder);

  const shown = printed.map((command) => `marmot ${command.replaceAll(`${folder.path}/`, "")}`);
  assert.deepEqual(shown.map((command) => command.replace(/127\.0\.0\.1:\d+/, "127.0.0.1:4222")), [clone, join]);
  await run([...marmotCommand(), ...words(printed[0]!)], folder);
  await using second = await startMarmot(words(printed[1]!), folder);
  await second.waitFor("broker is there");

  await run(words(writeOther), folder);
  const wanted = expected.map((line) => line.replace(/^# /, "")).join("\n");
  const deadline = Date.now() + ARRIVAL_TIMEOUT_MS;
  while (await run(words(readBack), folder) !== wanted && Date.now() < deadline) await sleep(POLL_MS);
  assert.equal(await run(words(readBack), folder), wanted);
  await stopsAtCtrlC(second);
  await stopsAtCtrlC(first);
});

test("the example of mod.ts runs as it is, and what it writes is in the stream when it says so", async () => {
  await using server = await startNatsServer();
  await using folder = await tempFolder();
  const comment = /```ts\n(.*?) \* ```/s.exec(read("mod.ts"))![1]!;
  const example = comment.replace(/^ \* ?/gm, "")
    .replace(`"./mod.ts"`, JSON.stringify(pathToFileURL(join(PROJECT, "mod.ts")).href))
    .replace("nats://127.0.0.1:4222", server.url);
  await writeFile(folder.file("example.ts"), example);
  const command = scriptCommand("mod.ts").with(-1, folder.file("example.ts"));
  assert.match(await run(command, folder), /marmot-changes-1/);
  const db = new DatabaseSync(folder.file("my.db"));
  try {
    assert.deepEqual(Object.values(db.prepare("SELECT count(*) FROM notes").get()!), [1]);
    assert.deepEqual(Object.values(db.prepare("SELECT count(*) FROM __marmot__notes_change_log").get()!), [0]);
  } finally {
    db.close();
  }
});

test("the README's commands and exit codes are those of the help", async () => {
  const { stdout: help } = await runProgram([...marmotCommand(), "--help"]);
  const codes = [...read("README.md").matchAll(/^\| (\d) +\| (.*?) +\|$/gm)];
  const listed = codes.map(([, code, meaning]) => `  ${code}  ${meaning}\n`).join("");
  assert.ok(codes.length > 0 && help.includes(`Exit codes:\n${listed}`), listed);
  const named = [...read("README.md").matchAll(/^\| `marmot (?!--)([\w-]+)/gm)].map(([, name]) => name);
  assert.deepEqual(named.toSorted(), ["clone", "config", "join-command", "status"]);
  for (const name of named) assert.match(help, new RegExp(`^  ${name}\\b`, "m"));
});

test("the README, CI and the tasks name one version of Deno", () => {
  const pinned = /deno_version=(\S+)/.exec(read(".ci/run"))![1];
  const texts = [...DOCS, RELEASE_WORKFLOW].map(read).join("\n");
  const named = [...texts.matchAll(/deno@([\d.]+\d)/g)].map(([, version]) => version);
  assert.ok(named.length > 0);
  for (const version of named) assert.equal(version, pinned);
});

test("what is downloaded has the version and the names that the build gives", () => {
  const named = ["README.md", "docs/INSTALL.md"].flatMap((
    name,
  ) => [...read(name).matchAll(/marmot-(\d[\d.]*\d)-([a-z][\w-]*)/g)]);
  assert.ok(named.length > 0);
  for (const [file, version, target] of named) {
    assert.equal(version, VERSION, file);
    assert.ok(TARGETS.some(({ name }) => name === target), file);
  }
  for (const { name } of TARGETS) {
    const [system = "", rest = ""] = name.split(/-(.*)/);
    assert.match(read("docs/INSTALL.md"), new RegExp(`VERSION-${system}-.*-?${rest}\\b`), name);
  }
});

test("the release workflow builds every target, with Deno where Deno has a runtime for it", () => {
  const built = [...read(RELEASE_WORKFLOW).matchAll(/target: ([\w-]+), runner: [\w.-]+, runtime: (\w+)/g)];
  const wanted = TARGETS.map(({ name, deno }) => [name, deno === undefined ? "bun" : "deno"]);
  assert.deepEqual(built.map(([, name, runtime]) => [name, runtime]).toSorted(), wanted.toSorted());
});

test("links of the documents lead to files and headings that exist", () => {
  const slug = (heading: string) => heading.toLowerCase().replace(/[^\w\- ]/g, "").replaceAll(" ", "-");
  const broken = DOCS.flatMap((name) =>
    [...read(name).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)].flatMap(([link, path = "", anchor]) => {
      const target = path === "" ? name : join(dirname(name), path);
      if (!existsSync(join(PROJECT, target))) return [`${name}: ${link}`];
      if (anchor === undefined) return [];
      const headings = [...read(target).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => slug(heading!));
      return headings.includes(anchor) ? [] : [`${name}: ${link}`];
    })
  );
  assert.deepEqual(broken, []);
});

test("files that the documents name exist", () => {
  const paths = /`((?:src|tests|scripts|docs|packaging)\/[\w./-]*|(?:cli|mod)\.ts)`/g;
  const missing = DOCS.flatMap((name) => [...read(name).matchAll(paths)].map(([, path]) => path!))
    .filter((path) => !existsSync(join(PROJECT, path)));
  assert.deepEqual(missing, []);
});

test("the code map names every file of the core and of src/sqlite", () => {
  const map = read("docs/ARCHITECTURE.md");
  const files = (folder: string) => readdirSync(join(PROJECT, folder)).filter((name) => name.endsWith(".ts"));
  const named = [
    ...files("src").map((name) => `\`src/${name}\``),
    ...files("src/sqlite").map((name) => `\`${name}\``),
  ];
  assert.deepEqual(named.filter((name) => !map.includes(name)), []);
});

test("every invariant names a test that holds it", () => {
  const design = read("docs/DESIGN.md");
  const guarantees = read("docs/ARCHITECTURE.md");
  for (let number = 1; number <= INVARIANTS; number++) {
    const paragraph = new RegExp(`^\\*\\*I${number}: .*?(?=\\n\\n)`, "ms").exec(design)?.[0] ?? "";
    const row = new RegExp(`^\\| I${number} .*$`, "m").exec(guarantees)?.[0] ?? "";
    for (const text of [paragraph, row]) assert.match(text, /\]\(\.\.\/tests\/[\w/]+\.test\.ts\)/, `I${number}`);
  }
  assert.doesNotMatch(design, new RegExp(`I${INVARIANTS + 1}\\b`));
});
