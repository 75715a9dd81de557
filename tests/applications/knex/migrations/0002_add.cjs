exports.up = async (knex) => {
  await knex.schema.alterTable("customers", (table) => {
    table.text("note");
    table.boolean("active").notNullable().defaultTo(true);
  });
  await knex.schema.createTable("coupons", (table) => {
    table.string("code").primary();
    table.uuid("customer").references("id").inTable("customers");
  });
};

exports.down = async (knex) => {
  await knex.schema.dropTable("coupons");
  await knex.schema.alterTable("customers", (table) => table.dropColumns("note", "active"));
};
