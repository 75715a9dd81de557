/** Which tables are replicated: patterns of the user, and what is never meant to be. */

/** Patterns with * and ?, compared without regard to case. */
export interface TablePatterns {
  /** when not empty, only these */
  readonly include: readonly string[];
  readonly exclude: readonly string[];
}

/**
 * The migration ledgers of common frameworks: replicated, they make the second node's migration a no-op, and its columns
 * stay missing.
 */
const LEDGERS = [
  "django_migrations",
  "schema_migrations",
  "schema_migration",
  "ar_internal_metadata",
  "migrations",
  "_prisma_migrations",
  "alembic_version",
  "__EFMigrationsHistory",
  "__EFMigrationsLock",
  "flyway_schema_history",
  "goose_db_version",
  "knex_migrations*",
  "SequelizeMeta",
  "__drizzle_migrations",
  "__diesel_schema_migrations",
  "_sqlx_migrations",
  "_migrations",
  "atlas_schema_revisions",
  "refinery_schema_history",
  "seaql_migrations",
  "kysely_migration*",
  "mikro_orm_migrations",
  "typeorm_metadata",
  "phinxlog",
  "doctrine_migration_versions",
  "databasechangelog*",
  "gorp_migrations",
  "yoyo*",
  "_yoyo*",
  "d1_migrations",
  "__migrations",
];

/** Names that migrations give to the new copy of a table while they rebuild it. */
const SCRATCH = [
  "new__*",
  "__new_*",
  "new_tmp_*",
  "_knex_temp_alter*",
  "_alembic_tmp_*",
  "ef_temp_*",
  "__temp__*",
  "temporary_*",
];

/** Why a table is not replicated, or undefined if it is. A pattern without wildcards in `include` overrules the built-in lists. */
export function whyExcluded(table: string, patterns: TablePatterns): string | undefined {
  if (patterns.exclude.some((pattern) => matches(table, pattern))) return "excluded by --exclude";
  if (patterns.include.some((pattern) => pattern.toLowerCase() === table.toLowerCase())) return undefined;
  if (LEDGERS.some((pattern) => matches(table, pattern))) {
    return "it is a migration ledger: each node migrates its own schema";
  }
  if (SCRATCH.some((pattern) => matches(table, pattern))) return "its name is that of a migration's temporary copy";
  if (patterns.include.length > 0 && !patterns.include.some((pattern) => matches(table, pattern))) {
    return "not among --include";
  }
  return undefined;
}

/** They are few, and asked for each table whenever the schema is read. */
const compiled = new Map<string, RegExp>();

function matches(table: string, pattern: string): boolean {
  let known = compiled.get(pattern);
  if (known === undefined) {
    const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", "[\\s\\S]*").replaceAll(
      "?",
      "[\\s\\S]",
    );
    compiled.set(pattern, known = new RegExp(`^${escaped}$`, "i"));
  }
  return known.test(table);
}
