import assert from "node:assert/strict";
import { clusterTests } from "../support/cluster.ts";

const test = clusterTests();

test("ON DELETE CASCADE, SET NULL and SET DEFAULT arrive once and whole", async ({ a, b, schema, converged }) => {
  await schema(`CREATE TABLE owner(id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE pet(id INTEGER PRIMARY KEY, owner INTEGER REFERENCES owner ON DELETE CASCADE);
    CREATE TABLE visit(id INTEGER PRIMARY KEY, pet INTEGER REFERENCES pet ON DELETE SET NULL);
    CREATE TABLE bill(id INTEGER PRIMARY KEY, owner INTEGER DEFAULT 1 REFERENCES owner ON DELETE SET DEFAULT);`);
  await a.app.script(`PRAGMA foreign_keys = ON;
    INSERT INTO owner VALUES (1, 'nobody'), (2, 'x'), (3, 'y');
    INSERT INTO pet VALUES (1, 2), (2, 2), (3, 3); INSERT INTO visit VALUES (1, 1), (2, 3); INSERT INTO bill VALUES (1, 2), (2, 3);`);
  await converged();
  await b.app.script("PRAGMA foreign_keys = ON; DELETE FROM owner WHERE id = 2");
  await converged();
  assert.deepEqual(await a.app.run("SELECT * FROM pet"), [[3, 3]]);
  assert.deepEqual(await a.app.run("SELECT * FROM visit ORDER BY id"), [[1, null], [2, 3]]);
  assert.deepEqual(await a.app.run("SELECT * FROM bill ORDER BY id"), [[1, 1], [2, 3]]);
});

test("ON UPDATE CASCADE moves the children everywhere", async ({ a, b, schema, converged }) => {
  await schema(`CREATE TABLE country(code TEXT PRIMARY KEY, name TEXT);
    CREATE TABLE city(name TEXT PRIMARY KEY, code TEXT REFERENCES country ON UPDATE CASCADE ON DELETE CASCADE);
    CREATE TABLE street(city TEXT REFERENCES city(name) ON UPDATE CASCADE ON DELETE CASCADE, name TEXT, PRIMARY KEY (city, name)) WITHOUT ROWID;`);
  await a.app.script(`PRAGMA foreign_keys = ON;
    INSERT INTO country VALUES ('de', 'Germany'), ('fr', 'France'); INSERT INTO city VALUES ('Ulm', 'de'), ('Lyon', 'fr');
    INSERT INTO street VALUES ('Ulm', 'a'), ('Ulm', 'b'), ('Lyon', 'a');`);
  await converged();
  await b.app.script(
    "PRAGMA foreign_keys = ON; UPDATE country SET code = 'DEU' WHERE code = 'de'; UPDATE city SET name = 'Neu-Ulm' WHERE name = 'Ulm'",
  );
  await converged();
  assert.deepEqual(await a.app.run("SELECT * FROM city ORDER BY name"), [["Lyon", "fr"], ["Neu-Ulm", "DEU"]]);
  assert.deepEqual(await a.app.run("SELECT * FROM street ORDER BY city, name"), [["Lyon", "a"], ["Neu-Ulm", "a"], [
    "Neu-Ulm",
    "b",
  ]]);
  await a.app.script("DELETE FROM country WHERE code = 'fr'");
  await converged();
  assert.equal(await b.app.value("SELECT count(*) FROM street"), 2);
});

test("a foreign key of a table on itself with ON UPDATE CASCADE arrives as the origin has it", async (cluster) => {
  const { a, b, schema, converged } = cluster;
  await schema(
    `CREATE TABLE tree(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES tree(id) ON UPDATE CASCADE ON DELETE CASCADE, v);
    CREATE TABLE loop(id TEXT PRIMARY KEY, self TEXT REFERENCES loop(id) ON UPDATE CASCADE);`,
  );
  await a.app.script(`PRAGMA foreign_keys = ON;
    INSERT INTO tree VALUES (1, NULL, 'root'), (2, 1, 'child'), (3, 2, 'grandchild'), (4, 4, 'its own parent');
    INSERT INTO loop VALUES ('x', 'x'), ('y', 'x'), ('z', NULL);`);
  await converged();
  await b.app.script(`PRAGMA foreign_keys = ON; UPDATE tree SET id = id + 100; UPDATE loop SET id = id || id;`);
  await converged();
  assert.deepEqual(await a.app.run("SELECT id, parent FROM tree ORDER BY id"), [[101, null], [102, 101], [103, 102], [
    104,
    104,
  ]]);
  assert.deepEqual(await a.app.run("SELECT * FROM loop ORDER BY id"), [["xx", "xx"], ["yy", "xx"], ["zz", null]]);
  await a.app.script("UPDATE tree SET id = 7, v = 'moved' WHERE id = 104; DELETE FROM tree WHERE id = 101");
  await converged();
  assert.deepEqual(await b.app.run("SELECT * FROM tree"), [[7, 7, "moved"]]);
});

test("children arrive although their parents come later or were deleted elsewhere", async ({ a, b, schema, converged, apart }) => {
  await schema(`CREATE TABLE zparent(id INTEGER PRIMARY KEY);
    CREATE TABLE achild(id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES zparent DEFERRABLE INITIALLY DEFERRED);`);
  for (const { app } of [a, b]) await app.script("PRAGMA foreign_keys = ON");
  await a.app.script("BEGIN; INSERT INTO achild VALUES (1, 1), (2, 2); INSERT INTO zparent VALUES (1), (2); COMMIT");
  await converged();
  await apart(async () => {
    await a.app.script("BEGIN; DELETE FROM achild WHERE parent = 1; DELETE FROM zparent WHERE id = 1; COMMIT");
    await b.app.script("INSERT INTO achild VALUES (3, 1)");
  });
  await converged();
});
