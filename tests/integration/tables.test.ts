import assert from "node:assert/strict";
import { clusterTests, until } from "../support/cluster.ts";

const WIDE_COLUMNS = 200;
const MANY_TABLES = 500;
const test = clusterTests();
const names = (count: number, prefix: string) => Array.from({ length: count }, (_, i) => `${prefix}${i}`);

test("generated columns are made again at each node", async ({ a, b, schema, converged }) => {
  await schema(
    `CREATE TABLE generated(v1 AS (n * 2) VIRTUAL, id INTEGER PRIMARY KEY, s1 TEXT AS (name || '!') STORED, n INTEGER, name TEXT,
    v2 INTEGER GENERATED ALWAYS AS (length(name) + n))`,
  );
  await a.app.script("INSERT INTO generated(id, n, name) VALUES (1, 5, 'five'), (2, 6, NULL)");
  await converged();
  await b.app.script("UPDATE generated SET n = n + 1, name = 'six' WHERE id = 1");
  await converged();
  assert.deepEqual(await a.app.run("SELECT * FROM generated WHERE id = 1"), [[12, 1, "six!", 6, "six", 9]]);
});

test("STRICT tables, with ANY columns, arrive", async ({ a, b, schema, converged }) => {
  await schema(`CREATE TABLE strict_table(id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB, x ANY) STRICT;
    CREATE TABLE strict_any(k ANY PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID`);
  await a.app.script(`INSERT INTO strict_table VALUES (1, 2, 3, '4', x'05', '006'), (2, NULL, NULL, NULL, NULL, 6.0);
    INSERT INTO strict_any VALUES (1, 'integer'), ('1', 'text'), (x'31', 'blob')`);
  await converged();
  await b.app.script("UPDATE strict_table SET x = id, r = 1 WHERE id = 2; DELETE FROM strict_any WHERE k = '1'");
  await converged();
});

test("CHECK and NOT NULL constraints and defaults don't stand in a change's way", async ({ a, b, schema, converged }) => {
  await schema(
    `CREATE TABLE checked(id INTEGER PRIMARY KEY, n INTEGER NOT NULL DEFAULT 7 CHECK (n > 0), made TEXT DEFAULT CURRENT_TIMESTAMP,
    r INTEGER DEFAULT (abs(random())), CHECK (length(made) > 5))`,
  );
  await a.app.script("INSERT INTO checked(id) VALUES (1), (2), (3)");
  await b.app.script("INSERT INTO checked DEFAULT VALUES");
  await converged();
  await b.app.script("UPDATE checked SET n = 1, made = datetime('now', '-1 day')");
  await converged();
});

test("rows written through a view's INSTEAD OF triggers arrive once", async ({ a, b, schema, converged }) => {
  await schema(
    `CREATE TABLE person(id INTEGER PRIMARY KEY, first TEXT, last TEXT); CREATE TABLE renamings(id INTEGER PRIMARY KEY, was TEXT);
    CREATE VIEW people AS SELECT id, first || ' ' || last AS name FROM person;
    CREATE TRIGGER people_insert INSTEAD OF INSERT ON people BEGIN
      INSERT INTO person VALUES (NEW.id, substr(NEW.name, 1, instr(NEW.name, ' ') - 1), substr(NEW.name, instr(NEW.name, ' ') + 1)); END;
    CREATE TRIGGER people_update INSTEAD OF UPDATE ON people BEGIN
      UPDATE person SET first = substr(NEW.name, 1, instr(NEW.name, ' ') - 1) WHERE id = OLD.id; INSERT INTO renamings(was) VALUES (OLD.name); END;
    CREATE TRIGGER people_delete INSTEAD OF DELETE ON people BEGIN DELETE FROM person WHERE id = OLD.id; END;`,
  );
  await a.app.script("INSERT INTO people VALUES (1, 'Ada Lovelace'), (2, 'Grace Hopper')");
  await converged();
  await b.app.script("UPDATE people SET name = 'Augusta Lovelace' WHERE id = 1; DELETE FROM people WHERE id = 2");
  await converged();
  assert.deepEqual(await a.app.run("SELECT name FROM people"), [["Augusta Lovelace"]]);
  assert.deepEqual(await a.app.run("SELECT was FROM renamings"), [["Ada Lovelace"]]);
});

const ODD_NAMES = [
  "select",
  "two words",
  "with-hyphen",
  'a "quoted" name',
  "it's",
  "🦫",
  "ünïcödé",
  "[x]",
  "`tick`",
  "semi;colon",
  "per%cent",
  "dot.ted",
  "1st",
  "new",
  "old",
  "values",
  "t(",
  "a,b",
  "--",
  "/*",
  "x_insert",
  "trailing ",
];

