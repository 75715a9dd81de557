import assert from "node:assert/strict";
import { test } from "node:test";
import { createLog, type LogOptions } from "../src/log.ts";

function logged(options: Partial<LogOptions>, use: (log: ReturnType<typeof createLog>) => void): string[] {
  const lines: string[] = [];
  use(createLog({ format: "text", level: "info", colors: false, write: (line) => lines.push(line), ...options }));
  return lines;
}

test("a line of text has time, level, message and fields, and is written when the call returns", () => {
  const [line, ...rest] = logged({}, (log) => log.warn("Disk is full", { free: 0, path: "/a b", big: 2n ** 63n }));
  assert.match(
    line ?? "",
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARN {2}Disk is full free=0 path="\/a b" big=9223372036854775808\n$/,
  );
  assert.deepEqual(rest, []);
});

test("a line of JSON has the same, and nothing else", () => {
  const fields = { free: 0, path: 'a "b"\n', big: 2n ** 63n, none: undefined };
  const [line] = logged({ format: "json" }, (log) => log.error("Disk is full {free}", fields));
  const { "@timestamp": time, ...rest } = JSON.parse(line ?? "");
  assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000);
  const expected = { level: "ERROR", message: "Disk is full {free}", logger: "marmot", free: 0 };
  assert.deepEqual(rest, { ...expected, path: 'a "b"\n', big: "9223372036854775808" });
});

test("what is less grave than the level is not written", () => {
  const use = (log: ReturnType<typeof createLog>) => {
    log.debug("1");
    log.info("2");
    log.warn("3");
    log.error("4");
  };
  const counts = (["debug", "info", "warn", "error"] as const).map((level) => logged({ level }, use).length);
  assert.deepEqual(counts, [4, 3, 2, 1]);
});

test("text from outside can't move the cursor, end the line, or pass for another field", () => {
  const [line] = logged({}, (log) => log.info("Table", { name: "\x1b[2Jx\ny=1" }));
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(line?.slice(0, -1) ?? "", /[\x00-\x1f]/);
  assert.ok(line?.endsWith('name="\\u001b[2Jx\\ny=1"\n'), line);
});

test("colours appear only when asked for", () => {
  // deno-lint-ignore no-control-regex
  const escapes = /\x1b\[/;
  assert.doesNotMatch(logged({}, (log) => log.info("a")).join(), escapes);
  assert.match(logged({ colors: true }, (log) => log.info("a")).join(), escapes);
});

test("two logs of one process don't share level or target", () => {
  const first: string[] = [];
  const second: string[] = [];
  const one = createLog({ format: "text", level: "error", colors: false, write: (line) => first.push(line) });
  const two = createLog({ format: "json", level: "debug", colors: false, write: (line) => second.push(line) });
  one.info("a");
  two.info("b");
  one.error("c");
  assert.deepEqual([first.length, second.length], [1, 1]);
});
