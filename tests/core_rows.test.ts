import assert from "node:assert/strict";
import { test } from "node:test";
import type { Database } from "../src/database.ts";
import { corePair } from "./support/core_pair.ts";

for (const clause of ["REPLACE", "IGNORE", "ROLLBACK", "FAIL", "ABORT"]) {
  test(`a clash is settled as everywhere where a table says UNIQUE ON CONFLICT ${clause}`, async () => {
    await using pair = await corePair(`CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE ON CONFLICT ${clause}, w)`);
    const { a, b } = pair;
    a.run("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2)");
    await pair.converged("t");
    a.run("INSERT INTO t VALUES (3, 'x', 1)");
    b.run("INSERT INTO t VALUES (4, 'x', 2); INSERT INTO t VALUES (5, 'z', 2)");
    await pair.converged("t");
    assert.equal(a.rows("SELECT * FROM t WHERE v = 'x'").length, 1);
    assert.equal(a.rows("SELECT * FROM t").length, 4);
    assert.deepEqual([a.node.notices, b.node.notices], [[], []]);
  });

  test(`the last published row wins where a table says PRIMARY KEY ON CONFLICT ${clause}`, async () => {
    await using pair = await corePair(`CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY ON CONFLICT ${clause}, v)`);
    const { a, b } = pair;
    a.run("INSERT INTO t VALUES ('1', 'a'), ('2', 'b')");
    await pair.converged("t");
    a.run("UPDATE t SET v = 'a2' WHERE id = '1'; INSERT INTO t VALUES ('3', 'a')");
    b.run("UPDATE t SET v = 'b2' WHERE id = '1'; INSERT INTO t VALUES ('3', 'b')");
    await pair.converged("t");
    assert.deepEqual([a.node.notices, b.node.notices], [[], []]);
  });
}

test("a primary key may compare otherwise than its column", async () => {
  await using pair = await corePair(`
    CREATE TABLE loose(k TEXT NOT NULL, v, PRIMARY KEY (k COLLATE NOCASE));
    CREATE TABLE loose_too(k TEXT, v, PRIMARY KEY (k COLLATE NOCASE)) WITHOUT ROWID;
    CREATE TABLE strict(k TEXT COLLATE NOCASE, v, PRIMARY KEY (k COLLATE BINARY)) WITHOUT ROWID`);
  const { a, b } = pair;
  const all = ["loose", "loose_too", "strict"];
  a.run(`INSERT INTO loose VALUES ('abc', 1); INSERT INTO loose_too VALUES ('abc', 1);
    INSERT INTO strict VALUES ('abc', 1), ('ABC', 2)`);
  await pair.converged(...all);
  b.run(`UPDATE loose SET k = 'ABC', v = 2; UPDATE loose_too SET k = 'ABC', v = 2;
    UPDATE strict SET v = 3 WHERE v = 2`);
  await pair.converged(...all);
  b.run("DELETE FROM loose WHERE v = 2; REPLACE INTO loose_too VALUES ('aBc', 3); DELETE FROM strict WHERE v = 3");
  await pair.converged(...all);
  b.run("UPDATE strict SET k = 'ABC'");
  await pair.converged(...all);
  assert.deepEqual([a.node.notices, b.node.notices], [[], []]);
});

test("strings in double quotes are strings, in triggers, defaults and checks", async () => {
  await using pair = await corePair(`
    CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE, s DEFAULT "new" CHECK (s IN ("new", "old")));
    CREATE TABLE audit(x);
    CREATE TRIGGER told AFTER UPDATE ON t BEGIN INSERT INTO audit VALUES ("it is " || NEW.v); END;
    CREATE UNIQUE INDEX partly ON t(s) WHERE s = 'none'`);
  const { a, b } = pair;
  a.run("INSERT INTO t(id, v) VALUES (1, 2)");
  await pair.converged("t");
  b.run("UPDATE t SET v = 3");
  a.run("INSERT INTO t(id, v) VALUES (7, 3)");
  await pair.converged("t");
  assert.deepEqual(a.rows("SELECT x FROM audit"), [["it is 3"]]);
  assert.deepEqual([a.node.notices, b.node.notices], [[], []]);
});

