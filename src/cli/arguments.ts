/** The command line: flags of every option of the configuration, and the commands. */
import { Command, CommanderError, Option } from "commander";
import { type ConfigOption, OPTIONS } from "../config.ts";
import type { ConfigSources } from "../config/layers.ts";
import { didYouMean, suggest } from "../config/suggest.ts";
import { EXIT, MarmotError } from "../errors.ts";
import { CLONE_HELP, COMMAND_HELP, DESCRIPTION, PROGRAM_HELP, USAGE } from "./help.ts";

export type Flags = ConfigSources["flags"];

/** What to do, and the flags that configure it. */
export type Invocation =
  | { readonly command: "run" | "join-command"; readonly flags: Flags }
  | { readonly command: "status"; readonly flags: Flags; readonly json: boolean }
  | { readonly command: "config"; readonly flags: Flags; readonly template: boolean }
  | { readonly command: "clone"; readonly flags: Flags; readonly to: string }
  | { readonly command: "cleanup"; readonly flags: Flags; readonly force: boolean }
  | { readonly command: "version" }
  | { readonly command: "help"; readonly text: string };

/** @param argv without runtime and program. @throws MarmotError (usage) */
export function parseArguments(argv: readonly string[]): Invocation {
  const parser = new Parser();
  try {
    parser.program.parse(longNames(argv, parser.options()), { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { command: "help", text: parser.help };
    throw usageError(error, parser.options());
  }
  return parser.invocation();
}

/** The command, as Commander calls its action. */
interface Chosen {
  readonly command: "run" | "status" | "config" | "join-command" | "clone";
  readonly own: Record<string, unknown>;
  readonly operands: readonly string[];
}

class Parser {
  readonly program = new Command("marmot");
  /** what Commander would have printed */
  help = "";
  #chosen: Chosen | undefined;

  constructor() {
    // Copied to each command when it is added, so first.
    this.program.exitOverride().configureOutput({ writeOut: (text) => this.help += text, writeErr: () => {} })
      .allowExcessArguments(true).addHelpOption(new Option("-h, --help", "show this help").helpGroup("Other"))
      .helpCommand("help [command]", "show the help of a command").usage(USAGE).description(DESCRIPTION);
    for (const option of OPTIONS.filter((option) => !option.noFlag)) addOption(this.program, option);
    this.program.optionsGroup("Other")
      .option("--cleanup", "remove everything Marmot added to the database, and end")
      .option("--force", "with --cleanup: even if changes that were not published yet are lost")
      .option("-v, --version", "show the versions of Marmot, the runtime, SQLite and nats-server")
      .addHelpText("after", PROGRAM_HELP)
      .action(() => this.#choose("run", this.program));
    this.#command("status", "show node, shards, pending changes, and what stopped and why")
      .option("--json", "as JSON").addHelpText("after", COMMAND_HELP);
    this.#command("config", "print the configuration in effect, as TOML without secrets")
      .option("--template", "print every option at its default instead, as a file to start from")
      .addHelpText("after", COMMAND_HELP);
    this.#command("join-command", "print the commands that add another node").addHelpText("after", COMMAND_HELP);
    this.#command("clone", "make the database of another node from this one")
      .option("--to <FILE>", "the new database").addHelpText("after", CLONE_HELP);
  }

  options(): Option[] {
    return [this.program, ...this.program.commands].flatMap((command) => command.options);
  }

  invocation(): Invocation {
    const all = this.program.opts();
    const { command, own, operands } = this.#chosen ?? { command: "run" as const, own: {}, operands: [] };
    if (all.version === true) return { command: "version" };
    const [operand] = operands;
    if (operand !== undefined) throw excess(operand, this.program.commands.map((known) => known.name()));
    if (all.force === true && all.cleanup !== true) throw usage("Cannot use --force alone: it goes with --cleanup.");
    if (all.cleanup === true && command !== "run") {
      throw usage(`Cannot use --cleanup with ${command}: give one of them.`);
    }
    const flags: Flags = Object.fromEntries(
      OPTIONS.filter(({ key }) => all[key] !== undefined).map(({ key }) => [key, all[key]]),
    );
    switch (command) {
      case "run":
        return all.cleanup === true ? { command: "cleanup", flags, force: all.force === true } : { command, flags };
      case "status":
        return { command, flags, json: own.json === true };
      case "config":
        return { command, flags, template: own.template === true };
      case "clone":
        if (typeof own.to === "string" && own.to !== "") return { command, flags, to: own.to };
        throw usage("Cannot clone: the new database has no name. Give --to FILE.");
      case "join-command":
        return { command, flags };
    }
  }

  #command(name: Chosen["command"], description: string): Command {
    const command = this.program.command(name).description(description).allowExcessArguments(true)
      .helpOption("-h, --help", "show this help").usage(name === "config" ? "[options]" : "--db-path FILE [options]");
    return command.action(() => this.#choose(name, command));
  }

  #choose(command: Chosen["command"], chosen: Command): void {
    this.#chosen = { command, own: chosen.opts(), operands: chosen.args };
  }
}

function addOption(program: Command, option: ConfigOption): void {
  const name = `--${option.flag}`;
  const ending = option.default === undefined || option.kind === "flag" || option.kind === "list"
    ? option.unset
    : `${option.default}`;
  const help = ending === undefined ? option.help : `${option.help} (default: ${ending})`;
  if (option.kind === "flag") {
    program.addOption(new Option(name, help).helpGroup(option.group));
    program.addOption(new Option(`--no-${option.flag}`).hideHelp());
    return;
  }
  const repeated = option.kind === "list" ? "; may be repeated" : "";
  const added = new Option(`${name} <${option.placeholder}>`, help + repeated).helpGroup(option.group);
  if (option.kind === "list") added.argParser((value, before: string[] | undefined) => [...before ?? [], value]);
  program.addOption(added);
}

/**
 * `-db-path x`, `-db-path=x` and `-cleanup` mean the same with two dashes, and `--create=false` is `--no-create`. What
 * follows a flag that takes a value is left alone.
 */
function longNames(argv: readonly string[], options: readonly Option[]): string[] {
  const known = new Map(options.map((option) => [option.long, option]));
  const rewritten: string[] = [];
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index] ?? "";
    if (word === "--") return [...rewritten, ...argv.slice(index)];
    const [, name, value] = /^--?([a-z][a-z-]+)(?:=(.*))?$/s.exec(word) ?? [];
    const option = known.get(`--${name}`);
    if (option === undefined) {
      rewritten.push(word);
    } else if (option.required) {
      rewritten.push(value === undefined ? `--${name}` : `--${name}=${value}`);
      const next = argv[index + 1];
      if (value !== undefined || next === undefined) continue;
      if (isFlag(next, known)) throw missingValue(`--${name} ${option.flags.split(" ")[1]}`, next);
      rewritten.push(next);
      index++;
    } else {
      rewritten.push(switchName(word, option, value));
    }
  }
  return rewritten;
}

