import assert from "node:assert/strict";
import { clusterTests, type TestNode, until } from "../support/cluster.ts";

const test = clusterTests();

const table = (name: string) => `
  CREATE TABLE ${name}(id INTEGER PRIMARY KEY, title TEXT UNIQUE, body TEXT);
  CREATE VIRTUAL TABLE ${name}_index USING fts5(title, body, content='${name}', content_rowid='id');`;

/** As the documentation of FTS5 keeps an external content index current. */
const upkeep = (name: string) => {
  const add = `INSERT INTO ${name}_index(rowid, title, body) VALUES (NEW.id, NEW.title, NEW.body);`;
  const remove =
    `INSERT INTO ${name}_index(${name}_index, rowid, title, body) VALUES ('delete', OLD.id, OLD.title, OLD.body);`;
  return `
  CREATE TRIGGER ${name}_ai AFTER INSERT ON ${name} BEGIN ${add} END;
  CREATE TRIGGER ${name}_ad AFTER DELETE ON ${name} BEGIN ${remove} END;
  CREATE TRIGGER ${name}_au AFTER UPDATE ON ${name} BEGIN ${remove} ${add} END;`;
};

async function found(node: TestNode, name: string, words: string) {
  return (await node.app.run(`SELECT rowid FROM ${name}_index WHERE ${name}_index MATCH ? ORDER BY rowid`, words))
    .flat();
}

/** SQLite itself may refuse a statement that sets off an FTS5 table's first use while another process changes the schema. */
async function captureIsLast({ app }: TestNode, name: string): Promise<void> {
  const newest = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? ORDER BY rowid DESC LIMIT 1";
  await until("capture's triggers are the newest", async () => {
    return String((await app.run(newest, name)).flat()[0]).startsWith("__marmot__");
  });
}

/** Throws when the index is not what its table says. */
async function intact(nodes: readonly TestNode[], name: string): Promise<void> {
  for (const { app } of nodes) {
    await app.run(`INSERT INTO ${name}_index(${name}_index, rank) VALUES ('integrity-check', 1)`);
  }
}

for (const moment of ["before", "after"]) {
  const name = `article_${moment}`;
  test(`an external content index is kept current at replicas (its triggers made ${moment} Marmot's)`, async (cluster) => {
    const { a, b, nodes, schema, converged } = cluster;
    if (moment === "before") await schema(`BEGIN; ${table(name)} ${upkeep(name)} COMMIT`);
    else {
      await schema(table(name));
      for (const node of nodes) await node.app.script(upkeep(name));
      for (const node of nodes) await captureIsLast(node, name);
    }
    await a.app.script(
      `INSERT INTO ${name} VALUES (1, 'Marmots', 'whistle in the alps'), (2, 'Beavers', 'build dams'), (3, 'Otters', 'swim')`,
    );
    await converged();
    assert.deepEqual(await found(b, name, "whistle"), [1]);
    await b.app.script(
      `UPDATE ${name} SET body = 'sleep in winter' WHERE id = 1; DELETE FROM ${name} WHERE id = 2; UPDATE ${name} SET id = 30 WHERE id = 3`,
    );
    await converged();
    assert.deepEqual(await found(a, name, "whistle OR dams"), []);
    assert.deepEqual(await found(a, name, "winter OR swim"), [1, 30]);
    await intact(nodes, name);
  });
}

test("rows displaced by a clash of unique values leave the index everywhere", async ({ a, b, nodes, schema, converged, apart }) => {
  await schema(`BEGIN; ${table("clash")} ${upkeep("clash")} COMMIT`);
  await apart(async () => {
    await a.app.script("INSERT INTO clash VALUES (1, 'same', 'from a'), (2, 'other', 'a')");
    await b.app.script("INSERT INTO clash VALUES (10, 'same', 'from b'), (2, 'another', 'b')");
  });
  await converged();
  const rows = (await a.app.run("SELECT id FROM clash ORDER BY id")).flat();
  for (const node of nodes) assert.deepEqual(await found(node, "clash", "same OR other OR another"), rows);
  await intact(nodes, "clash");
});

