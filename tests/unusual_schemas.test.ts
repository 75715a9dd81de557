import assert from "node:assert/strict";
import { test } from "node:test";
import { openDatabase } from "../src/sqlite/connection.ts";
import { missesCapture } from "../src/sqlite/install.ts";
import { readSchema } from "../src/sqlite/schema.ts";
import { type CoreMember, corePair } from "./support/core_pair.ts";

test("comments in UNIQUE indexes and keys are none of their conditions, and displace as without them", async () => {
  await using pair = await corePair(`
    CREATE TABLE t(id INTEGER PRIMARY KEY, v, w);
    CREATE UNIQUE INDEX live ON t(v) WHERE w IS NULL AND v <> '-- ' -- only those that are not deleted
    ;
    CREATE UNIQUE INDEX folded ON t(w DESC /* newest first */, lower(v) DESC -- as it is looked up
    );
    CREATE TABLE k(k TEXT NOT NULL, v, PRIMARY KEY /* (a comment) */ (k COLLATE NOCASE))`);
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'one', NULL), (2, 'two', 2), (3, 'three', 3); INSERT INTO k VALUES ('a', 1)");
  await pair.converged("t", "k");
  a.run("INSERT INTO k VALUES ('A', 2) ON CONFLICT DO UPDATE SET k = 'A', v = 2");
  a.run("INSERT OR REPLACE INTO t VALUES (4, 'one', NULL), (5, 'TWO', 2)");
  await pair.converged("t", "k");
  assert.deepEqual(b.rows("SELECT id FROM t"), [[3], [4], [5]]);
  assert.deepEqual(b.node.notices, []);
});

test("names that look like the SQL of a trigger, or are empty, are names", async () => {
  const [table, column] = ['"the VALUES of ("', '"a VALUES (b"'];
  await using pair = await corePair(`CREATE TABLE ${table}(id INTEGER PRIMARY KEY, ${column});
    CREATE TABLE ""(id INTEGER PRIMARY KEY, "")`);
  const { a, b } = pair;
  a.run(`INSERT INTO ${table} VALUES (1, 'one'); INSERT INTO "" VALUES (1, 'one')`);
  await pair.converged(table, '""');
  for (const member of [a, b]) {
    member.run(`ALTER TABLE ${table} RENAME COLUMN ${column} TO "c, NEW.""d"`);
  }
  a.restart();
  a.run(`INSERT INTO ${table} VALUES (2, 'two'); INSERT INTO "" VALUES (2, 'two')`);
  await pair.converged(table, '""');
  assert.equal(b.rows('SELECT * FROM ""').length, 2);
});

test("rows that share a key with NULL in it are one row, beside a column that is called rowid", async () => {
  await using pair = await corePair("CREATE TABLE t(k TEXT PRIMARY KEY, rowid)");
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (NULL, NULL), (NULL, NULL)");
  await pair.converged("t");
  assert.equal(b.rows("SELECT * FROM t").length, 1);
});

test("a table of 1,900 columns, all with text, is replicated, and a wider one is named", async () => {
  const columns = Array.from({ length: 1_899 }, (_, i) => `c${i}`);
  await using pair = await corePair(
    `CREATE TABLE wide(id INTEGER PRIMARY KEY, ${columns}); CREATE TABLE wider(id INTEGER PRIMARY KEY, v, ${columns})`,
  );
  const { a, b } = pair;
  a.run(`INSERT INTO wider(id) VALUES (1); INSERT INTO wide VALUES (1, ${columns.map((name) => `'${name}'`)})`);
  await pair.converged("wide");
  a.run("UPDATE wide SET c7 = 'changed'");
  await pair.converged("wide");
  assert.deepEqual(b.rows("SELECT c7, c1898 FROM wide"), [["changed", "c1898"]]);
  const reason = "it has more than 1900 columns";
  assert.deepEqual(a.node.installed.excluded, [{ name: "wider", reason }]);
  a.run("UPDATE wide SET c7 = 'last'; ALTER TABLE wide ADD COLUMN one_more; UPDATE wide SET c7 = 'alone'");
  await pair.converged();
  assert.deepEqual(a.node.installed.excluded, [{ name: "wide", reason }, { name: "wider", reason }]);
  assert.ok(
    !missesCapture(a.node.db, a.node.installed),
    "a migration of other tables is not met between two of its steps",
  );
  a.run("UPDATE wide SET c7 = 'later'");
  await pair.converged();
  assert.deepEqual(b.rows("SELECT c7 FROM wide"), [["alone"]]);
  a.run("ALTER TABLE wide DROP COLUMN one_more");
  await pair.converged();
  b.run("UPDATE wide SET c7 = 'of b'");
  await pair.converged("wide");
});

