/** How names and constants stand in SQL text. */

/** An identifier, always quoted: reserved words, spaces and quotes are names too. */
export function id(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A string constant. */
export function text(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}

/** COLLATE as SQLite itself knows it: to the byte where only the application knows how. */
export function knownCollate(collation: string): string {
  return ` COLLATE ${/^(BINARY|NOCASE|RTRIM)$/i.test(collation) ? collation : "BINARY"}`;
}

/** SQLite compares names without regard to the case of ASCII letters; maps are keyed by this. */
export function fold(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}