test("reserved words, spaces, hyphens, quotes and emojis are names of tables and columns", async ({ a, b, schema, converged }) => {
  const quoted = ODD_NAMES.map((name) => `"${name.replaceAll('"', '""')}"`);
  const columns = quoted.map((name) => `${name} DEFAULT 'x'`).join(", ");
  await schema(quoted.map((table, i) => `CREATE TABLE ${table}(${columns}, PRIMARY KEY (${quoted[i]}));`).join("\n"));
  for (const table of quoted) await a.app.run(`INSERT INTO ${table} DEFAULT VALUES`);
  await converged();
  for (const [i, table] of quoted.entries()) {
    const next = quoted[(i + 1) % quoted.length];
    await b.app.run(`UPDATE ${table} SET ${next} = 'changed', ${quoted[i]} = 'moved'`);
  }
  await converged();
  for (const table of quoted) assert.equal(await a.app.value(`SELECT count(*) FROM ${table}`), 1);
});

test("columns named like those of the change log, or of a rowid, arrive", async ({ a, b, schema, converged }) => {
  await schema(
    `CREATE TABLE clashing(seq INTEGER, op, stamp, val_seq, rowid TEXT, oid, _rowid_, "NEW", "OLD", PRIMARY KEY (seq, rowid));
    CREATE TABLE rowid_key(rowid TEXT PRIMARY KEY, v)`,
  );
  await a.app.script(
    "INSERT INTO clashing VALUES (1, 2, 3, 4, 'r', 6, 7, 8, 9); INSERT INTO rowid_key VALUES ('a', 1)",
  );
  await converged();
  await b.app.script("UPDATE clashing SET op = 20, rowid = 's'; UPDATE rowid_key SET rowid = 'b', v = 2");
  await converged();
  assert.deepEqual(await a.app.run("SELECT * FROM clashing"), [[1, 20, 3, 4, "s", 6, 7, 8, 9]]);
});

test("a table of 200 columns is replicated", async ({ a, b, schema, converged }) => {
  const columns = names(WIDE_COLUMNS, "column_");
  await schema(`CREATE TABLE wide(id INTEGER PRIMARY KEY, ${columns.join(", ")})`);
  const row = columns.map((_, i) => i % 4 === 0 ? null : i % 4 === 1 ? i : i % 4 === 2 ? `text ${i}` : i / 8);
  for (let id = 0; id < 50; id++) {
    await a.app.run(`INSERT INTO wide VALUES (${id}${", ?".repeat(columns.length)})`, ...row);
  }
  await converged();
  await b.app.script(
    `UPDATE wide SET ${columns.slice(100).map((name) => `${name} = '${name}'`).join(", ")} WHERE id % 2`,
  );
  await converged();
});

test("a transaction over 500 tables arrives", async ({ a, b, schema, converged }) => {
  const tables = names(MANY_TABLES, "many_");
  await schema(
    `BEGIN; ${tables.map((table) => `CREATE TABLE ${table}(id INTEGER PRIMARY KEY, v);`).join("\n")} COMMIT`,
  );
  await a.app.script(`BEGIN; ${tables.map((table, i) => `INSERT INTO ${table} VALUES (1, ${i});`).join("\n")} COMMIT`);
  await converged();
  await b.app.script(`BEGIN; ${tables.map((table) => `UPDATE ${table} SET v = v + 1;`).join("\n")} COMMIT`);
  await converged();
  assert.equal(await a.app.value("SELECT v FROM many_499"), 500);
  for (const { app } of [a, b]) {
    await app.script(`BEGIN; ${tables.map((table) => `DROP TABLE ${table};`).join("\n")} COMMIT`);
  }
  await converged();
});

test("AUTOINCREMENT tables arrive, and the counter stays each node's own", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v)");
  await a.app.script("INSERT INTO counted(v) VALUES ('a'), ('b')");
  await converged();
  await b.app.script("INSERT INTO counted(v) VALUES ('c')");
  await converged();
  assert.deepEqual(await a.app.run("SELECT * FROM counted ORDER BY id"), [[1, "a"], [2, "b"], [3, "c"]]);
});

test("tables without a key are named once and left alone", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE keyless(v); CREATE TABLE keyed(id INTEGER PRIMARY KEY)", { uncaptured: ["keyless"] });
  await a.app.script("INSERT INTO keyless VALUES (1); INSERT INTO keyed VALUES (1)");
  await until("the table is named", () => Promise.resolve(/keyless/.test(a.log)), { nodes: [a] });
  await converged({ except: ["keyless"] });
  assert.equal(await b.app.value("SELECT count(*) FROM keyless"), 0);
  assert.equal(await b.app.value("SELECT count(*) FROM keyed"), 1);
  await a.app.script("DROP TABLE keyless");
  await b.app.script("DROP TABLE keyless");
});
