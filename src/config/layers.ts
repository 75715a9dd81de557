/** The effective configuration: defaults, then the file, then variables, then flags; each value knows where it came from. */
import { dirname, resolve } from "node:path";
import { parse as parseToml, TomlError } from "smol-toml";
import * as v from "valibot";
import { type Config, type ConfigOption, type OptionKey, OPTIONS, VARIABLE_PREFIX } from "../config.ts";
import { EXIT, MarmotError } from "../errors.ts";
import { conflicts, separateCredentials } from "./combinations.ts";
import type { EffectiveConfig, Origin } from "./effective.ts";
import { didYouMean, suggest } from "./suggest.ts";
import { keyPosition } from "./toml_position.ts";

/** What Kubernetes gives every container of a namespace that has a service called marmot, or marmot-something */
const SERVICE_LINK =
  /^MARMOT_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$/;

/** What a flag was given: `--create`, `--shards 2`, `--include a --include b`. */
export type FlagValue = string | boolean | readonly string[];

export interface ConfigSources {
  /** by the option's key */
  readonly flags: Readonly<Partial<Record<OptionKey, FlagValue>>>;
  /** the environment: only MARMOT_* is looked at, and an empty value counts as none */
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly file?: { readonly path: string; readonly text: string };
  /** where relative paths of flags and variables start */
  readonly directory: string;
}

/** A value as one source gives it, in the form the TOML file would have. */
interface Setting {
  readonly option: ConfigOption;
  readonly origin: Origin;
  readonly value: unknown;
  /** the setting as the user wrote it, for messages */
  readonly written: string;
}

/**
 * @throws MarmotError (usage) that names everything that is wrong: the source, the line in the file, the value, and what is
 * allowed
 */
export function loadConfig(sources: ConfigSources): EffectiveConfig {
  const problems: string[] = [];
  const settings = [
    ...settingsOfFile(sources, problems),
    ...settingsOfVariables(sources, problems),
    ...settingsOfFlags(sources),
  ];
  const values = new Map<OptionKey, unknown>();
  const origins = new Map<OptionKey, Origin>();
  for (const { option, origin, value, written } of settings) {
    const checked = v.safeParse(option.schema, value);
    if (!checked.success) {
      problems.push(`Cannot use ${written}${place(origin)}: it must be ${checked.issues[0].message}.`);
      continue;
    }
    values.set(option.key, option.path ? resolve(baseFolder(origin, sources), String(checked.output)) : checked.output);
    origins.set(option.key, origin);
  }
  if (problems.length > 0) throw new MarmotError(problems.join("\n"), EXIT.usage);
  for (const option of OPTIONS) {
    if (!values.has(option.key)) values.set(option.key, v.parse(option.schema, undefined));
  }
  // Every key of the schema was set to what that key's own schema returned.
  const effective = separateCredentials({ config: Object.fromEntries(values) as Config, origins });
  const clashes = conflicts(effective);
  if (clashes.length > 0) throw new MarmotError(clashes.join("\n"), EXIT.usage);
  return effective;
}

function place(origin: Origin): string {
  return origin.kind === "file" ? ` in ${origin.path}, line ${origin.line}, column ${origin.column}` : "";
}

/** Paths in the file mean the same wherever Marmot is started. */
function baseFolder(origin: Origin, sources: ConfigSources): string {
  return origin.kind === "file" ? resolve(sources.directory, dirname(origin.path)) : sources.directory;
}

function settingsOfFlags({ flags }: ConfigSources): Setting[] {
  return OPTIONS.flatMap((option): Setting[] => {
    const given = flags[option.key];
    if (given === undefined) return [];
    const name = `--${option.flag}`;
    const written = option.kind === "flag"
      ? `${given === false ? "--no-" : "--"}${option.flag}`
      : `${name} ${shown(option, String(given))}`;
    const value = typeof given === "string"
      ? valueOfText(option, given)
      : typeof given === "boolean"
      ? given
      : given.flatMap((element) => option.commas ? splitAtCommas(element) : element);
    return [{ option, origin: { kind: "flag", name }, value, written }];
  });
}

function settingsOfVariables({ variables }: ConfigSources, problems: string[]): Setting[] {
  const settings: Setting[] = [];
  const known = new Map(OPTIONS.map((option) => [option.variable, option]));
  for (const name of Object.keys(variables).filter((name) => name.startsWith(VARIABLE_PREFIX)).sort()) {
    const option = known.get(name);
    const text = variables[name];
    if (option === undefined) {
      if (SERVICE_LINK.test(name)) continue;
      // Compared without the prefix, which all of them share.
      const meant = suggest(name.slice(VARIABLE_PREFIX.length), OPTIONS.map((option) => option.tomlKey));
      const hint = meant === undefined ? "" : ` Did you mean ${VARIABLE_PREFIX}${meant.toUpperCase()}?`;
      problems.push(`Cannot use the variable ${name}: Marmot has none of that name.${hint}`);
    } else if (text !== undefined && text !== "") {
      const written = option.secret ? `the variable ${name}` : `the variable ${name}=${shown(option, text)}`;
      settings.push({ option, origin: { kind: "variable", name }, value: valueOfText(option, text), written });
    }
  }
  return settings;
}

function settingsOfFile({ file }: ConfigSources, problems: string[]): Setting[] {
  if (file === undefined) return [];
  const settings: Setting[] = [];
  const known = new Map(OPTIONS.filter((option) => !option.noFile).map((option) => [option.tomlKey, option]));
  for (const [key, value] of Object.entries(readToml(file.path, file.text))) {
    const origin: Origin = { kind: "file", path: file.path, ...keyPosition(file.text, key) };
    const option = known.get(key);
    if (option === undefined) {
      problems.push(`Cannot use ${key}${place(origin)}: there is no such option.${didYouMean(key, known.keys())}`);
      continue;
    }
    const written = option.secret ? key : `${key} = ${shown(option, describeValue(value))}`;
    const elements = option.kind === "list" && typeof value === "string" ? [value] : value;
    settings.push({ option, origin, value: elements, written });
  }
  return settings;
}

function readToml(path: string, text: string): Record<string, unknown> {
  try {
    return parseToml(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // The rest of its message quotes the lines around, which may hold a password.
    const [problem = ""] = error.message.replace(/^Invalid TOML document: /, "").split("\n");
    throw new MarmotError(`Cannot read ${path}, line ${error.line}, column ${error.column}: ${problem}.`, EXIT.usage);
  }
}

/** What a flag or a variable holds, as the file would have it; what doesn't fit stays text, and the schema says so. */
function valueOfText(option: ConfigOption, text: string): unknown {
  switch (option.kind) {
    case "flag":
      return ({ true: true, 1: true, false: false, 0: false } as Record<string, boolean>)[text] ?? text;
    case "number":
      return /^-?\d+$/.test(text) ? Number(text) : text;
    case "list":
      return splitAtCommas(text);
    default:
      return text;
  }
}

function splitAtCommas(text: string): string[] {
  return text.split(",").map((element) => element.trim()).filter((element) => element !== "");
}

/** Addresses are shown without user and password. */
function shown(option: ConfigOption, text: string): string {
  return option.url ? text.replace(/[^/\s",]*@/g, "") : text;
}

function describeValue(value: unknown): string {
  return typeof value === "bigint" || value instanceof Date ? String(value) : JSON.stringify(value);
}
