import assert from "node:assert/strict";
import { clusterTests } from "../support/cluster.ts";

const test = clusterTests();

test("REPLACE that displaces another row displaces it everywhere", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE replaced(id INTEGER PRIMARY KEY, name TEXT UNIQUE, v)");
  await a.app.script("INSERT INTO replaced VALUES (1, 'x', 1), (2, 'y', 2), (3, 'z', 3)");
  await converged();
  await a.app.script("REPLACE INTO replaced VALUES (1, 'y', 10)");
  await b.app.script("REPLACE INTO replaced VALUES (4, 'z', 40)");
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM replaced ORDER BY id"), [[1, "y", 10], [4, "z", 40]]);
});

test("UPDATE OR REPLACE and INSERT … ON CONFLICT arrive as what they did", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE upserted(id INTEGER PRIMARY KEY, name TEXT UNIQUE ON CONFLICT REPLACE, n INTEGER)");
  await a.app.script("INSERT INTO upserted VALUES (1, 'x', 1), (2, 'y', 1), (3, 'z', 1)");
  await converged();
  await b.app.script(`UPDATE OR REPLACE upserted SET name = 'y' WHERE id = 1;
    INSERT INTO upserted VALUES (9, 'z', 5) ON CONFLICT (name) DO UPDATE SET n = n + excluded.n;
    INSERT INTO upserted VALUES (5, 'y', 7);
    INSERT OR IGNORE INTO upserted VALUES (3, 'w', 0);`);
  await converged();
  assert.deepEqual(await a.app.run("SELECT * FROM upserted ORDER BY id"), [[3, "z", 6], [5, "y", 7]]);
});

test("unique values swapped inside a transaction arrive swapped", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE swapped(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)");
  await a.app.script("INSERT INTO swapped VALUES (1, 'x'), (2, 'y'), (3, 'z')");
  await converged();
  await b.app.script(`BEGIN; UPDATE swapped SET name = 'tmp' WHERE id = 1; UPDATE swapped SET name = 'x' WHERE id = 2;
    UPDATE swapped SET name = 'y' WHERE id = 1; COMMIT;`);
  await converged();
  assert.deepEqual(await a.app.run("SELECT * FROM swapped ORDER BY id"), [[1, "y"], [2, "x"], [3, "z"]]);
});

test("unique values handed on from row to row arrive so", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE shifted(id INTEGER PRIMARY KEY, place INTEGER UNIQUE)");
  const rows = Array.from({ length: 200 }, (_, i) => [i, i]);
  await a.app.many("INSERT INTO shifted VALUES (?, ?)", rows);
  await converged();
  await b.app.script("BEGIN; UPDATE shifted SET place = -1 - place; UPDATE shifted SET place = -place; COMMIT");
  await converged();
  assert.equal(await a.app.value("SELECT count(*) FROM shifted WHERE place = id + 1"), rows.length);
});

test("the same unique value made on two nodes at once is left to one row, the same everywhere", async (cluster) => {
  const { a, b, schema, converged } = cluster;
  await schema("CREATE TABLE clash(id TEXT PRIMARY KEY, email TEXT UNIQUE, v)");
  const write = (name: string) =>
    `for i in range(300):
    db.execute("INSERT OR REPLACE INTO clash VALUES (?, ?, ?)", ("${name}" + str(i % 90), "mail" + str(i * 13 % 60), i))`;
  await Promise.all([a.app.python(write("a")), b.app.python(write("b"))]);
  await converged();
  assert.equal(await a.app.value("SELECT count(*) - count(DISTINCT email) FROM clash"), 0);
});

test("rows with several unique constraints displace each other alike everywhere", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE tangle(id INTEGER PRIMARY KEY, x INTEGER UNIQUE, y INTEGER, z TEXT, UNIQUE (y, z))");
  const write = (seed: number) =>
    `import random
r = random.Random(${seed})
for i in range(250):
    db.execute("BEGIN IMMEDIATE")
    for _ in range(r.randint(1, 4)):
        kind = r.random()
        if kind < 0.6: db.execute("INSERT OR REPLACE INTO tangle VALUES (?, ?, ?, ?)", (r.randint(1, 20), r.randint(1, 20), r.randint(1, 5), r.choice("abc")))
        elif kind < 0.8: db.execute("UPDATE OR REPLACE tangle SET x = ? WHERE y = ?", (r.randint(1, 20), r.randint(1, 5)))
        else: db.execute("DELETE FROM tangle WHERE id = ?", (r.randint(1, 20),))
    db.execute("COMMIT")`;
  await Promise.all([a.app.python(write(1)), b.app.python(write(2))]);
  await converged();
});

