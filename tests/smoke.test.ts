/** What a compiled Marmot has to stand wherever it is put: `deno task test --program dist/marmot smoke`. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmod, copyFile, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import type { Manifest } from "../scripts/build/manifest.ts";
import { EXIT } from "../src/errors.ts";
import { freezeProcess, type Program, runProgram, startProgram } from "./support/process.ts";
import { PROJECT, testedProgram } from "./support/runtime.ts";
import { haveProgram, skipTest } from "./support/skip.ts";
import { slowdown } from "./support/slowdown.ts";
import { type TempFolder, tempFolder } from "./support/tmp.ts";

const CAPTURING_LIMIT_MS = 300;
const BROKER_LIMIT_MS = 600;
/** Marmot may hold the database's lock for a moment */
const LOCK_TIMEOUT_MS = 20_000;
/** the best of them counts */
const TIMED_STARTS = 8;
const MEGABYTE = 1_000_000;
const SIZE_LIMITS_MB: Readonly<Record<string, { program: number; archive: number }>> = {
  deno: { program: 120, archive: 45 },
  bun: { program: 135, archive: 48 },
};
/** a user that owns nothing and has no home */
const NOBODY = 54_321;

const README = join(PROJECT, "README.md");
const PROGRAM = testedProgram() ?? "marmot";

interface Surroundings {
  /** Marmot's; nothing is added */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** what runs it */
  readonly through?: readonly string[];
  readonly program?: string;
}

/** In an environment that is empty but for what is given. */
function command(args: readonly string[], { env = {}, through = [], program = PROGRAM }: Surroundings): string[] {
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  return ["env", "-i", ...variables, ...through, program, ...args];
}

function start(args: readonly string[], surroundings: Surroundings = {}): Promise<Program> {
  return startProgram(command(args, surroundings), { cwd: surroundings.cwd });
}

function run(args: readonly string[], surroundings: Surroundings = {}) {
  return runProgram(command(args, surroundings), { cwd: surroundings.cwd });
}

function cacheIn(folder: TempFolder): { XDG_CACHE_HOME: string } {
  return { XDG_CACHE_HOME: folder.file("cache") };
}

/** Starts on a database with its own broker, until it is connected, and stops. @returns its output */
async function startsAndStops(dbPath: string, surroundings: Surroundings): Promise<string> {
  await using marmot = await start(["--db-path", dbPath, "--create"], surroundings);
  await marmot.waitFor("connected");
  assert.deepEqual(await marmot.stop(), { code: EXIT.ok, signal: null }, marmot.output);
  return marmot.output;
}

/** The unpacked nats-server below a folder that holds one. */
async function unpacked(folder: string): Promise<string> {
  const [name = ""] = (await readdir(folder)).filter((found) => found.startsWith("nats-server-"));
  return join(folder, name, "nats-server");
}

test("the program says what is inside, and its manifest agrees", async () => {
  const { stdout } = await run(["--version"]);
  const { builds, marmot }: Manifest = JSON.parse(await readFile(join(PROJECT, "dist", "manifest.json"), "utf8"));
  const bytes = await readFile(PROGRAM);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const build = builds.find((found) => found.sha256 === sha256);
  assert.ok(build !== undefined, "dist/manifest.json does not know this program");
  const { runtime, sqlite, natsServer, size, archive, contents } = build;
  assert.equal(
    stdout,
    `marmot ${marmot}\n${runtime.name} ${runtime.version}\nSQLite ${sqlite}\nnats-server ${natsServer.version} (inside)\n`,
  );
  assert.equal(size, bytes.length);
  const [, told, toldArchive] = /less than (\d+) MB, (\d+) MB to download/.exec(await readFile(README, "utf8")) ?? [];
  const limits = SIZE_LIMITS_MB[runtime.name]!;
  // The README's is the one for most people.
  const promised = runtime.name === "deno" ? { program: Number(told), archive: Number(toldArchive) } : limits;
  assert.ok(size <= Math.min(limits.program, promised.program) * MEGABYTE, `${size} bytes`);
  assert.ok((archive?.size ?? 0) <= Math.min(limits.archive, promised.archive) * MEGABYTE, `${archive?.size} bytes`);
  const names = contents.map(({ name }) => name);
  for (const name of ["marmot", runtime.name, "commander", "tweetnacl", "go", "github.com/nats-io/nats-server/v2"]) {
    assert.ok(names.includes(name), `${name} is not listed among ${names}`);
  }
  const bom = JSON.parse(await readFile(`${PROGRAM}.cdx.json`, "utf8"));
  assert.deepEqual(bom.components.map((found: { name: string }) => found.name), names.slice(1));
  const notices = await readFile(`${PROGRAM}.notices.txt`, "utf8");
  for (const { name, version, licence } of contents) {
    assert.ok(notices.includes(`${name} ${version} (${licence})`), name);
  }
});

