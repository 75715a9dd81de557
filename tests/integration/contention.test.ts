import assert from "node:assert/strict";
import { type Cluster, clusterTests } from "../support/cluster.ts";

const NODES = 3;
const ROUNDS = 250;
const ROWS = 12;
const SEEDS = [1, 2];

const TABLES = `
  CREATE TABLE IF NOT EXISTS plain(id INTEGER PRIMARY KEY, v, n INTEGER DEFAULT 0);
  CREATE TABLE IF NOT EXISTS texts(k TEXT PRIMARY KEY COLLATE NOCASE, v);
  CREATE TABLE IF NOT EXISTS uniques(id INTEGER PRIMARY KEY, x INTEGER UNIQUE, y TEXT);
  CREATE UNIQUE INDEX IF NOT EXISTS uniques_y ON uniques(lower(y)) WHERE y IS NOT NULL;
  CREATE TABLE IF NOT EXISTS pairs(x, y, v, PRIMARY KEY (x, y)) WITHOUT ROWID;`;

/** Random transactions over few rows, so that all nodes write the same ones all the time. */
const writer = (seed: number, name: string) => `
import random
r = random.Random(${seed})
k = lambda: r.randint(1, ${ROWS})
def step():
    kind = r.randint(0, 11)
    if kind <= 2: db.execute("INSERT OR REPLACE INTO plain(id, v) VALUES (?, ?)", (k(), r.choice([None, 1, 1.5, "${name}", b"${name}"])))
    elif kind == 3: db.execute("UPDATE plain SET n = n + 1, v = '${name}' WHERE id <= ?", (k(),))
    elif kind == 4: db.execute("DELETE FROM plain WHERE id = ?", (k(),))
    elif kind == 5: db.execute("UPDATE OR REPLACE plain SET id = ? WHERE id = ?", (k(), k()))
    elif kind == 6: db.execute("INSERT OR REPLACE INTO texts VALUES (?, ?)", (r.choice(["a", "A", "bB", "Bb", "c"]), r.random()))
    elif kind == 7: db.execute("DELETE FROM texts WHERE k = ?", (r.choice("abc"),))
    elif kind <= 9: db.execute("INSERT OR REPLACE INTO uniques VALUES (?, ?, ?)", (k(), k(), r.choice([None, "a", "A", "b", "c", "${name}"])))
    elif kind == 10: db.execute("UPDATE OR REPLACE uniques SET x = ?, y = ? WHERE id = ?", (k(), r.choice([None, "a", "B"]), k()))
    else: db.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?, '${name}')", (r.choice([1, "1"]), k()))
for i in range(${ROUNDS}):
    db.execute("BEGIN IMMEDIATE")
    for _ in range(r.choice([1, 1, 1, 2, 5])): step()
    db.execute("COMMIT" if r.random() < 0.95 else "ROLLBACK")
    if r.random() < 0.3: time.sleep(r.random() * 0.01)`;

async function fight({ nodes, schema, converged }: Cluster, seed: number): Promise<void> {
  await schema(TABLES);
  await Promise.all(nodes.map(({ app, name }, place) => app.python(writer(seed * 100 + place, name))));
  await converged();
  const rows = await nodes[0]!.app.value("SELECT count(*) FROM plain");
  assert.ok(Number(rows) > 0);
}

const one = clusterTests({ nodes: NODES });
const several = clusterTests({ nodes: NODES, args: ["--shards", "4"] });

for (const seed of SEEDS) {
  one(`three nodes that write the same rows at once end equal (seed ${seed})`, (cluster) => fight(cluster, seed));
}
for (const seed of SEEDS) {
  several(
    `three nodes that write the same rows at once end equal with 4 shards (seed ${seed})`,
    (cluster) => fight(cluster, seed),
  );
}

several(
  "with 4 shards, rows spread over the streams and all of them arrive",
  async ({ a, b, c, schema, converged }) => {
    await schema(
      "CREATE TABLE IF NOT EXISTS spread(id INTEGER PRIMARY KEY, v); CREATE TABLE IF NOT EXISTS spread_unique(id INTEGER PRIMARY KEY, v UNIQUE)",
    );
    await a.app.script(
      `BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO spread SELECT i, i FROM n;
    INSERT INTO spread_unique SELECT id, v FROM spread; COMMIT`,
    );
    await converged();
    await b.app.script("BEGIN; UPDATE spread SET v = -v WHERE id % 2; COMMIT");
    await c.app.script("DELETE FROM spread WHERE id % 3 = 0");
    await converged();
    const cursors = (await a.app.facts()).cursors;
    assert.equal(cursors.length, 4);
    for (const [, cursor] of cursors) assert.ok(cursor > NODES, JSON.stringify(cursors));
  },
);
