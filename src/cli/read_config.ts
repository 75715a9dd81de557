/** The configuration of a command: reads what the flags and the environment name. */
import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { platform } from "node:process";
import { type EffectiveConfig, nameAsGiven, type Origin, secretOrigins } from "../config/effective.ts";
import { loadConfig } from "../config/layers.ts";
import { EXIT, MarmotError } from "../errors.ts";
import type { NatsAuth } from "../nats/credentials.ts";
import type { Flags } from "./arguments.ts";

/** of a file that its group or others may read */
const READABLE_BY_OTHERS = 0o044;

export interface Surroundings {
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly directory: string;
}

export interface ReadConfig extends EffectiveConfig {
  /** what is allowed but careless */
  readonly warnings: readonly string[];
}

/** @throws MarmotError (usage) */
export async function readConfig(flags: Flags, { variables, directory }: Surroundings): Promise<ReadConfig> {
  const path = typeof flags.config === "string" ? flags.config : variables.MARMOT_CONFIG;
  if (path === undefined || path === "") {
    const effective = loadConfig({ flags, variables, directory });
    return { ...effective, warnings: await careless(effective, directory) };
  }
  const text = await readText(
    resolve(directory, path),
    typeof flags.config === "string" ? "--config" : "MARMOT_CONFIG",
  );
  const effective = loadConfig({ flags, variables, directory, file: { path, text } });
  return { ...effective, warnings: await careless(effective, directory) };
}

/** @throws MarmotError (usage) when there is none */
export function requireDatabase({ config }: EffectiveConfig): string {
  if (config.dbPath !== undefined) return config.dbPath;
  throw new MarmotError(
    "Cannot start: no database is given. Give --db-path FILE, the variable MARMOT_DB_PATH, or db_path in the file of " +
      "--config. See marmot --help.",
    EXIT.usage,
  );
}

/** How to authenticate at a NATS server of the user's. @throws MarmotError (usage) when a file can't be read */
export async function natsAuth(effective: EffectiveConfig): Promise<NatsAuth | undefined> {
  const { config } = effective;
  const secretOf = async (key: "natsPasswordFile" | "natsTokenFile", value: string | undefined) =>
    value ?? await readSecret(config[key] ?? "", nameAsGiven(effective, key));
  if (config.natsCredentials !== undefined) return { kind: "credentials", file: config.natsCredentials };
  if (config.natsUser !== undefined) {
    return {
      kind: "password",
      user: config.natsUser,
      password: await secretOf("natsPasswordFile", config.natsPassword),
    };
  }
  if (config.natsToken === undefined && config.natsTokenFile === undefined) return undefined;
  return { kind: "token", token: await secretOf("natsTokenFile", config.natsToken) };
}

async function readSecret(path: string, name: string): Promise<string> {
  const secret = (await readText(path, name)).replace(/\r?\n$/, "");
  if (secret !== "") return secret;
  throw new MarmotError(`Cannot use ${path}: it is empty. Put the secret in the file given with ${name}.`, EXIT.usage);
}

async function readText(path: string, name: string): Promise<string> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
    const states: Record<string, string> = {
      ENOENT: "there is no such file",
      EISDIR: "it is a folder",
      EACCES: "this user may not read it",
    };
    const state = states[code] ?? code;
    throw new MarmotError(`Cannot read ${path}: ${state}. Check the path given with ${name}.`, EXIT.usage, { cause });
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new MarmotError(`Cannot read ${path}: it is not UTF-8. Check the path given with ${name}.`, EXIT.usage, {
      cause,
    });
  }
}

async function careless(effective: EffectiveConfig, directory: string): Promise<string[]> {
  const origins = secretOrigins(effective);
  const warnings = new Set<string>();
  for (const origin of origins.filter((origin) => origin.kind === "flag")) {
    warnings.add(
      `A password in ${origin.name} can be read by every process of this machine. ` +
        "Give it in a file, in a variable, or in the configuration file.",
    );
  }
  const files = origins.filter((origin): origin is Origin & { kind: "file" } => origin.kind === "file");
  const { natsPasswordFile, natsTokenFile } = effective.config;
  for (const path of [...files.map((origin) => origin.path), natsPasswordFile, natsTokenFile]) {
    if (path === undefined || !await othersCanRead(resolve(directory, path))) continue;
    warnings.add(`The file ${path} holds a secret, and other users can read it. Make it yours alone: chmod 600 it.`);
  }
  return [...warnings];
}

async function othersCanRead(path: string): Promise<boolean> {
  const mode = await stat(path).then((found) => found.mode, () => 0);
  return platform !== "win32" && (mode & READABLE_BY_OTHERS) !== 0;
}
