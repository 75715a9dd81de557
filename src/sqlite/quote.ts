/** How names and constants stand in SQL text. */

/** An identifier, always quoted: reserved words, spaces and quotes are names too. */
export function id(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A string constant. */
export function text(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}

/** SQLite compares names without regard to the case of ASCII letters; maps are keyed by this. */
export function fold(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}