test("it captures within 300 ms, and its broker is up within 600", async () => {
  await using folder = await tempFolder();
  const env = cacheIn(folder);
  await startsAndStops(folder.file("my.db"), { env });
  const times = { capturing: [] as number[], connected: [] as number[] };
  for (let attempt = 0; attempt < TIMED_STARTS; attempt++) {
    const slowed = [slowdown()];
    const started = performance.now();
    await using marmot = await start(["--db-path", folder.file("my.db")], { env });
    const taken: number[] = [];
    for (const step of ["capturing", "connected"] as const) {
      await marmot.waitFor(step);
      taken.push(performance.now() - started);
    }
    slowed.push(slowdown());
    const [capturing = 0, connected = 0] = taken.map((ms) => Math.round(ms / Math.max(...slowed)));
    times.capturing.push(capturing);
    times.connected.push(connected);
  }
  process.stdout.write(`start to capturing, connected: ${JSON.stringify(times)}\n`);
  assert.ok(Math.min(...times.capturing) < CAPTURING_LIMIT_MS, JSON.stringify(times));
  assert.ok(Math.min(...times.connected) < BROKER_LIMIT_MS, JSON.stringify(times));
});

test("it runs in an empty environment, from a path with spaces, through a symbolic link, for a user without a home", async () => {
  await using folder = await tempFolder();
  await mkdir(folder.file("a b"));
  await copyFile(PROGRAM, folder.file("a b", "mar mot"));
  await symlink(folder.file("a b", "mar mot"), folder.file("link"));
  await chmod(folder.path, 0o777);
  const user = ["--reuid", `${NOBODY}`, "--regid", `${NOBODY}`, "--clear-groups"];
  const through = process.getuid?.() === 0 ? ["/usr/bin/setpriv", ...user] : [];
  const output = await startsAndStops(folder.file("my data.db"), { through, program: folder.file("link"), cwd: "/" });
  assert.doesNotMatch(output, /ERROR/);
  if (through.length > 0) assert.ok(await unpacked(folder.file("my data.db-marmot")), "it is beside the database");
});

