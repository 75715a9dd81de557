/** A configuration as TOML: the one in effect, and the template with every option. */
import { stringify as stringifyToml } from "smol-toml";
import { type ConfigOption, OPTIONS } from "../config.ts";
import { describeOrigin, type EffectiveConfig, hasAccount } from "./effective.ts";
import { formatDuration, formatSize, parseServerUrl } from "./values.ts";

/** The effective configuration as a file that can be loaded, without secrets; comments say where each value came from. */
export function printConfig(effective: EffectiveConfig): string {
  const lines = ["# Marmot: the configuration in effect, and where each value came from"];
  let group = "";
  for (const option of OPTIONS) {
    if (option.group !== group) lines.push("", `# ${option.group}`);
    group = option.group;
    lines.push(effectiveLine(option, effective));
  }
  return `${lines.join("\n")}\n`;
}

function effectiveLine(option: ConfigOption, { config, origins }: EffectiveConfig): string {
  const value = config[option.key];
  const from = describeOrigin(origins.get(option.key));
  if (value === undefined) {
    return `# ${option.tomlKey} is not set${option.unset === undefined ? "" : `: ${option.unset}`}`;
  }
  if (option.secret) return `# ${option.tomlKey} is set, and hidden here # ${from}`;
  if (option.noFile) return `# ${option.tomlKey} is ${value} # ${from}`;
  if (option.url && Array.isArray(value) && value.some(hasAccount)) {
    const shown = value.map((text) => parseServerUrl(text)?.url ?? "");
    return `${assignment(option, shown)} # ${from}; user and password hidden here`;
  }
  return `${assignment(option, value)} # ${from}`;
}

/** Every option, commented out, at its default: docs/config.toml. */
export function printTemplate(): string {
  const lines = [
    "# Marmot's configuration: every option, at its default. `marmot --config FILE` reads it.",
    "# MARMOT_* variables win over this file, and flags win over both; `marmot config` prints what is in effect.",
    "# Relative paths start at this file's folder. Made by `marmot config --template`.",
  ];
  let group = "";
  for (const option of OPTIONS.filter((option) => !option.noFile)) {
    if (option.group !== group) lines.push("", "", `# ---- ${option.group} ----`);
    group = option.group;
    lines.push("", ...templateLines(option));
  }
  return `${lines.join("\n")}\n`;
}

function templateLines(option: ConfigOption): string[] {
  const flag = option.noFlag
    ? []
    : [`--${option.flag}${option.placeholder === undefined ? "" : ` ${option.placeholder}`}`];
  const lines = [`# ${sentence(option.help)}.`, `# ${[...flag, option.variable].join(", ")}`];
  if (option.secret) lines.push("# Keep a file that holds it readable for its owner only (chmod 600).");
  if (option.default === undefined) {
    lines.push(`# Not set by default${option.unset === undefined ? "" : `: ${option.unset}`}.`);
    return [...lines, `#${assignment(option, option.example ?? "")}`];
  }
  if (option.example !== undefined) lines.push(`# For example: ${assignment(option, option.example)}`);
  return [...lines, `#${assignment(option, option.default)}`];
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function assignment(option: ConfigOption, value: unknown): string {
  return stringifyToml({ [option.tomlKey]: writtenValue(option, value) }).trim();
}

/** A value as the user would write it: durations and sizes are held as numbers. */
export function writtenValue(option: ConfigOption, value: unknown): unknown {
  if (typeof value !== "number") return value;
  if (option.kind === "duration") return formatDuration(value);
  return option.kind === "size" ? formatSize(value) : value;
}
