// A table is dropped on the way, and what its foreign keys would delete with it must stay; SQLite can turn them off only
// outside of a transaction.
exports.config = { transaction: false };

exports.up = async (knex) => {
  await knex("customers").whereNull("name").update({ name: "(nameless)" });
  await knex.schema.alterTable("customers", (table) => {
    table.text("name").notNullable().defaultTo("").alter();
  });
  await knex.schema.alterTable("orders", (table) => {
    table.renameColumn("total", "amount");
  });
  await knex.schema.alterTable("orders", (table) => {
    table.string("number").unique();
  });
};

exports.down = () => Promise.reject(new Error("Cannot go back: the names are gone"));
