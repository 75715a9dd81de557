/**
 * Which of the SELECTs that SQLite compiles for a trigger are statements of it. Only those may be left out: without a
 * SELECT inside an expression, what contains it would be compiled without its operand (seen: a loop without end).
 */
import { scan, skipQuoted } from "./index_sql.ts";

const LEADING_COMMENTS = /^(?:\s|--[^\n]*(?:\n|$)|\/\*[\s\S]*?\*\/)+/;
const BODY = /^BEGIN(?:\s|--[^\n]*\n|\/\*[\s\S]*?\*\/)+(?:SELECT|INSERT|REPLACE|UPDATE|DELETE|WITH|VALUES)(?!\w)/i;

export interface TriggerParts {
  /** from BEFORE, AFTER or the event on, to BEGIN */
  readonly head: string;
  readonly steps: readonly string[];
}

/** @param sql the text in sqlite_schema, which SQLite has parsed before; undefined if it can't be told apart here */
export function readTriggerSql(sql: string): TriggerParts | undefined {
  const create = /^CREATE TRIGGER\s+/i.exec(sql);
  if (create === null) return undefined;
  const name = create[0].length;
  const quoted = skipQuoted(sql, name);
  const head = quoted > name ? quoted : name + (/^[^\s"'`[(]+/.exec(sql.slice(name))?.[0].length ?? 0);
  const begin = bodyOf(sql, head);
  if (begin === undefined) return undefined;
  const steps: string[] = [];
  for (let from = begin + "BEGIN".length;;) {
    const end = `${sql};`.slice(from).trim() === "" ? -1 : scan(`${sql};`, from, (char) => char === ";");
    const step = end < 0 ? "" : sql.slice(from, end).replace(LEADING_COMMENTS, "").trim();
    if (/^(END)?$/i.test(step)) return steps.length === 0 ? undefined : { head: sql.slice(head, begin), steps };
    steps.push(step);
    from = end + 1;
  }
}

/** Where BEGIN stands outside quotes, comments and parentheses. A column may be called so: a statement follows it. */
function bodyOf(sql: string, from: number): number | undefined {
  let depth = 0;
  for (let i = from; i < sql.length;) {
    const skipped = skipQuoted(sql, i);
    if (depth === 0 && /b/i.test(sql[i]!) && !/\w/.test(sql[i - 1] ?? "") && BODY.test(sql.slice(i))) return i;
    if (sql[i] === "(") depth++;
    if (sql[i] === ")") depth--;
    i = Math.max(skipped, i + 1);
  }
  return undefined;
}

/** Has it a SELECT inside its WHEN or inside another statement? */
export function selectsInside({ head, steps }: TriggerParts): boolean {
  if (/\bSELECT\b/i.test(head)) return true;
  return steps.some((step) => !/^(SELECT|INSERT|REPLACE)\b/i.test(step) && /\bSELECT\b/i.test(step));
}

export function isSelect(step: string): boolean {
  return /^(SELECT|VALUES|WITH)\b/i.test(step);
}

/** A statement that does nothing but refuse a change. RAISE(IGNORE) is no such: it ends the trigger, and not its row. */
export function isRefusal(step: string): boolean {
  return isSelect(step) && /\bRAISE\s*\(\s*(ABORT|FAIL|ROLLBACK)\b/i.test(step) &&
    !/\bRAISE\s*\(\s*IGNORE\b/i.test(step);
}

/** SELECTs are compiled in the same order each time: those of WHEN, then those of each step, its own first. */
export class SelectPlan {
  private next = 0;

  /** @param steps place of each SELECT that is left out → how many SELECTs go with it */
  private constructor(private readonly steps: ReadonlyMap<number, number>, private readonly total: number) {}

  /**
   * @param left is this statement to be left out?
   * @param count how many SELECTs SQLite compiles for a trigger with this head and these steps, whose INSERTs are left out
   * as they are in the trigger; undefined where the order can't be known
   * @returns undefined where the order can't be known
   */
  static of(
    parts: TriggerParts,
    left: (step: string) => boolean,
    count: (head: string, steps: readonly string[]) => number | undefined,
  ): SelectPlan | undefined {
    const steps = new Map<number, number>();
    let before = count(parts.head, []);
    for (const place of parts.steps.keys()) {
      const after = count(parts.head, parts.steps.slice(0, place + 1));
      if (before === undefined || after === undefined) return undefined;
      if (left(parts.steps[place]!) && after > before) steps.set(before, after - before);
      before = after;
    }
    return new SelectPlan(steps, before!);
  }

  /** A statement is compiled from its start. */
  begin(): void {
    this.next = 0;
  }

  /** Called for each SELECT that is compiled. @returns whether it is a statement of the trigger, to be left out */
  isStep(): boolean {
    const whole = this.steps.get(this.next);
    this.next = (this.next + (whole ?? 1)) % this.total;
    return whole !== undefined;
  }
}
