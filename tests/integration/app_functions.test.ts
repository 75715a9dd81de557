import assert from "node:assert/strict";
import { clusterTests, until } from "../support/cluster.ts";

/** These applications register app_slug, app_is_even and the collation app_backwards. Marmot knows none of them. */
const test = clusterTests({ functions: true, args: ["--exclude", "local_*"] });

test("a function of the application in a trigger doesn't stop its table", async ({ a, b, schema, converged }) => {
  await schema(`BEGIN; CREATE TABLE slugged(id INTEGER PRIMARY KEY, title TEXT, slug TEXT);
    CREATE TRIGGER slugged_i AFTER INSERT ON slugged BEGIN UPDATE slugged SET slug = app_slug(NEW.title) WHERE id = NEW.id; END;
    CREATE TRIGGER slugged_u AFTER UPDATE OF title ON slugged WHEN app_is_even(NEW.id) BEGIN UPDATE slugged SET slug = app_slug(NEW.title) WHERE id = NEW.id; END;
    CREATE TRIGGER slugged_v BEFORE UPDATE ON slugged WHEN app_slug(NEW.title) = '' BEGIN SELECT RAISE(ABORT, 'empty'); END; COMMIT`);
  await a.app.script("INSERT INTO slugged(id, title) VALUES (1, 'Hello World'), (2, 'Two')");
  await converged();
  await b.app.script("UPDATE slugged SET title = 'New Title'");
  await converged();
  assert.deepEqual(await a.app.run("SELECT slug FROM slugged ORDER BY id"), [["hello-world"], ["new-title"]]);
});

test("a function of the application in a CHECK doesn't stop its table", async ({ a, b, schema, converged }) => {
  await schema(
    `CREATE TABLE checked(id INTEGER PRIMARY KEY, n INTEGER CHECK (app_is_even(n)), name TEXT, CHECK (app_slug(name) <> ''));
    CREATE TABLE checked_unique(id INTEGER PRIMARY KEY, n INTEGER UNIQUE CHECK (app_is_even(n)))`,
  );
  await a.app.script(
    "INSERT INTO checked VALUES (1, 2, 'x'), (2, 4, 'y'); INSERT INTO checked_unique VALUES (1, 2), (2, 4)",
  );
  await converged();
  await b.app.script(
    "UPDATE checked SET n = n + 2; DELETE FROM checked WHERE id = 2; REPLACE INTO checked_unique VALUES (3, 4)",
  );
  await converged();
  await assert.rejects(a.app.script("INSERT INTO checked VALUES (3, 3, 'z')"), /CHECK constraint failed/);
});

test("a collation of the application on a plain column doesn't stop its table", async ({ a, b, schema, converged }) => {
  await schema("CREATE TABLE collated(id INTEGER PRIMARY KEY, name TEXT COLLATE app_backwards)");
  await a.app.script("INSERT INTO collated VALUES (1, 'ab'), (2, 'ba')");
  await converged();
  await b.app.script("UPDATE collated SET name = 'xy' WHERE name = 'ab'");
  await converged();
  assert.deepEqual(await a.app.run("SELECT id FROM collated ORDER BY name"), [[2], [1]]);
});

const STOPPING: readonly [what: string, table: string, declaration: string, index: string][] = [
  ["function in an index", "indexed", "id INTEGER PRIMARY KEY, name TEXT", "(app_slug(name))"],
  ["function in a unique index", "unique_slug", "id INTEGER PRIMARY KEY, name TEXT", "(app_slug(name))"],
  ["function in a partial index", "partial_even", "id INTEGER PRIMARY KEY, name TEXT", "(name) WHERE app_is_even(id)"],
  ["collation in an index", "backwards", "id INTEGER PRIMARY KEY, name TEXT", "(name COLLATE app_backwards)"],
];

for (const [what, table, declaration, index] of STOPPING) {
  test(`an application's ${what} stops only its table, by name, until it is dropped`, async (cluster) => {
    const { a, b, schema, settled, converged } = cluster;
    await schema(`CREATE TABLE ${table}(${declaration}); CREATE TABLE beside_${table}(id INTEGER PRIMARY KEY)`);
    const unique = table.startsWith("unique") ? "UNIQUE" : "";
    // A unique index on one node only would have the other wait for it.
    const indexed = unique === "" ? [b] : [a, b];
    for (const { app } of indexed) await app.script(`CREATE ${unique} INDEX ${table}_index ON ${table}${index}`);
    await a.app.script(`INSERT INTO ${table} VALUES (1, 'One Two'), (2, 'x'); INSERT INTO beside_${table} VALUES (1)`);
    await b.app.script(`INSERT INTO ${table} VALUES (3, 'of b')`);
    const arrived = async () => await b.app.value(`SELECT count(*) FROM beside_${table}`) === 1;
    await until("the other table goes on", arrived, { nodes: [a, b] });
    await until("the log names the table", () => Promise.resolve(new RegExp(`\\b${table}\\b`).test(b.log)), {
      nodes: [b],
    });
    await b.app.script(`INSERT INTO ${table} VALUES (4, 'the application goes on')`);
    for (const { app } of indexed) await app.script(`DROP INDEX ${table}_index`);
    await settled();
    await converged();
    assert.equal(await b.app.value(`SELECT count(*) FROM ${table}`), 4);
  });
}

test("an application's function in a generated column stops only its table", async ({ a, b, schema, converged }) => {
  await schema(
    "CREATE TABLE made(id INTEGER PRIMARY KEY, name TEXT, slug TEXT AS (app_slug(name)) STORED); CREATE TABLE beside_made(id INTEGER PRIMARY KEY)",
  );
  await a.app.script("INSERT INTO made(id, name) VALUES (1, 'One Two'); INSERT INTO beside_made VALUES (1)");
  const arrived = async () => await b.app.value("SELECT count(*) FROM beside_made") === 1;
  await until("the other table goes on", arrived, { nodes: [a, b] });
  await until("the log names the table", () => Promise.resolve(/\bmade\b/.test(b.log)), { nodes: [b] });
  await b.app.script("DROP TABLE made");
  await a.app.script("DROP TABLE made");
  await converged();
});
