import assert from "node:assert/strict";
import { test } from "node:test";
import { parseArguments } from "../src/cli/arguments.ts";
import { OPTIONS } from "../src/config.ts";
import { EXIT, MarmotError } from "../src/errors.ts";

function parse(...argv: string[]) {
  return parseArguments(argv);
}

function refusal(...argv: string[]): string {
  try {
    parseArguments(argv);
  } catch (error) {
    assert.ok(error instanceof MarmotError, String(error));
    assert.equal(error.exitCode, EXIT.usage);
    return error.message;
  }
  return assert.fail(`${argv.join(" ")} was accepted`);
}

test("one dash does as well as two, with a blank or an equals sign before the value", () => {
  const expected = { command: "run", flags: { dbPath: "a b.db" } };
  assert.deepEqual(parse("--db-path", "a b.db"), expected);
  assert.deepEqual(parse("--db-path=a b.db"), expected);
  assert.deepEqual(parse("-db-path", "a b.db"), expected);
  assert.deepEqual(parse("-db-path=a b.db"), expected);
  assert.deepEqual(parse("-cleanup", "-db-path=x"), { command: "cleanup", flags: { dbPath: "x" }, force: false });
  assert.deepEqual(parse("--cleanup", "-force"), { command: "cleanup", flags: {}, force: true });
});

test("a value is taken as it is, even when it looks like a flag that has one dash too few", () => {
  assert.deepEqual(parse("--db-path=-create"), { command: "run", flags: { dbPath: "-create" } });
  assert.deepEqual(parse("--db-path", "-x"), { command: "run", flags: { dbPath: "-x" } });
  assert.deepEqual(parse("--db-path", "a=b"), { command: "run", flags: { dbPath: "a=b" } });
});

test("every option has a flag, but for secrets", () => {
  const { command, ...rest } = parse("--help");
  assert.equal(command, "help");
  const text = "text" in rest ? rest.text : "";
  for (const option of OPTIONS) {
    assert.equal(new RegExp(`^ +--${option.flag}[ \n]`, "m").test(text), !option.noFlag, option.flag);
  }
  for (const name of ["Examples:", "Exit codes:", "--cleanup", "--version", "status", "clone", "join-command"]) {
    assert.ok(text.includes(name), name);
  }
  for (const code of Object.values(EXIT)) assert.match(text, new RegExp(`^  ${code}  \\w`, "m"));
});

test("options stand before or after the command", () => {
  const expected = { command: "status", flags: { dbPath: "x", logLevel: "debug" }, json: true };
  assert.deepEqual(parse("status", "--json", "--db-path", "x", "--log-level=debug"), expected);
  assert.deepEqual(parse("--db-path", "x", "status", "-log-level", "debug", "-json"), expected);
  const clone = { command: "clone", flags: { dbPath: "a" }, to: "b" };
  assert.deepEqual(parse("clone", "--db-path", "a", "--to", "b"), clone);
  assert.deepEqual(parse("--db-path", "a", "clone", "-to=b"), clone);
});

test("a list is a flag given again, a switch is taken back with --no- or =false", () => {
  const flags = { include: ["a", "b,c"], wal: false, create: true, backfill: false };
  const argv = ["--include", "a", "-include=b,c", "--no-wal", "--create=true", "-backfill=false"];
  assert.deepEqual(parse(...argv), { command: "run", flags });
});

test("help and versions are given without a database, on every command", () => {
  assert.equal(parse("--version").command, "version");
  assert.equal(parse("-v").command, "version");
  for (const argv of [["-h"], ["help"], ["status", "--help"], ["help", "clone"], ["clone", "-h"]]) {
    assert.equal(parse(...argv).command, "help", argv.join(" "));
  }
});

test("an unknown flag or command is refused, with what was probably meant", () => {
  const meant: [string[], RegExp][] = [
    [["--db-pth", "x"], /^Cannot use --db-pth: there is no such flag\. Did you mean --db-path\?$/],
    [["-db-pth=x"], /^Cannot use -db-pth: there is no such flag\. Did you mean --db-path\?$/],
    [["--shrads", "2"], /Did you mean --shards\?$/],
    [["--clean-up"], /Did you mean --cleanup\?$/],
    [["--nats-credential", "x"], /Did you mean --nats-credentials\?$/],
    [["status", "--jsno"], /Did you mean --json\?$/],
    [["--frobnicate"], /there is no such flag\. See marmot --help\.$/],
    [["statsu", "--db-path", "x"], /"statsu": it is neither a command nor a flag\. Did you mean status\?$/],
    [["my.db"], /A database is given with --db-path my\.db\.$/],
    [["--json"], /belongs to another command/],
    [["help", "bogus"], /there is no such command\. See marmot --help\.$/],
  ];
  for (const [argv, expected] of meant) assert.match(refusal(...argv), expected);
});

test("a flag without its value is refused, and says so", () => {
  assert.match(refusal("--db-path"), /its value is missing\. Give --db-path FILE\.$/);
  assert.match(refusal("--db-path", "--create"), /Give --db-path FILE, or --db-path=--create if that is meant/);
  assert.match(refusal("clone", "--db-path", "a"), /Give --to FILE/);
  assert.match(refusal("--create=maybe"), /must be true or false/);
});

test("flags that belong to another command are refused", () => {
  assert.match(refusal("--db-path", "x", "--force"), /goes with --cleanup/);
  assert.match(refusal("status", "--cleanup"), /give one of them/);
});

test("a password is not taken as a flag, and not repeated", () => {
  for (const argv of [["--nats-password", "geheim"], ["--nats-password=geheim"], ["-nats-token=geheim"]]) {
    const message = refusal(...argv);
    assert.match(message, /every process of this machine can read a command line.* --nats-(password|token)-file/);
    assert.doesNotMatch(message, /geheim/);
  }
});
