/**
 * Runs JavaScript from stdin, with `knex` at hand, on the database that the variable SHOP_DATABASE names, in the state
 * of the code that SHOP_VERSION says: which migrations there are. Prints what the code returns as JSON.
 */
const { readdirSync, readFileSync } = require("node:fs");
const { join } = require("node:path");
const process = require("node:process");
const knexOf = require("knex");

const FOLDER = join(__dirname, "migrations");

/** The migrations of this version; Knex asks such an object instead of reading a folder. */
const migrationSource = {
  getMigrations: () => {
    const names = readdirSync(FOLDER).sort();
    return Promise.resolve(names.filter((name) => Number(name.slice(0, 4)) <= Number(process.env.SHOP_VERSION)));
  },
  getMigrationName: (name) => name,
  getMigration: (name) => Promise.resolve(require(join(FOLDER, name))),
};

const knex = knexOf({
  client: "better-sqlite3",
  connection: { filename: process.env.SHOP_DATABASE, options: { timeout: 60_000 } },
  useNullAsDefault: true,
  migrations: { migrationSource },
});

async function main() {
  const code = readFileSync(0, "utf8");
  const AsyncFunction = main.constructor;
  const result = await new AsyncFunction("knex", code)(knex);
  process.stdout.write(JSON.stringify(result ?? null));
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
}).finally(() => knex.destroy());
