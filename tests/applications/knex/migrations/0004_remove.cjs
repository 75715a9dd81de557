exports.config = { transaction: false };

exports.up = async (knex) => {
  await knex.schema.alterTable("orders", (table) => table.dropColumn("receipt"));
};

exports.down = async (knex) => {
  await knex.schema.alterTable("orders", (table) => table.binary("receipt"));
};