test("an application's REPLACE leaves the index right at replicas", async ({ a, b, nodes, schema, converged }) => {
  await schema(`BEGIN; ${table("replaced")} ${upkeep("replaced")} COMMIT`);
  for (const { app } of nodes) await app.script("PRAGMA recursive_triggers = ON");
  await a.app.script("INSERT INTO replaced VALUES (1, 'x', 'one'), (2, 'y', 'two')");
  await converged();
  await a.app.script("REPLACE INTO replaced VALUES (1, 'y', 'three')");
  await b.app.script("REPLACE INTO replaced VALUES (3, 'z', 'four')");
  await converged();
  assert.deepEqual(await found(b, "replaced", "one OR two OR three OR four"), [1, 3]);
  await intact(nodes, "replaced");
  for (const { app } of nodes) await app.script("PRAGMA recursive_triggers = OFF");
});

test("an index with its own content, and an R-Tree, follow their tables", async ({ a, b, nodes, schema, converged }) => {
  await schema(`BEGIN; CREATE TABLE place(id INTEGER PRIMARY KEY, name TEXT, x REAL, y REAL);
    CREATE VIRTUAL TABLE place_name USING fts5(name); CREATE VIRTUAL TABLE place_box USING rtree(id, x0, x1, y0, y1);
    CREATE TRIGGER place_i AFTER INSERT ON place BEGIN
      INSERT INTO place_name(rowid, name) VALUES (NEW.id, NEW.name); INSERT INTO place_box VALUES (NEW.id, NEW.x, NEW.x, NEW.y, NEW.y); END;
    CREATE TRIGGER place_u AFTER UPDATE ON place BEGIN
      UPDATE place_name SET name = NEW.name WHERE rowid = OLD.id; UPDATE place_box SET x0 = NEW.x, x1 = NEW.x WHERE id = OLD.id; END;
    CREATE TRIGGER place_d AFTER DELETE ON place BEGIN DELETE FROM place_name WHERE rowid = OLD.id; DELETE FROM place_box WHERE id = OLD.id; END; COMMIT`);
  await a.app.script("INSERT INTO place VALUES (1, 'north', 0, 10), (2, 'south', 0, -10), (3, 'east', 10, 0)");
  await converged();
  await b.app.script("UPDATE place SET name = 'far north', x = 5 WHERE id = 1; DELETE FROM place WHERE id = 2");
  await converged();
  for (const { app } of nodes) {
    assert.deepEqual(
      (await app.run("SELECT rowid FROM place_name WHERE place_name MATCH 'far OR south OR east' ORDER BY rowid"))
        .flat(),
      [1, 3],
    );
    assert.deepEqual((await app.run("SELECT id FROM place_box WHERE x0 > 1 AND y1 > -1 ORDER BY id")).flat(), [1, 3]);
    assert.equal(await app.value("SELECT rtreecheck('place_box')"), "ok");
  }
});

test("virtual tables are named as not replicated, and stay each node's own", async ({ a, b, schema, converged }) => {
  await schema("CREATE VIRTUAL TABLE lone USING fts5(words); CREATE TABLE beside(id INTEGER PRIMARY KEY)");
  await a.app.script("INSERT INTO lone VALUES ('only here'); INSERT INTO beside VALUES (1)");
  await converged();
  assert.match(a.log, /\blone\b/);
  assert.doesNotMatch(a.log, /lone_(data|idx|content|docsize|config)/);
  assert.equal(await b.app.value("SELECT count(*) FROM lone"), 0);
});

test("an index made later on rows that are replicated is kept current", async ({ a, b, nodes, schema, converged }) => {
  await schema("CREATE TABLE late(id INTEGER PRIMARY KEY, title TEXT, body TEXT)");
  await a.app.script("INSERT INTO late VALUES (1, 'first', 'words')");
  await converged();
  for (const { app } of nodes) {
    await app.script(`CREATE VIRTUAL TABLE late_index USING fts5(title, body, content='late', content_rowid='id');
      INSERT INTO late_index(late_index) VALUES ('rebuild'); ${upkeep("late")}`);
  }
  await b.app.script(
    "INSERT INTO late VALUES (2, 'second', 'more words'); UPDATE late SET title = 'changed' WHERE id = 1",
  );
  await converged();
  assert.deepEqual(await found(a, "late", "words"), [1, 2]);
  await intact(nodes, "late");
});