test("a table without a key whose columns hide its rowid is named, with --rowid-tables too", () => {
  const db = openDatabase(":memory:");
  db.exec("CREATE TABLE hidden(oid, rowid, _rowid_); CREATE TABLE seen(rowid, v)");
  const { tables, skipped } = readSchema(db, true);
  assert.deepEqual([...tables.values()].map(({ key }) => key), [["_rowid_"]]);
  assert.deepEqual(skipped, [{ name: "hidden", reason: "its columns have taken all names of its rowid" }]);
  db.close();
});

/** As if the application had made it so: what only the application knows can't be used here. */
function rewriteSchema(db: CoreMember, replacements: readonly (readonly [from: string, to: string])[]): void {
  db.app.enableDefensive(false);
  const [[version]] = db.rows("PRAGMA schema_version") as [[number]];
  const sql = replacements.reduce((sql, [from, to]) => `replace(${sql}, '${from}', '${to}')`, "sql");
  db.run(`PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = ${sql} WHERE name IN ('t', 'i');
    PRAGMA schema_version = ${version + 1}; PRAGMA writable_schema = OFF`);
}

test("what only the application can compute, in keys, indexes, columns and defaults, does not stop other tables", async () => {
  await using pair = await corePair(`CREATE TABLE other(id INTEGER PRIMARY KEY);
    CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v TEXT COLLATE NOCASE UNIQUE, w);
    CREATE UNIQUE INDEX i ON t(upper(v)) WHERE upper(v) > ''`);
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES ('a', 'b', 'c'); INSERT INTO other VALUES (1)");
  rewriteSchema(a, [["NOCASE", "APP"], ["upper", "app"], [
    "w)",
    "w, x DEFAULT (app(1)), y COLLATE APP, z INT NOT NULL COLLATE APP DEFAULT 1)",
  ]]);
  await pair.converged("(SELECT id, id FROM other)");
  a.run("CREATE TRIGGER after AFTER INSERT ON t BEGIN UPDATE t SET w = 1; END; INSERT INTO other VALUES (2)");
  a.restart();
  await pair.converged("(SELECT id, id FROM other)");
  assert.equal(b.rows("SELECT * FROM other").length, 2);
  assert.deepEqual(b.node.notices.map((notice) => notice.slice(0, 2)), ["t:"]);
});

test("a trigger made after ours publishes no row that was not written, beside a UNIQUE generated column", async () => {
  await using pair = await corePair(`CREATE TABLE t(id INTEGER PRIMARY KEY, v, w, g AS (upper(v)));
      CREATE UNIQUE INDEX i ON t(g)`);
  const { a, b, stream } = pair;
  a.run("INSERT INTO t(id, v) VALUES (1, 'one'), (2, 'two')");
  await pair.converged("t");
  b.run("UPDATE t SET v = 'newer' WHERE id = 2");
  b.node.publish(0);
  stream.flush();
  a.run("CREATE TRIGGER after AFTER INSERT ON t BEGIN UPDATE t SET w = 1 WHERE id = NEW.id; END");
  a.run("INSERT INTO t(id, v) VALUES (3, 'three')");
  await pair.converged("t");
  assert.deepEqual(a.rows("SELECT v, w FROM t"), [["one", null], ["newer", null], ["three", 1]]);
});

test("what a virtual table of the application's own module keeps is left alone, and named", async () => {
  const strange = 'CREATE VIRTUAL TABLE /* USING fts5 */ "my ""USING"" v"  USING vec0(a float[3])';
  await using pair = await corePair(
    `CREATE TABLE "my ""USING"" v_rowids"(rowid INTEGER PRIMARY KEY, id); CREATE TABLE docs_meta(id INTEGER PRIMARY KEY);
    CREATE VIRTUAL TABLE "docs" USING "fts5"(words); PRAGMA writable_schema = ON;
    INSERT INTO sqlite_schema VALUES ('table', 'my "USING" v', 'my "USING" v', 0, '${strange}');
    PRAGMA writable_schema = OFF`,
    { prepare: (app) => app.enableDefensive(false) },
  );
  const { a, b } = pair;
  a.run('INSERT INTO "my ""USING"" v_rowids" VALUES (1, 1); INSERT INTO docs_meta VALUES (1)');
  await pair.converged("(SELECT id, id FROM docs_meta)");
  assert.deepEqual(b.rows('SELECT * FROM "my ""USING"" v_rowids"'), []);
  const reasons = new Map(a.node.installed.excluded.map(({ name, reason }) => [name, reason]));
  const reason = 'it may belong to the virtual table my "USING" v, whose module is not known here';
  assert.equal(reasons.get('my "USING" v_rowids'), reason);
  assert.deepEqual([...reasons.keys()].sort(), ["docs", 'my "USING" v', 'my "USING" v_rowids']);
});

