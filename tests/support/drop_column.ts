/** What docs/DESIGN.md asks of those who drop a column: SQLite drops none that Marmot's triggers name. */
export function dropColumn(table: string, column: string): string {
  const triggers = ["insert", "update", "key", "delete"].map((kind) =>
    `DROP TRIGGER IF EXISTS "__marmot__${table}_${kind}"`
  );
  return `BEGIN IMMEDIATE; ${triggers.join("; ")}; ALTER TABLE "${table}" DROP COLUMN "${column}"; COMMIT`;
}
