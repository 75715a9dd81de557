/** Two nodes of the core and their applications, with one stream between them, in files of a folder of their own. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { converge, CoreNode, type CoreNodeOptions } from "./core_node.ts";
import { MemoryStream } from "./memory_stream.ts";
import { tempFolder } from "./tmp.ts";

export interface CorePair extends AsyncDisposable {
  readonly a: CoreMember;
  readonly b: CoreMember;
  readonly stream: MemoryStream;
  /** publishes and applies until nothing is left to do; and then both are equal */
  converged(...tables: string[]): Promise<void>;
}

/** A node and its application, which has SQLite's default settings: foreign keys off, strings in double quotes. */
export class CoreMember {
  node: CoreNode;
  readonly app: DatabaseSync;

  constructor(private readonly options: CoreNodeOptions, schema: string, prepare: (app: DatabaseSync) => void) {
    this.app = new DatabaseSync(options.path, {
      enableForeignKeyConstraints: false,
      enableDoubleQuotedStringLiterals: true,
    });
    prepare(this.app);
    this.app.exec(schema);
    this.node = new CoreNode(options);
  }

  run(sql: string): void {
    this.app.exec(sql);
  }

  rows(sql: string): unknown[][] {
    return this.app.prepare(sql).all().map((row) => Object.values(row));
  }

  /** Marmot is killed. */
  crash(): void {
    this.node.close();
  }

  start(): void {
    this.node = new CoreNode(this.options);
  }

  restart(): void {
    this.crash();
    this.start();
  }

  close(): void {
    this.node.close();
    this.app.close();
  }
}

export interface CorePairOptions extends Partial<CoreNodeOptions> {
  /** what only the application's connections have: functions */
  readonly prepare?: (app: DatabaseSync) => void;
  /** the second node's schema, when it is another */
  readonly other?: string;
}

/** `await using pair = await corePair("CREATE TABLE …")` */
export async function corePair(schema: string, options: CorePairOptions = {}): Promise<CorePair> {
  const folder = await tempFolder();
  const stream = new MemoryStream("changes-1");
  let count = 0;
  let time = 0;
  const now = () => time += 50;
  const hex = (digits: number) => (++count).toString(16).padStart(digits, "0");
  const member = (name: string, sql: string) =>
    new CoreMember(
      { hex, now, streams: [stream], path: folder.file(name), ...options },
      sql,
      options.prepare ?? (() => {}),
    );
  const a = member("a.db", schema);
  const b = member("b.db", options.other ?? schema);
  return {
    a,
    b,
    stream,
    async converged(...tables) {
      await converge([a.node, b.node], [stream]);
      for (const table of tables) {
        const sql = `SELECT * FROM ${table} ORDER BY 1, 2`;
        assert.deepEqual(b.rows(sql), a.rows(sql), table);
      }
    },
    async [Symbol.asyncDispose]() {
      a.close();
      b.close();
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Two nodes with one row; b has added a column and published a value for it, which a has not received. */
export async function withColumnOfB(): Promise<CorePair> {
  const pair = await corePair("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const { a, b, stream } = pair;
  a.run("INSERT INTO t VALUES (1, 'first')");
  await pair.converged("t");
  b.run("ALTER TABLE t ADD COLUMN c; UPDATE t SET c = 'of b'");
  b.node.publish(0);
  stream.flush();
  return pair;
}