test("partial unique indexes count only for the rows they cover", async ({ a, b, schema, converged, apart }) => {
  await schema(`CREATE TABLE partial(id INTEGER PRIMARY KEY, name TEXT, deleted INTEGER NOT NULL DEFAULT 0);
    CREATE UNIQUE INDEX partial_alive ON partial(name) WHERE deleted = 0;`);
  await a.app.script("INSERT INTO partial VALUES (1, 'x', 1), (2, 'x', 1), (3, 'x', 0)");
  await converged();
  await a.app.script(
    "BEGIN; UPDATE partial SET deleted = 1 WHERE id = 3; UPDATE partial SET deleted = 0 WHERE id = 1; COMMIT",
  );
  await b.app.script("INSERT INTO partial VALUES (4, 'y', 0)");
  await converged();
  assert.equal(await b.app.value("SELECT group_concat(id) FROM partial WHERE deleted = 0 ORDER BY id"), "1,4");
  await apart(async () => {
    await a.app.script("INSERT INTO partial VALUES (10, 'clash', 0), (11, 'clash', 1)");
    await b.app.script("INSERT INTO partial VALUES (20, 'clash', 0), (21, 'clash', 1)");
  });
  await converged();
  assert.equal(await a.app.value("SELECT count(*) FROM partial WHERE name = 'clash' AND deleted = 1"), 2);
  assert.equal(await a.app.value("SELECT count(*) FROM partial WHERE name = 'clash' AND deleted = 0"), 1);
});

test("expression and NOCASE unique indexes displace what they compare as equal", async ({ a, b, schema, converged, apart }) => {
  await schema(`CREATE TABLE folded(id INTEGER PRIMARY KEY, mail TEXT, name TEXT, price REAL);
    CREATE UNIQUE INDEX folded_mail ON folded(lower(mail));
    CREATE UNIQUE INDEX folded_name ON folded(name COLLATE NOCASE DESC);
    CREATE UNIQUE INDEX "folded, (odd)" ON folded(round(price * 100), length(name)) WHERE price IS NOT NULL AND name <> ')';`);
  await a.app.script(
    "INSERT INTO folded VALUES (1, 'A@x', 'One', 1.0), (2, 'b@x', 'Two', 2.0), (3, NULL, NULL, NULL), (4, NULL, NULL, NULL)",
  );
  await converged();
  await apart(async () => {
    await a.app.script(
      "UPDATE folded SET mail = 'C@X' WHERE id = 1; INSERT INTO folded VALUES (10, 'new@x', 'three', 2.5)",
    );
    await b.app.script(
      "UPDATE folded SET mail = 'c@x' WHERE id = 2; INSERT INTO folded VALUES (20, 'NEW@X', 'four', 3.5)",
    );
  });
  await converged();
  assert.equal(
    await a.app.value("SELECT count(*) - count(DISTINCT lower(mail)) FROM folded WHERE mail IS NOT NULL"),
    0,
  );
  await apart(async () => {
    await a.app.script("INSERT INTO folded VALUES (30, 'p', 'SAME', NULL)");
    await b.app.script("INSERT INTO folded VALUES (40, 'q', 'same', NULL)");
  });
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM folded WHERE name = 'same' COLLATE NOCASE"), 1);
  await apart(async () => {
    await a.app.script("INSERT INTO folded VALUES (50, 'r', 'abcdef', 7.001)");
    await b.app.script("INSERT INTO folded VALUES (60, 's', 'ghijkl', 7.002)");
  });
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM folded WHERE price > 7"), 1);
});

test("a unique index over a generated column displaces as well", async ({ a, b, schema, converged, apart }) => {
  await schema(
    `CREATE TABLE made(id INTEGER PRIMARY KEY, mail TEXT, folded TEXT AS (lower(mail)) VIRTUAL, day TEXT AS (substr(mail, 1, 3)) STORED);
    CREATE UNIQUE INDEX made_folded ON made(folded); CREATE INDEX made_day ON made(day);`,
  );
  await apart(async () => {
    await a.app.script("INSERT INTO made(id, mail) VALUES (1, 'X@example'), (2, 'other@example')");
    await b.app.script("INSERT INTO made(id, mail) VALUES (3, 'x@EXAMPLE'), (4, 'another@example')");
  });
  await converged();
  assert.equal(await a.app.value("SELECT count(*) FROM made"), 3);
});

test("a NULL in a unique column displaces nothing", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE maybe(id INTEGER PRIMARY KEY, name TEXT UNIQUE, x, y, UNIQUE (x, y))");
  await a.app.script("INSERT INTO maybe VALUES (1, NULL, 1, NULL), (2, NULL, 1, NULL), (3, 'n', NULL, NULL)");
  await b.app.script("INSERT INTO maybe VALUES (4, NULL, 1, NULL), (5, NULL, NULL, NULL)");
  await converged();
  assert.equal(await a.app.value("SELECT count(*) FROM maybe"), 5);
});