test("it reads nothing from the folder it is started in", async () => {
  await using folder = await tempFolder();
  await writeFile(folder.file("evil.js"), `require("node:fs").writeFileSync("ran", "")`);
  const settings: Record<string, string> = {
    ".env": "MARMOT_SHARDS=7\nMARMOT_DB_PATH=other.db\n",
    "bunfig.toml": `preload = ["./evil.js"]\n[run]\npreload = ["./evil.js"]\n`,
    "deno.json": "{ this is no JSON",
    "package.json": "{ neither is this",
    "tsconfig.json": `{ "extends": "./none.json" }`,
    "marmot.toml": "shards = 9\n",
    "config.toml": "shards = 9\n",
  };
  for (const [name, text] of Object.entries(settings)) await writeFile(folder.file(name), text);
  const { code, stdout, stderr } = await run(["config", "--db-path", "my.db"], { cwd: folder.path });
  assert.equal(code, EXIT.ok, stderr);
  assert.equal(stderr, "");
  assert.match(stdout, /^#?shards = 1\b/m);
  assert.ok(stdout.includes(`db_path = "${folder.file("my.db")}"`), stdout);
  await startsAndStops("my.db", { cwd: folder.path, env: cacheIn(folder) });
  assert.ok(!(await readdir(folder.path)).includes("ran"));
});

for (const locale of ["C", "en_US.ISO-8859-1"]) {
  test(`names and rows are UTF-8 under the locale ${locale}`, async () => {
    await using folder = await tempFolder();
    const dbPath = folder.file("Bücher 🦫.db");
    const db = new DatabaseSync(dbPath, { timeout: LOCK_TIMEOUT_MS });
    try {
      db.exec(`PRAGMA journal_mode = WAL; CREATE TABLE "Bücher"(titel TEXT PRIMARY KEY) STRICT`);
      const env = { ...cacheIn(folder), LC_ALL: locale, LANG: locale };
      await using marmot = await start(["--db-path", dbPath], { env });
      await marmot.waitFor("connected");
      db.exec(`INSERT INTO "Bücher" VALUES ('Größe')`);
      await marmot.stop();
      assert.ok(marmot.output.includes("Bücher 🦫.db"), marmot.output);
      assert.deepEqual(Object.values(db.prepare(`SELECT count(*) FROM "__marmot__Bücher_change_log"`).get()!), [0]);
      const status = await run(["status", "--db-path", dbPath], { env });
      assert.equal(status.code, EXIT.ok, status.stderr);
    } finally {
      db.close();
    }
  });
}

test("two that start at once share one nats-server in the cache, and leave nothing in the folder for temporary files", async () => {
  await using folder = await tempFolder();
  await mkdir(folder.file("tmp"));
  const env = { ...cacheIn(folder), TMPDIR: folder.file("tmp") };
  const both = ["a.db", "b.db"].map((name) => startsAndStops(folder.file(name), { env }));
  await Promise.all(both);
  const path = await unpacked(folder.file("cache", "marmot"));
  assert.deepEqual(await readdir(dirname(path)), ["nats-server"]);
  assert.deepEqual(await readdir(folder.file("tmp")), []);
});

test("a nats-server that was changed in the cache is put right before it runs", async () => {
  await using folder = await tempFolder();
  const env = cacheIn(folder);
  await startsAndStops(folder.file("my.db"), { env });
  const path = await unpacked(folder.file("cache", "marmot"));
  const before = await readFile(path);
  await writeFile(path, `#!/bin/sh\ntouch '${folder.file("ran")}'\n`);
  await startsAndStops(folder.file("my.db"), { env });
  assert.ok(before.equals(await readFile(path)));
  assert.ok(!(await readdir(folder.path)).includes("ran"));
});

/** A shell that does `mounts` in a view of the file system of its own, and then becomes what follows. */
function mounted(mounts: string): string[] {
  return ["/usr/bin/unshare", "--mount", "--map-root-user", "/bin/sh", "-ec", `${mounts}\nexec "$@"`, "mounted"];
}
const PATH = "/usr/sbin:/usr/bin:/sbin:/bin";

test("with a read-only root, home included, it runs from the folder of its database", async (context) => {
  if (!await haveProgram(context, ["unshare", "--mount", "--map-root-user", "true"])) return;
  await using folder = await tempFolder();
  const through = mounted(`mount --bind '${folder.path}' '${folder.path}'; mount -o remount,bind,ro /`);
  const output = await startsAndStops(folder.file("my.db"), { env: { PATH, HOME: "/home/none" }, through });
  assert.doesNotMatch(output, /ERROR/);
  assert.ok((await readdir(folder.file("my.db-marmot"))).some((name) => name.startsWith("nats-server-")));
});

test("a cache where programs can't be run is passed over, and if there is no other place the error says so", async (context) => {
  if (!await haveProgram(context, ["unshare", "--mount", "--map-root-user", "true"])) return;
  await using folder = await tempFolder();
  await mkdir(folder.file("cache"));
  await mkdir(folder.file("data"));
  const env = { ...cacheIn(folder), PATH };
  const noexec = (name: string) => `mount -t tmpfs -o noexec,mode=0700 tmpfs '${folder.file(name)}'`;
  await startsAndStops(folder.file("data", "my.db"), { env, through: mounted(noexec("cache")) });
  assert.ok((await readdir(folder.file("data", "my.db-marmot"))).some((name) => name.startsWith("nats-server-")));

  const through = mounted(`${noexec("cache")}; ${noexec("data")}`);
  const { code, stderr } = await run(["--db-path", folder.file("data", "new.db"), "--create"], { env, through });
  assert.equal(code, EXIT.broker, stderr);
  const places = [folder.file("cache", "marmot"), folder.file("data", "new.db-marmot")];
  for (const place of places) assert.ok(stderr.includes(`${place}: programs can't be run from there`), stderr);
  assert.match(stderr, /Set XDG_CACHE_HOME/);
});

test("a broker that a killed Marmot left running is ended by the next one", async () => {
  await using folder = await tempFolder();
  const env = cacheIn(folder);
  await using first = await start(["--db-path", folder.file("my.db"), "--create"], { env });
  await first.waitFor("connected");
  const pid = Number(await readFile(folder.file("my.db-marmot", "nats", "nats-server.pid"), "utf8"));
  freezeProcess(pid);
  await first.kill();
  const output = await startsAndStops(folder.file("my.db"), { env });
  assert.match(output, new RegExp(`Stopping a broker that an earlier Marmot .* pids="?[\\d ]*\\b${pid}\\b`));
});

test("it calls nobody: all connections are to this machine", async (context) => {
  if (!await haveProgram(context, ["strace", "-V"])) return;
  await using folder = await tempFolder();
  const trace = folder.file("trace");
  const through = ["/usr/bin/strace", "-D", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", trace];
  await startsAndStops(folder.file("my.db"), { env: cacheIn(folder), through });
  const calls = (await readFile(trace, "utf8")).split("\n").filter((line) => /sa_family=AF_INET/.test(line));
  assert.ok(calls.some((line) => line.includes(`inet_addr("127.0.0.1")`)), "nothing was traced");
  assert.deepEqual(calls.filter((line) => !/inet_addr\("127\.0\.0\.1"\)|"::1"/.test(line)), []);
});

test("a nats-server in PATH is not asked: the one inside is the one that was tested", async () => {
  await using folder = await tempFolder();
  await mkdir(folder.file("bin"));
  await writeFile(folder.file("bin", "nats-server"), `#!/bin/sh\ntouch '${folder.file("ran")}'\n`, { mode: 0o755 });
  await startsAndStops(folder.file("my.db"), { env: { ...cacheIn(folder), PATH: folder.file("bin") } });
  assert.ok(!(await readdir(folder.path)).includes("ran"));
});

test("a nats-server of the user's own still goes before the one inside", async (context) => {
  const named = process.env.MARMOT_NATS_SERVER;
  if (named === undefined) return skipTest(context, "the test script names no nats-server");
  await using folder = await tempFolder();
  const args = ["--db-path", folder.file("my.db"), "--create", "--nats-server", named];
  await using marmot = await start(args, { env: cacheIn(folder) });
  await marmot.waitFor("connected");
  await marmot.stop();
  await assert.rejects(readdir(folder.file("cache")));
});
