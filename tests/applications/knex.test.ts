import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { emptyCluster, haveKnex, type Installed, runInstalled } from "../support/applications.ts";
import { type Cluster, type TestNode, until } from "../support/cluster.ts";

const PROGRAM = fileURLToPath(new URL("./knex/shop.cjs", import.meta.url));
/** each node's own */
const LEDGERS = ["knex_migrations", "knex_migrations_lock"];
const TABLES = ["customers", "orders", "order_lines"];

/** The shop on one node: Node, better-sqlite3 and Knex. */
class Shop {
  version = 1;

  constructor(readonly node: TestNode, private readonly knex: Installed) {}

  /** JavaScript that may use `knex`. @returns what it returned */
  async run(code: string): Promise<unknown> {
    const env = { SHOP_DATABASE: this.node.path, SHOP_VERSION: String(this.version) };
    return JSON.parse(await runInstalled(this.knex, [PROGRAM], { env, input: code }));
  }

  /** Takes up the code of this version, migrates this node alone, and waits until Marmot captures all tables. */
  async migrate(cluster: Cluster, version: number, migration: string): Promise<void> {
    this.version = version;
    const [, applied] = await this.run("return await knex.migrate.latest()") as [number, string[]];
    assert.deepEqual(applied, [migration], "the ledger of another node came through");
    await cluster.captured(version >= 2 ? [...TABLES, "coupons"] : TABLES, [this.node]);
  }
}

const converged = (cluster: Cluster) => cluster.converged({ except: LEDGERS });

test("a Knex application is replicated, and goes on through migrations that add, alter, rename and remove columns", async (context) => {
  const knex = await haveKnex(context);
  if (knex === undefined) return;
  await using cluster = await emptyCluster(2, ["--create", "--wal"]);
  const [a, b] = cluster.nodes.map((node) => new Shop(node, knex)) as [Shop, Shop];
  for (const shop of [a, b]) {
    await shop.node.start();
    await shop.migrate(cluster, 1, "0001_shop.cjs");
  }

  await writesOnBoth(cluster, a, b);
  await addsColumns(cluster, a, b);
  await altersColumns(cluster, a, b);
  await removesColumn(cluster, a, b);
  for (const node of cluster.nodes) await node.running();
});

async function writesOnBoth(cluster: Cluster, a: Shop, b: Shop): Promise<void> {
  await Promise.all([
    a.run(`
      await knex("customers").insert({ id: "ada", email: "ada@x", name: "Ada", settings: JSON.stringify({ a: [1] }) });
      await knex.transaction(async (trx) => {
        for (let id = 1; id <= 50; id++) {
          await trx("orders").insert({ id, customer: "ada", total: id / 4, receipt: Buffer.from([0, id, 255]) });
          await trx("order_lines").insert([{ order: id, line: 1, amount: id }, { order: id, line: 2, amount: "9007199254740993" }]);
        }
      });`),
    b.run(`
      await knex("customers").insert([{ id: "grace", email: "grace@x" }, { id: "gone", email: "gone@x" }]);
      await knex.batchInsert("orders", Array.from({ length: 200 }, (_, i) => ({ id: 1000 + i, customer: i % 2 ? "grace" : "gone" })), 20);
      await knex("orders").where({ id: 1001 }).update({ state: "paid", total: 0.1 });
      await knex.transaction(async (trx) => { await trx("customers").del(); throw new Error("back"); }).catch(() => {});`),
  ]);
  await converged(cluster);
  await Promise.all([
    // Foreign keys are on: orders and their lines go along, or change with their customer.
    a.run(`await knex("customers").where({ id: "gone" }).del()`),
    b.run(`
      await knex("customers").where({ id: "ada" }).update({ id: "countess" });
      await knex("customers").insert({ id: "x", email: "grace@x", name: "G" }).onConflict("email").merge(["name"]);`),
  ]);
  await converged(cluster);
  // Only now: they changed with their customer, and what is published last wins.
  await a.run(`await knex("orders").where("id", "<", 10).del()`);
  await converged(cluster);
  assert.deepEqual(
    await b.run(`
      const count = async (query) => (await query.count("* as n"))[0].n;
      return [await count(knex("orders")), await count(knex("order_lines")), await count(knex("orders").where({ customer: "countess" })),
        (await knex("customers").where({ id: "grace" }).first()).name]`),
    [141, 82, 41, "G"],
  );
}

/** Between the two migrations each node writes in its own version. */
async function addsColumns(cluster: Cluster, a: Shop, b: Shop): Promise<void> {
  await a.migrate(cluster, 2, "0002_add.cjs");
  await Promise.all([
    a.run(`
      await knex("customers").where({ id: "countess" }).update({ note: "of version 2", active: false });
      await knex("coupons").insert({ code: "c1", customer: "grace" });`),
    b.run(`
      await knex("customers").insert({ id: "b1", email: "b1@x" });
      await knex("orders").insert({ id: 2000, customer: "b1" });`),
  ]);
  const cameThrough = async () => await a.node.app.value("SELECT count(*) FROM orders WHERE id = 2000") === 1;
  await until("what both know goes on", cameThrough, { nodes: cluster.nodes });
  await b.migrate(cluster, 2, "0002_add.cjs");
  await converged(cluster);
  await b.run(`
    await knex("customers").where({ id: "countess" }).update({ note: "seen by b" });
    await knex("coupons").insert({ code: "c2", customer: "b1" });`);
  await converged(cluster);
}

async function altersColumns(cluster: Cluster, a: Shop, b: Shop): Promise<void> {
  await a.migrate(cluster, 3, "0003_alter.cjs");
  await Promise.all([
    a.run(`
      await knex("orders").insert({ id: 51, customer: "countess", amount: 7.5, number: "N51" });
      await knex("orders").where({ id: 1001 }).update({ amount: 2 });`),
    b.run(`
      await knex("customers").insert({ id: "b2", email: "b2@x", name: "of version 2" });
      await knex("orders").where({ id: 2000 }).update({ total: 3.25 });`),
  ]);
  await b.migrate(cluster, 3, "0003_alter.cjs");
  await converged(cluster);
  await Promise.all([
    a.run(`await knex("customers").insert({ id: "a3", email: "a3@x" })`),
    b.run(`await knex("orders").where({ id: 2000 }).update({ number: "N2000", state: "paid" })`),
  ]);
  await converged(cluster);
  assert.deepEqual(
    await a.run(
      `return (await knex("orders").whereNotNull("number").orderBy("id")).map((o) => [o.id, o.amount, o.number])`,
    ),
    [
      [51, 7.5, "N51"],
      [2000, 3.25, "N2000"],
    ],
  );
}

async function removesColumn(cluster: Cluster, a: Shop, b: Shop): Promise<void> {
  for (const shop of [a, b]) await shop.migrate(cluster, 4, "0004_remove.cjs");
  await a.run(`await knex("orders").where({ id: 51 }).del()`);
  await b.run(`await knex("orders").insert({ id: 2001, customer: "b2", number: "N2001" })`);
  await converged(cluster);
  const schema =
    "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE '\\_\\_marmot\\_\\_%' ESCAPE '\\' ORDER BY name";
  assert.deepEqual(await a.node.app.run(schema), await b.node.app.run(schema));
}