function isFlag(word: string, known: ReadonlyMap<string | undefined, Option>): boolean {
  return word.startsWith("-") && known.has(`--${word.replace(/^--?/, "").replace(/=.*/s, "")}`);
}

function switchName(word: string, option: Option, value: string | undefined): string {
  const positive = option.name().replace(/^no-/, "");
  if (value === undefined) return `--${option.name()}`;
  if (value === "true" || value === "1") return `--${option.name()}`;
  if ((value === "false" || value === "0") && OPTIONS.some((known) => known.flag === positive)) {
    return option.negate ? `--${positive}` : `--no-${positive}`;
  }
  throw usage(`Cannot use ${word}: it must be true or false.`);
}

function usage(message: string): MarmotError {
  return new MarmotError(message, EXIT.usage);
}

function usageError(error: CommanderError, options: readonly Option[]): MarmotError {
  const [, quoted = ""] = /'([^']*)'/.exec(error.message) ?? [];
  if (error.code === "commander.unknownOption") return unknownFlag(quoted, options);
  if (error.code === "commander.optionMissingArgument") {
    return missingValue(quoted);
  }
  // what `help` does for a command that it doesn't know
  if (error.code === "commander.help") {
    return usage("Cannot show that help: there is no such command. See marmot --help.");
  }
  return usage(`Cannot understand the command line: ${error.message.replace(/^error: /, "")}.`);
}

/** @param flags as Commander writes it: `--db-path <FILE>` */
function missingValue(flags: string, next?: string): MarmotError {
  const [name = "", placeholder = ""] = flags.replace(/[<>]/g, "").split(" ");
  const other = next === undefined ? "" : `, or ${name}=${next} if that is meant to be its value`;
  return usage(`Cannot use ${name}: its value is missing. Give ${name} ${placeholder}${other}.`);
}

function unknownFlag(word: string, options: readonly Option[]): MarmotError {
  const name = word.replace(/^-+/, "").replace(/=.*/s, "");
  const shown = word.replace(/=.*/s, "");
  const secret = OPTIONS.find((option) => option.noFlag && option.flag === name);
  if (secret !== undefined) {
    return usage(
      `Cannot use ${shown}: every process of this machine can read a command line. ` +
        `Give --${secret.flag}-file, the variable ${secret.variable}, or ${secret.tomlKey} in the configuration file.`,
    );
  }
  const names = options.filter((option) => !option.hidden).map((option) => option.name());
  if (names.includes(name)) return usage(`Cannot use ${shown} here: it belongs to another command. See marmot --help.`);
  const meant = suggest(name, names);
  const hint = meant === undefined ? "See marmot --help." : `Did you mean --${meant}?`;
  return usage(`Cannot use ${shown}: there is no such flag. ${hint}`);
}

function excess(word: string, commands: readonly string[]): MarmotError {
  const hint = didYouMean(word, commands) || ` A database is given with --db-path ${word}.`;
  return usage(`Cannot understand ${JSON.stringify(word)}: it is neither a command nor a flag.${hint}`);
}