test("a table that SQLite refuses to capture is named, and stops no other one; once it doesn't, its rows are published", async () => {
  const columns = Array.from({ length: 1_100 }, (_, i) => `c${i}`);
  await using pair = await corePair(`CREATE TABLE t(id INTEGER PRIMARY KEY, v);
    CREATE TABLE wide(${columns}, PRIMARY KEY (${columns})) WITHOUT ROWID;
    CREATE TABLE other(id INTEGER PRIMARY KEY, v); CREATE VIEW __marmot__other_change_log AS SELECT 1`);
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'one'); INSERT INTO other VALUES (1, 'one')");
  await pair.converged("t");
  const refused = () => a.node.installed.excluded.map(({ name, reason }) => `${name}: ${reason}`);
  assert.match(refused().join("\n"), /^wide: SQLite refuses .*too large.*\nother: SQLite refuses .*already exists/);
  assert.deepEqual(refused(), a.node.installed.schema.skipped.map(({ name, reason }) => `${name}: ${reason}`));
  for (const { app } of [a, b]) app.exec("DROP VIEW __marmot__other_change_log");
  await pair.converged("t", "other");
  assert.equal(refused().length, 1);
  assert.deepEqual(b.rows("SELECT * FROM other"), [[1, "one"]]);
});

test("a table that was captured, and that SQLite refuses after a migration, goes on when it doesn't any more", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)");
  const { a, b, stream } = pair;
  a.run("INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2)");
  await pair.converged("t");
  b.run("UPDATE t SET v = 'of b' WHERE id = 2");
  b.node.publish(0);
  stream.flush();
  a.run("UPDATE t SET v = 'pending' WHERE id = 1");
  const migration = `ALTER TABLE t RENAME COLUMN w TO x; ALTER TABLE t ADD COLUMN y REFERENCES t ON DELETE CASCADE`;
  a.run(`${migration}; CREATE VIEW __marmot__t_displaced AS SELECT 1`);
  a.node.install();
  assert.match(a.node.installed.excluded[0]!.reason, /^SQLite refuses to capture it: use DROP VIEW/);
  assert.equal(missesCapture(a.node.db, a.node.installed), false);
  await pair.converged();
  // it remembers no column that it did not take up
  assert.equal(a.node.installed.names.currentColumn("t", "w", new Set(["x"])), null);
  assert.deepEqual(a.rows("SELECT name FROM __marmot__columns WHERE name IN ('x', 'y') OR renamed_to = 'x'"), []);
  assert.deepEqual(a.rows("SELECT v FROM t"), [["pending"], ["two"]]);
  a.run("DROP VIEW __marmot__t_displaced");
  b.run(migration);
  await pair.converged("t");
  a.run("UPDATE t SET y = 1");
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT v, y FROM t"), [["pending", 1], ["of b", 1]]);
});

test("what was pending when a table was renamed arrives, although SQLite refuses to capture the table since then", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'one')");
  await pair.converged("t");
  const migration = "ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME COLUMN v TO w";
  a.run(`UPDATE t SET v = 'pending'; ${migration}; ALTER TABLE u ADD COLUMN y REFERENCES u ON DELETE CASCADE;
    CREATE VIEW __marmot__u_displaced AS SELECT 1`);
  b.run(migration);
  await pair.converged();
  assert.match(a.node.installed.excluded[0]!.reason, /^SQLite refuses/);
  assert.deepEqual(b.rows("SELECT w FROM u"), [["pending"]]);
});

test("a key that has a column twice is named", async () => {
  await using pair = await corePair(
    "CREATE TABLE t(a TEXT, b, PRIMARY KEY (a, b, a COLLATE NOCASE)); CREATE TABLE w(a, v, PRIMARY KEY (a, a)) WITHOUT ROWID",
  );
  const { a } = pair;
  a.run("INSERT INTO w VALUES (1, 'one')");
  await pair.converged("w");
  assert.deepEqual(a.node.installed.excluded, [{ name: "t", reason: "its primary key has a column twice" }]);
});
