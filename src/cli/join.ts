/** How another node joins this one: two commands, remembered beside the database while Marmot runs. */
import { join, parse } from "node:path";
import * as v from "valibot";
import { type ConfigOption, OPTIONS } from "../config.ts";
import type { EffectiveConfig } from "../config/effective.ts";
import { writtenValue } from "../config/print.ts";
import { EXIT, MarmotError } from "../errors.ts";
import { findDatabase, readIfThere, writeWhole } from "../place.ts";

/** in the folder beside the database */
const JOIN_FILE = "join.json";

const joinSchema = v.object({
  /** for the command line of the other node */
  flags: v.array(v.string()),
  /** variables that it needs as well: secrets, which are named and never shown */
  variables: v.array(v.string()),
});

/** What the other node needs to know. Holds no secret. */
export type JoinInfo = v.InferOutput<typeof joinSchema>;

/** @param embedded how the embedded broker is reached, when it runs */
export function joinInfo(
  { config, origins }: EffectiveConfig,
  embedded?: { readonly url: string; readonly credentialsFile: string },
): JoinInfo {
  const values = embedded === undefined
    ? config
    : { ...config, natsUrl: [embedded.url], natsCredentials: embedded.credentialsFile };
  const secrets = OPTIONS.filter(({ key, secret }) => secret && origins.has(key));
  return {
    flags: OPTIONS.filter(({ shared }) => shared).flatMap((option) => flagsOf(option, values[option.key])),
    variables: secrets.map((option) => option.variable),
  };
}

function flagsOf(option: ConfigOption, value: unknown): string[] {
  const name = `--${option.flag}`;
  const written = writtenValue(option, value);
  if (written === undefined || JSON.stringify(written) === JSON.stringify(option.default)) return [];
  if (option.kind === "flag") return [name];
  return (Array.isArray(written) ? written : [written]).flatMap((element) => [name, String(element)]);
}

export function rememberJoin(folder: string, info: JoinInfo): void {
  writeWhole(join(folder, JOIN_FILE), `${JSON.stringify(info)}\n`);
}

/** @returns undefined when no Marmot has run on this database yet @throws MarmotError (database) when there is none */
function recallJoin(dbPath: string): JoinInfo | undefined {
  const { folder } = findDatabase(dbPath, false);
  const text = readIfThere(join(folder, JOIN_FILE));
  if (text === undefined) return undefined;
  try {
    return v.parse(joinSchema, JSON.parse(text));
  } catch (cause) {
    throw new MarmotError(
      `Cannot read ${join(folder, JOIN_FILE)}: it is damaged. Start Marmot on the database, which writes it again.`,
      EXIT.failure,
      { cause },
    );
  }
}

/** @returns the two commands, and what to know about them @throws MarmotError (usage) when Marmot has not run here yet */
export function joinCommand(
  effective: EffectiveConfig,
  dbPath: string,
): { commands: string; notes: string[] } {
  const info = effective.config.natsUrl.length > 0 ? joinInfo(effective) : recallJoin(dbPath);
  if (info !== undefined) return { commands: joinCommands(dbPath, info), notes: joinNotes(info) };
  throw new MarmotError(
    `Cannot tell how to join ${dbPath}: no Marmot has run on it yet. ` +
      `Start it first: marmot ${["--db-path", dbPath].map(shellQuoted).join(" ")}`,
    EXIT.usage,
  );
}

/** Ready to be pasted into a shell; the new database is a suggestion. */
export function joinCommands(dbPath: string, { flags }: JoinInfo): string {
  const { dir, name, ext } = parse(dbPath);
  const other = join(dir, `${name}-2${ext}`);
  const lines = [["marmot", "clone", "--db-path", dbPath, "--to", other], ["marmot", "--db-path", other, ...flags]];
  return lines.map((words) => words.map(shellQuoted).join(" ")).join("\n");
}

function joinNotes({ flags, variables }: JoinInfo): string[] {
  const notes = variables.map((variable) => `Set ${variable} there to the same secret as here.`);
  const files = OPTIONS.filter(({ path }) => path).map(({ flag }) => flags.indexOf(`--${flag}`));
  for (const index of files.filter((index) => index >= 0)) {
    notes.push(`On another machine, copy ${flags[index + 1]} there and name that copy.`);
  }
  if (flags.some((flag) => /^(nats|tls):\/\/(127\.|localhost|\[::1\])/.test(flag))) {
    notes.push("This broker listens on this machine only; for others, start Marmot here with --listen 0.0.0.0:4222.");
  }
  return notes;
}

function shellQuoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
