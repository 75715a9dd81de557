/** Where a top-level key stands in a TOML text: the parser tells it for errors of syntax only. */
import { parse as parseToml } from "smol-toml";

export interface Position {
  /** from 1 */
  readonly line: number;
  /** from 1 */
  readonly column: number;
}

/** @param key a key that parsing `text` gave */
export function keyPosition(text: string, key: string): Position {
  const quoted = key.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const keyAtStart = new RegExp(`^(\\s*(?:\\[{1,2}\\s*)?)["']?${quoted}["']?\\s*[=.\\]]`);
  const lines = text.split("\n");
  for (const [index, line] of lines.entries()) {
    const found = keyAtStart.exec(line);
    if (found !== null && isWhole(lines.slice(0, index).join("\n"))) {
      return { line: index + 1, column: (found[1]?.length ?? 0) + 1 };
    }
  }
  return { line: 1, column: 1 }; // a key spelt with escapes
}

/** False in the middle of a text or list of several lines: a line there that looks like a key is none. */
function isWhole(start: string): boolean {
  try {
    parseToml(start);
    return true;
  } catch {
    return false;
  }
}
