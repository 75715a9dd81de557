/** The application of a node in a test: Python's sqlite3 in a process of its own (app.py), or the sqlite3 shell. */
import { Buffer } from "node:buffer";
import { fileURLToPath } from "node:url";
import { runProgram, within } from "./process.ts";
import { PythonProgram } from "./python_program.ts";

const PROGRAM = fileURLToPath(new URL("./app.py", import.meta.url));
/** the application itself waits up to 60 s for a lock */
const ANSWER_TIMEOUT_MS = 150_000;
/** of a request in an error */
const SHOWN_CHARS = 300;
const SHELL_BUSY_TIMEOUT_MS = 60_000;

/** What SQL gives back: an integer is a bigint only beyond 2^53, a text only bytes when it is no UTF-8. */
export type AppValue = null | number | bigint | string | Uint8Array | RawText;

/** A text that is no valid UTF-8. */
export class RawText {
  constructor(readonly bytes: Uint8Array) {}
}

/** A parameter that is REAL even without a fraction, -0 and the infinities included. */
export class Real {
  constructor(readonly value: number) {}
}

export type AppParam = AppValue | Real;

/** How far the Marmot of a database is, as its own tables tell. */
export interface Facts {
  readonly ready: boolean;
  /** entries of each change log that is not empty */
  readonly pending: Readonly<Record<string, number>>;
  readonly cursors: readonly (readonly [shard: number, cursor: number])[];
  readonly parked: number;
  /** tables that have Marmot's triggers */
  readonly captured: readonly string[];
}

/** Requests are answered one after the other. */
export class App implements AsyncDisposable {
  private constructor(private readonly program: PythonProgram, readonly path: string) {}

  /** @param functions registers app_slug(text), app_is_even(number) and the collation app_backwards */
  static async start(path: string, { functions = false } = {}): Promise<App> {
    return new App(await PythonProgram.start(PROGRAM, [path, ...(functions ? ["--functions"] : [])]), path);
  }

  /** One statement, and its rows. */
  async run(sql: string, ...params: AppParam[]): Promise<AppValue[][]> {
    const rows = await this.#ask({ op: "run", sql, params: params.map(encoded) });
    return (rows as unknown[][]).map((row) => row.map(decoded));
  }

  /** The only value of the only row. */
  async value(sql: string, ...params: AppParam[]): Promise<AppValue | undefined> {
    return (await this.run(sql, ...params))[0]?.[0];
  }

  /** Several statements, each a transaction unless they say BEGIN. */
  async script(sql: string): Promise<void> {
    await this.#ask({ op: "script", sql });
  }

  /** One statement for each row, in transactions of `per` rows. */
  async many(sql: string, rows: readonly AppParam[][], per = rows.length): Promise<void> {
    await this.#ask({ op: "many", sql, rows: rows.map((row) => row.map(encoded)), per });
  }

  /** Python code that may use `db`, an autocommit connection, and `connect()`; gives back what it assigned to `result`. */
  python(code: string): Promise<unknown> {
    return this.#ask({ op: "python", code });
  }

  async facts(): Promise<Facts> {
    return await this.#ask({ op: "facts" }) as Facts;
  }

  /** Of each table, or of those named: its count of rows and a digest of them. */
  async dump(tables: readonly string[] = []): Promise<Record<string, string>> {
    return await this.#ask({ op: "dump", tables }) as Record<string, string>;
  }

  /** The rows of a table, each as one line, sorted. */
  async rows(table: string): Promise<string[]> {
    return await this.#ask({ op: "rows", table }) as string[];
  }

  /** Killed: whatever it was doing is rolled back. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.program.kill();
  }

  async #ask(request: Record<string, unknown>): Promise<unknown> {
    try {
      return await within(ANSWER_TIMEOUT_MS, this.program.ask(request), () => "no answer");
    } catch (error) {
      throw new Error(`${(error as Error).message} in ${JSON.stringify(request).slice(0, SHOWN_CHARS)}`);
    }
  }
}

/** Runs SQL in the sqlite3 shell, which distrusts the schema; rejects when it fails. */
export async function sqliteShell(path: string, sql: string): Promise<string> {
  const settings = ["-cmd", "PRAGMA trusted_schema=OFF", "-cmd", `.timeout ${SHELL_BUSY_TIMEOUT_MS}`];
  const result = await runProgram(["sqlite3", "-bail", ...settings, path], { input: sql });
  if (result.code !== 0) throw new Error(`sqlite3: ${result.stderr}`);
  return result.stdout;
}

function encoded(value: AppParam): unknown {
  if (value instanceof Uint8Array) return { b: Buffer.from(value).toString("base64") };
  if (value instanceof Real) return { f: Object.is(value.value, -0) ? "-0.0" : String(value.value) };
  if (value instanceof RawText) throw new TypeError("bind a blob and CAST it to TEXT");
  if (typeof value === "bigint") return { i: String(value) };
  return value;
}

function decoded(value: unknown): AppValue {
  if (typeof value !== "object" || value === null) return value as AppValue;
  const { i, f, b, t } = value as { i?: string; f?: string; b?: string; t?: string };
  if (i !== undefined) return BigInt(i);
  if (f !== undefined) return f === "inf" ? Infinity : f === "-inf" ? -Infinity : Number(f);
  const bytes = new Uint8Array(Buffer.from(b ?? t ?? "", "base64"));
  return t === undefined ? bytes : new RawText(bytes);
}
