/** A configuration, and where each of its values came from. */
import { type Config, type OptionKey, OPTIONS } from "../config.ts";
import { parseServerUrl } from "./values.ts";

export type Origin =
  | { readonly kind: "file"; readonly path: string; readonly line: number; readonly column: number }
  | { readonly kind: "variable"; readonly name: string }
  | { readonly kind: "flag"; readonly name: string };

export interface EffectiveConfig {
  readonly config: Config;
  /** of every option that was given; the others have their default */
  readonly origins: ReadonlyMap<OptionKey, Origin>;
}

/** Such as "default", "--shards", "MARMOT_SHARDS", "marmot.toml line 3". */
export function describeOrigin(origin: Origin | undefined): string {
  if (origin === undefined) return "default";
  return origin.kind === "file" ? `${origin.path} line ${origin.line}` : origin.name;
}

/** The name under which the user gave an option: "--shards", "MARMOT_SHARDS", "shards (marmot.toml line 3)". */
export function nameAsGiven(effective: EffectiveConfig, key: OptionKey): string {
  const origin = effective.origins.get(key);
  if (origin !== undefined && origin.kind !== "file") return origin.name;
  const name = OPTIONS.find((option) => option.key === key)?.tomlKey ?? key;
  return origin === undefined ? name : `${name} (${describeOrigin(origin)})`;
}

/** Where passwords and tokens came from, those inside addresses included. */
export function secretOrigins(effective: EffectiveConfig): Origin[] {
  const { config, origins } = effective;
  return OPTIONS.flatMap((option) => {
    const origin = origins.get(option.key);
    const value = config[option.key];
    const secret = option.secret || (option.url && Array.isArray(value) && value.some(hasAccount));
    return secret && origin !== undefined ? [origin] : [];
  });
}

export function hasAccount(url: string): boolean {
  return parseServerUrl(url)?.user !== undefined;
}