test("a CHECK with a function of the application stops nothing, beside UNIQUE either", async () => {
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE CHECK (app_ok(v)))", {
    prepare: (app) => app.function("app_ok", { varargs: true }, () => 1),
  });
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 2)");
  await pair.converged("t");
  b.run("INSERT INTO t VALUES (2, 3)");
  a.run("INSERT INTO t VALUES (7, 3)");
  await pair.converged("t");
  assert.deepEqual([a.node.notices, b.node.notices], [[], []]);
});

test("rows with NULL in their key are one row in the end", async () => {
  await using pair = await corePair("CREATE TABLE t(k TEXT PRIMARY KEY, v)");
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (NULL, 1), (NULL, 2)");
  await pair.converged("t");
  b.run("INSERT INTO t VALUES (NULL, 3), (NULL, 4)");
  a.run("INSERT INTO t VALUES (NULL, 1)");
  await pair.converged("t");
  a.run("INSERT INTO t VALUES (NULL, 5), (NULL, 6); UPDATE t SET v = 5 WHERE v = 4");
  await pair.converged("t");
  assert.equal(a.rows("SELECT * FROM t").length, 1);
  a.run("INSERT INTO t VALUES (NULL, 7), (NULL, 8); DELETE FROM t");
  await pair.converged("t");
  assert.deepEqual(b.rows("SELECT * FROM t"), []);
});

test("many rows of one transaction arrive in their order, with text and numbers mixed and rows displaced among them", async () => {
  await using pair = await corePair(
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE, w); CREATE TABLE k(k, v, PRIMARY KEY (k))",
  );
  const { a, b } = pair;
  a.run("INSERT INTO t VALUES (1, 'one', 0), (2, 'two', 0), (3, 'three', 0)");
  await pair.converged("t");
  const rows = Array.from({ length: 100 }, (_, i) => {
    const id = 10 + i * 3 % 70;
    const value = i === 50 ? "'two'" : i === 51 ? "'three'" : i % 17 === 0 ? `${i}` : `'text ${i}'`;
    return `REPLACE INTO t VALUES (${id}, ${value}, ${i % 5 === 0 ? "'w'" : i});
      REPLACE INTO k VALUES (${i % 3 === 0 ? `${i % 30}.0` : i % 30}, ${i})`;
  });
  a.run(`BEGIN; ${rows.join(";")}; DELETE FROM t WHERE id % 7 = 0; UPDATE t SET w = w || 'x' WHERE id % 2; COMMIT`);
  await pair.converged("t", "k");
  assert.deepEqual(b.rows("SELECT count(*) FROM t WHERE id < 4"), [[1]]);
  assert.deepEqual(b.rows("SELECT k, typeof(k) FROM k ORDER BY k"), a.rows("SELECT k, typeof(k) FROM k ORDER BY k"));
  assert.deepEqual([a.node.notices, b.node.notices], [[], []]);
});

