/** Reads the parts of CREATE INDEX that no pragma tells: expressions and the WHERE of a partial index. */

export interface IndexParts {
  /** the indexed terms as written, without ASC and DESC */
  readonly terms: readonly string[];
  readonly where: string | null;
}

/** AS and its parenthesis are looked for in so many characters */
const AS_CHARS = 40;

/** @param text the text in sqlite_schema, which SQLite has parsed before */
export function readIndexSql(text: string): IndexParts {
  const sql = withoutComments(text);
  const open = scan(sql, 0, (char) => char === "(");
  const terms: string[] = [];
  let from = open + 1;
  for (;;) {
    const end = scan(sql, from, (char) => char === "," || char === ")");
    terms.push(sql.slice(from, end).trim().replace(/\s+(ASC|DESC)$/i, ""));
    if (sql[end] === ")") return { terms, where: readWhere(sql.slice(end + 1)) };
    from = end + 1;
  }
}

/** The expressions of a table's generated columns, as written in CREATE TABLE. */
export function generatedExpressions(sql: string): string[] {
  const found: string[] = [];
  for (let i = 0; i < sql.length;) {
    const skipped = skipQuoted(sql, i);
    const as = skipped > i ? null : /^AS\s*\(/i.exec(sql.slice(i, i + AS_CHARS));
    if (as !== null && !/\w/.test(sql[i - 1] ?? "")) {
      const open = i + as[0].length;
      found.push(sql.slice(open, scan(sql, open, (char) => char === ")")));
    }
    i = Math.max(skipped, i + 1);
  }
  return found;
}

/** A comment at the end of a text would hide what is put behind it. */
export function withoutComments(sql: string): string {
  let plain = "";
  for (let i = 0; i < sql.length;) {
    const end = Math.max(i + 1, skipQuoted(sql, i));
    plain += sql.startsWith("--", i) || sql.startsWith("/*", i) ? " " : sql.slice(i, end);
    i = end;
  }
  return plain;
}

function readWhere(rest: string): string | null {
  const match = /^\s*WHERE([\s\S]*)$/i.exec(rest);
  return match ? match[1]!.trim().replace(/;$/, "") : null;
}

/**
 * Position of the first character outside quotes, comments and parentheses that `wanted` accepts, from `start` on.
 * Throws when there is none.
 */
export function scan(sql: string, start: number, wanted: (char: string) => boolean): number {
  let depth = 0;
  for (let i = start; i < sql.length; i++) {
    const char = sql[i]!;
    const skipped = skipQuoted(sql, i);
    if (skipped > i) {
      i = skipped - 1;
    } else if (depth === 0 && wanted(char)) {
      return i;
    } else if (char === "(") {
      depth++;
    } else if (char === ")") {
      depth--;
    }
  }
  throw new Error(`Cannot read SQL: unexpected end of ${sql}`);
}

const CLOSING: Record<string, string> = { "'": "'", '"': '"', "`": "`", "[": "]" };

/** The position after the quoted thing or comment that begins at `i`; `i` if none does. */
export function skipQuoted(sql: string, i: number): number {
  if (sql.startsWith("--", i)) return endOf(sql, "\n", i);
  if (sql.startsWith("/*", i)) return endOf(sql, "*/", i + 2);
  const closing = CLOSING[sql[i]!];
  if (closing === undefined) return i;
  let end = endOf(sql, closing, i + 1);
  while (closing !== "]" && sql[end] === closing) end = endOf(sql, closing, end + 1);
  return end;
}

function endOf(sql: string, closing: string, from: number): number {
  const at = sql.indexOf(closing, from);
  return at < 0 ? sql.length : at + closing.length;
}
