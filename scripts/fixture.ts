/**
 * Makes tests/fixtures/VERSION: two databases and a stream store as this release leaves them when its processes are killed,
 * with changes that are pending, parked, and not yet applied. Once for each release; what is there is never made again.
 *
 *     deno run --allow-all scripts/fixture.ts
 */
import { access, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { VERSION } from "../src/version.ts";
import { startCluster, until } from "../tests/support/cluster.ts";
import {
  allRows,
  ARCHIVE,
  EXPECTED,
  type Expected,
  FIXTURE_FLAGS,
  FIXTURES,
  LATER,
  leftFacts,
  takeUp,
  unpackFixture,
} from "../tests/support/fixture.ts";
import { runProgram } from "../tests/support/process.ts";

const TABLES = `PRAGMA journal_mode = WAL;
  CREATE TABLE notes(id TEXT PRIMARY KEY, body);
  CREATE TABLE accounts(id INTEGER PRIMARY KEY, email TEXT UNIQUE COLLATE NOCASE, balance REAL NOT NULL DEFAULT 0);
  CREATE TABLE "odd ""name"(a, b, "select" BLOB, PRIMARY KEY (a, b)) WITHOUT ROWID;
  CREATE TABLE numbered(id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT)`;
const FIRST =
  `INSERT INTO notes VALUES ('text', 'Grüße 🦫'), ('nul', 'a' || char(0) || 'b'), ('int', 9223372036854775807),
    ('real', 0.1), ('blob', x'00ff'), ('null', NULL), ('gone', 'soon deleted'), ('both', 'of a');
  INSERT INTO accounts VALUES (1, 'ann@example.org', 1.5), (2, 'bob@example.org', -0.0);
  INSERT INTO "odd ""name" VALUES (1, 'one', x'01'), (2, 'two', NULL);
  INSERT INTO numbered(text) VALUES ('first'), ('second')`;
const OF_B = `INSERT INTO notes VALUES ('of b', 'written on b'); UPDATE notes SET body = 'of b' WHERE id = 'both'`;
/** while a does not look: in the stream, and not yet applied at a */
const UNSEEN = `BEGIN; INSERT INTO notes VALUES ('unseen', 'not applied at a when it was killed');
  UPDATE accounts SET email = 'carol@example.org' WHERE id = 2; COMMIT`;
/** after the Marmots were killed */
const PENDING_A = `DELETE FROM notes WHERE id = 'gone'; UPDATE accounts SET balance = 2.5 WHERE id = 1;
  INSERT INTO notes VALUES ('pending a', zeroblob(100)); UPDATE "odd ""name" SET a = 3 WHERE a = 2`;
const PENDING_B =
  `INSERT INTO notes VALUES ('pending b', 'text'); INSERT INTO accounts VALUES (3, 'BOB@example.org', 3);
  INSERT INTO later VALUES ('pending', 'in a table that a lacks')`;

/** @returns how far both nodes were when they were packed */
async function leave(target: string): Promise<Expected["left"]> {
  await using cluster = await startCluster({ broker: "embedded", prepare: TABLES, args: FIXTURE_FLAGS });
  const { a, b } = cluster;
  await a.app.script(FIRST);
  await cluster.converged();
  await b.app.script(OF_B);
  await cluster.converged();
  await b.app.script(LATER);
  await cluster.captured(["later"], [b]);
  await b.app.run("INSERT INTO later VALUES ('parked', 'before a has the table')");
  await until("a has parked it", async () => (await a.app.facts()).parked > 0, { nodes: [a] });

  a.freeze();
  await b.app.script(UNSEEN);
  const pending = async () => Object.keys((await b.app.facts()).pending).length;
  await until("b's changes are in the stream", async () => await pending() === 0, { nodes: [b] });
  await b.kill();
  await a.kill();
  await a.app.script(PENDING_A);
  await b.app.script(PENDING_B);
  for (const { app } of cluster.nodes) await app.script("PRAGMA wal_checkpoint(TRUNCATE)");
  const left = await Promise.all(cluster.nodes.map(leftFacts));
  for (const { app } of cluster.nodes) await app[Symbol.asyncDispose]();

  const names = (await readdir(cluster.folder.path)).filter((name) => /^[ab]\.db(-marmot)?$/.test(name)).sort();
  const unneeded = ["--exclude=nats-server.*", "--exclude=lock*"];
  const args = ["-czf", join(target, ARCHIVE), "-C", cluster.folder.path, ...unneeded, ...names];
  const { code, stderr } = await runProgram(["tar", ...args]);
  if (code !== 0) throw new Error(`Cannot pack the fixture: ${stderr}`);
  return left;
}

const target = join(FIXTURES, VERSION);
if (await access(target).then(() => true, () => false)) {
  process.stderr.write(`Cannot make ${target}: it is there. A fixture is what a release wrote, and stays as it is.\n`);
  process.exit(1);
}
await mkdir(target, { recursive: true });
try {
  const left = await leave(target);
  await using cluster = await unpackFixture(VERSION);
  await takeUp(cluster);
  const expected: Expected = { marmot: VERSION, left, rows: await allRows(cluster.a) };
  await writeFile(join(target, EXPECTED), `${JSON.stringify(expected, null, 2)}\n`);
} catch (error) {
  await rm(target, { recursive: true });
  throw error;
}
process.stdout.write(`${target}\n`);
process.exit(0);
