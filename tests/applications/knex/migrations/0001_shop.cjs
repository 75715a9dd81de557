exports.up = async (knex) => {
  await knex.schema.createTable("customers", (table) => {
    table.uuid("id").primary();
    table.string("email").notNullable().unique();
    table.string("name");
    table.json("settings");
    table.timestamps(true, true);
  });
  await knex.schema.createTable("orders", (table) => {
    table.increments("id");
    table.uuid("customer").notNullable().references("id").inTable("customers").onDelete("CASCADE").onUpdate("CASCADE");
    table.decimal("total", 10, 2).notNullable().defaultTo(0);
    table.enu("state", ["open", "paid"]).notNullable().defaultTo("open");
    table.binary("receipt");
    table.index(["customer", "state"]);
  });
  await knex.schema.createTable("order_lines", (table) => {
    table.integer("order").references("id").inTable("orders").onDelete("CASCADE");
    table.integer("line");
    table.bigInteger("amount").notNullable();
    table.primary(["order", "line"]);
  });
};

exports.down = async (knex) => {
  for (const table of ["order_lines", "orders", "customers"]) await knex.schema.dropTable(table);
};