test("a key that changes leaves no old row behind, by whichever name or statement it is set", async () => {
  await using pair = await corePair(`
    CREATE TABLE t(id INTEGER PRIMARY KEY, v);
    CREATE TABLE named(rowid TEXT PRIMARY KEY, oid UNIQUE);
    CREATE TABLE child(parent TEXT REFERENCES named ON UPDATE CASCADE, n, PRIMARY KEY (parent, n)) WITHOUT ROWID`);
  const { a, b } = pair;
  a.run(`PRAGMA foreign_keys = ON; INSERT INTO t VALUES ${Array.from({ length: 9 }, (_, i) => `(${i}, ${i})`)};
    INSERT INTO named VALUES ('a', 1), ('b', 2); INSERT INTO child VALUES ('a', 1), ('a', 2), ('b', 1)`);
  await pair.converged("t", "named", "child");
  a.run(`UPDATE t SET id = 10 WHERE id = 0; UPDATE t SET rowid = 11 WHERE id = 1; UPDATE t SET OID = 12 WHERE id = 2;
    UPDATE t SET "_ROWID_" = 13 WHERE id = 3; UPDATE t SET (v, ID) = (0, 14) WHERE id = 4;
    INSERT INTO t VALUES (5, 0) ON CONFLICT DO UPDATE SET id = 15; UPDATE OR REPLACE t SET id = 7 WHERE id = 6;
    UPDATE t SET id = x FROM (SELECT 18 AS x) WHERE id = 8; UPDATE named SET rowid = 'c' WHERE oid = 1`);
  await pair.converged("t", "named", "child");
  assert.deepEqual(b.rows("SELECT id FROM t").flat(), [7, 10, 11, 12, 13, 14, 15, 18]);
  assert.deepEqual(b.rows("SELECT parent FROM child WHERE n = 2"), [["c"]]);
});

/** The disk is full at the first statement that `hit` says yes to, as long as it says so. */
function fullDisk(db: Database, hit: (sql: string) => boolean): Database {
  return {
    path: db.path,
    inode: db.inode,
    prepare: (sql) => db.prepare(sql),
    exec(sql) {
      if (hit(sql)) throw new Error("database or disk is full");
      db.exec(sql);
    },
    setAuthorizer: (authorizer) => db.setAuthorizer(authorizer),
    function: (name, options, implementation) => db.function(name, options, implementation),
    close: () => db.close(),
  };
}

test("a disk that is full for a moment parks no table", async () => {
  let full = true;
  const wrap = (db: Database) => fullDisk(db, (sql) => full && sql.startsWith("CREATE TABLE temp."));
  await using pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)", { wrap });
  pair.a.run("INSERT INTO t VALUES (1, 'a')");
  await assert.rejects(pair.converged("t"), /disk is full/);
  full = false;
  await pair.converged("t");
  assert.deepEqual(pair.b.node.notices, []);
  assert.equal(pair.b.rows("SELECT * FROM t").length, 1);
});

test("a disk that is full for a moment lets no trigger take effect twice", async () => {
  for (let left = 0; left < 2; left++) {
    let guards = -1;
    const wrap = (db: Database) =>
      fullDisk(db, (sql) => /^CREATE TEMP TRIGGER "marmot_guard/.test(sql) && ++guards === left);
    await using pair = await corePair(
      `CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, n); INSERT INTO b VALUES (1, 0);
      CREATE TRIGGER counts AFTER INSERT ON a BEGIN UPDATE b SET n = n + 1; END`,
      { wrap },
    );
    pair.a.run("INSERT INTO a VALUES (1, 1)");
    await assert.rejects(pair.converged("a", "b"), /disk is full/);
    await pair.converged("a", "b");
    assert.deepEqual(pair.b.rows("SELECT n FROM b"), [[1]]);
  }
});

test("a UNIQUE constraint with all of the key in it displaces nothing, and does not count", async () => {
  await using pair = await corePair(`CREATE TABLE t(a TEXT, b TEXT COLLATE NOCASE, c UNIQUE, v, PRIMARY KEY (a, b),
    UNIQUE (v, b, a), UNIQUE (a, b COLLATE BINARY, c), UNIQUE (a COLLATE NOCASE, b), UNIQUE (a, v))`);
  const { captured } = pair.a.node.installed;
  const terms = captured.get("t")!.uniques.map((unique) =>
    unique.terms.map(({ sql, collation }) => `${sql} ${collation}`)
  );
  assert.deepEqual(terms.map(String).sort(), [
    `"a" BINARY,"v" BINARY`,
    `"a" NOCASE,"b" NOCASE`,
    `"c" BINARY`,
  ]);
  pair.a.run("INSERT INTO t VALUES ('x', 'y', 1, 1)");
  pair.b.run("INSERT INTO t VALUES ('x', 'Y', 2, 2), ('X', 'z', 3, 1)");
  await pair.converged("t");
});
