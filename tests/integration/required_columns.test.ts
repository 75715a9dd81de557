import assert from "node:assert/strict";
import { clusterTests, until } from "../support/cluster.ts";

const test = clusterTests();

/** As Django adds a column with a default: the rows get it, the schema does not. */
const rebuild = (table: string, fill: string) =>
  `BEGIN IMMEDIATE; CREATE TABLE new__${table}(id INTEGER PRIMARY KEY, name TEXT UNIQUE, stock INTEGER NOT NULL, note TEXT NOT NULL);
  INSERT INTO new__${table} SELECT id, name, ${fill}, '' FROM ${table}; DROP TABLE ${table};
  ALTER TABLE new__${table} RENAME TO ${table}; COMMIT`;

test("rows of a node that lacks a NOT NULL column arrive with what the migration gave to the others", async (cluster) => {
  const { a, b, nodes, schema, converged, captured } = cluster;
  await schema("CREATE TABLE required(id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
  await a.app.script("INSERT INTO required VALUES (1, 'one'), (2, 'two')");
  await converged();
  await a.app.script(rebuild("required", "7"));
  await captured(["required"], [a]);
  await b.app.script("INSERT INTO required VALUES (3, 'three'); UPDATE required SET name = 'ONE' WHERE id = 1");
  await b.app.script("INSERT OR REPLACE INTO required VALUES (4, 'two')");
  await until("they arrive", async () => await a.app.value("SELECT name FROM required WHERE id = 4") === "two", {
    nodes,
  });
  await a.app.script("UPDATE required SET stock = 8 WHERE id = 3");
  await b.app.script(rebuild("required", "7"));
  await captured(["required"]);
  await converged();
  const expected = [[1, "ONE", 7, ""], [3, "three", 8, ""], [4, "two", 7, ""]];
  assert.deepEqual(await b.app.run("SELECT * FROM required ORDER BY id"), expected);
});

test("rows of a node that lacks a NOT NULL column get the zero of its type where the table was empty", async (cluster) => {
  const { a, b, nodes, schema, converged, captured } = cluster;
  await schema("CREATE TABLE bare(id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
  await a.app.script(rebuild("bare", "7"));
  await captured(["bare"], [a]);
  await b.app.script("INSERT INTO bare VALUES (1, 'x')");
  await until("it arrives", async () => await a.app.value("SELECT stock FROM bare WHERE id = 1") === 0, { nodes });
  await b.app.script(rebuild("bare", "0"));
  await captured(["bare"]);
  await converged();
});
