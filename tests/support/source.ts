/** TypeScript as text, for the rules that a test holds: what is code, what is comment, what is a string. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { PROJECT } from "./runtime.ts";

export interface SourceFile {
  /** from the project's folder, with / between */
  readonly path: string;
  readonly text: string;
  /** the text with comments and the insides of strings blanked out: same length, same lines */
  readonly code: string;
  /** insides of the strings and templates */
  readonly strings: readonly string[];
  /** what it imports or exports from */
  readonly imports: readonly string[];
}

/** All TypeScript files below these files and folders of the project. */
export function sourceFiles(...roots: readonly string[]): SourceFile[] {
  return roots.flatMap(filesBelow).map((path) => {
    const text = readFileSync(join(PROJECT, path), "utf8");
    const { code, strings } = separate(text);
    const imports = [...code.matchAll(IMPORT)].map((found) => {
      const end = found.index + found[0].length - 1;
      return text.slice(text.lastIndexOf('"', end - 1) + 1, end);
    });
    return { path, text, code, strings, imports };
  });
}

function filesBelow(path: string): string[] {
  if (path.endsWith(".ts")) return [path];
  const names = readdirSync(join(PROJECT, path)).sort();
  const paths = names.map((name) => `${path}/${name}`);
  return paths.filter((found) => found.endsWith(".ts") || statSync(join(PROJECT, found)).isDirectory()).flatMap(
    filesBelow,
  );
}

/** `import … from "x"`, `export … from "x"`, `import "x"` and `import("x")`, in code whose strings are blank. */
const IMPORT = /^(?:import|export)\b[^;="()]*\bfrom " *"|^import " *"|\bimport\(" *"/gm;

/** One token that is no code, or one character; a template is taken apart at its `${`. */
const COMMENT = /\/\/[^\n]*|\/\*[\s\S]*?\*\//y;
const STRING = /"(?:[^"\\\n]|\\[\s\S])*"|'(?:[^'\\\n]|\\[\s\S])*'/y;
const TEMPLATE_PIECE = /(?:[^`\\$]|\\[\s\S]|\$(?!\{))*/y;
const REGULAR_EXPRESSION = /\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y;
/** a / after one of these begins a regular expression, not a division */
const BEFORE_EXPRESSION = /(?:^|[(,=:[!&|?{};+\-*%<>~^]|\breturn|\btypeof|\bcase|\bof|\bin)\s*$/;

/** Splits code from what is no code. */
export function separate(text: string): { code: string; strings: string[] } {
  let code = "";
  let position = 0;
  const strings: string[] = [];
  /** for each template that is open: how deep in braces its ${ is */
  const templates: number[] = [];
  const blank = (piece: string) => {
    code += piece.replace(/[^\n]/g, " ");
    position += piece.length;
  };
  const match = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = position;
    return pattern.exec(text)?.[0];
  };
  const template = () => {
    const piece = match(TEMPLATE_PIECE) ?? "";
    strings.push(piece);
    blank(piece);
    if (text[position] === "`") code += text[position++];
    else if (text.startsWith("${", position)) {
      templates.push(0);
      code += "${";
      position += 2;
    }
  };
  while (position < text.length) {
    const comment = match(COMMENT);
    const string = match(STRING);
    const regular = BEFORE_EXPRESSION.test(code.slice(-20)) ? match(REGULAR_EXPRESSION) : undefined;
    const character = text[position] ?? "";
    if (comment !== undefined) blank(comment);
    else if (string !== undefined) {
      strings.push(string.slice(1, -1));
      code += `"`;
      blank(string.slice(1, -1));
      code += `"`;
      position += 2;
    } else if (regular !== undefined) blank(regular);
    else {
      code += character;
      position++;
      const depth = templates.at(-1);
      if (character === "`") template();
      else if (character === "{" && depth !== undefined) templates[templates.length - 1] = depth + 1;
      else if (character === "}" && depth === 0) {
        templates.pop();
        template();
      } else if (character === "}" && depth !== undefined) templates[templates.length - 1] = depth - 1;
    }
  }
  return { code, strings };
}

export interface FunctionSpan {
  /** its first line, trimmed */
  readonly head: string;
  readonly lines: number;
}

const NO_FUNCTION =
  /^(\}|if\b|for\b|while\b|switch\b|do\b|try\b|else\b|(export )?(abstract )?class\b|(export )?interface\b)/;

/** Functions of a file as `deno fmt` lays them out: a body ends at the brace that is indented as its first line is. */
export function functions({ code, text }: SourceFile): FunctionSpan[] {
  const lines = code.split("\n");
  const shown = text.split("\n");
  const indent = (line: string) => line.length - line.trimStart().length;
  return lines.flatMap((line, index) => {
    const trimmed = line.trim();
    const opens = /(\)(: .+)?|=>) \{$/.test(trimmed) && !NO_FUNCTION.test(trimmed);
    if (!opens) return [];
    const same = (other: string) => indent(other) === indent(line) && other.trim() !== "";
    // `): Promise<void> {` ends a head that began further up.
    const first = trimmed.startsWith(")") ? lines.findLastIndex((other, at) => at < index && same(other)) : index;
    const last = lines.findIndex((other, at) => at > index && same(other) && other.trim().startsWith("}"));
    return [{ head: (shown[first] ?? "").trim(), lines: last - first + 1 }];
  });
}
