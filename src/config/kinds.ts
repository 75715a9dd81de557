/** What the values of options may be, each with the words that say what is allowed. */
import * as v from "valibot";
import { parseDuration, parseHostPort, parseServerUrl, parseSize } from "./values.ts";

/**
 * How a value is written: a flag has no argument on a command line, a list may be repeated there. Durations are held in
 * milliseconds, sizes in bytes.
 */
export type Kind = "flag" | "number" | "text" | "list" | "duration" | "size";

/** What an entry of the schema says of itself. */
export type About = {
  /** heading in --help and docs/config.toml */
  readonly group: string;
  readonly help: string;
  /** a value for docs/config.toml, where there is no default */
  readonly example?: string | readonly string[];
  /** what holds when it isn't set, where there is no default */
  readonly unset?: string;
  /** all nodes of a cluster have it alike: the command that adds a node names it */
  readonly shared?: true;
  /** never printed */
  readonly secret?: true;
  /** may hold a user and a password, which are never printed */
  readonly url?: true;
  /** relative to the configuration file, or to the working directory */
  readonly path?: true;
  /** secrets are not given on a command line, where every process can read them */
  readonly noFlag?: true;
  /** makes no sense in the configuration file */
  readonly noFile?: true;
  /** elements may be separated by commas in a flag, too, as they always are in a variable */
  readonly commas?: true;
};

export type Form = {
  readonly kind: Kind;
  /** stands for the value in --help */
  readonly placeholder?: string;
};

/** What a value may be, and how it is written. */
interface Value<S extends v.GenericSchema> {
  readonly schema: S;
  readonly form: Form;
}

export function option<S extends v.GenericSchema>(value: Value<S>, about: About) {
  return v.pipe(value.schema, v.metadata({ ...value.form, ...about }));
}

const text = <S extends v.GenericSchema>(placeholder: string, schema: S) => ({
  schema,
  form: { kind: "text" as const, placeholder },
});
const list = <S extends v.GenericSchema>(placeholder: string, schema: S) => ({
  schema,
  form: { kind: "list" as const, placeholder },
});

// Each message completes "it must be …".

export const boolean = () => ({
  schema: v.optional(v.boolean("true or false"), false),
  form: { kind: "flag" as const },
});

export function wholeNumber(min: number, max: number, fallback: number) {
  const allowed = `a whole number from ${min} to ${max}`;
  const number = v.pipe(v.number(allowed), v.integer(allowed), v.minValue(min, allowed), v.maxValue(max, allowed));
  return { schema: v.optional(number, fallback), form: { kind: "number" as const, placeholder: "N" } };
}

export function string(placeholder: string) {
  const allowed = "a text that is not empty";
  const filled = v.check((value: string) => value.trim() !== "" && !value.includes("\0"), allowed);
  return text(placeholder, v.optional(v.pipe(v.string(allowed), filled)));
}

export function strings(placeholder: string) {
  const allowed = "a list of texts that are not empty";
  return list(placeholder, v.optional(v.array(v.pipe(v.string(allowed), v.trim(), v.nonEmpty(allowed)), allowed), []));
}

export function matching(placeholder: string, pattern: RegExp, allowed: string, fallback: string) {
  return text(placeholder, v.optional(v.pipe(v.string(allowed), v.regex(pattern, allowed)), fallback));
}

export function choice<const T extends readonly [string, string, ...string[]]>(
  placeholder: string,
  fallback: T[number],
  values: T,
) {
  return text(placeholder, v.optional(v.picklist(values, `one of ${values.join(", ")}`), fallback));
}

export function duration(min: string, max: string, fallback: string) {
  const allowed = `a duration from ${min} to ${max}, written like 7d, 12h, 30m, 45s or 500ms`;
  const range = inRange(parseDuration, min, max, allowed);
  return {
    schema: v.optional(v.pipe(v.string(allowed), v.transform(parseDuration), range), fallback),
    form: { kind: "duration" as const, placeholder: "DURATION" },
  };
}

export function size(min: string, max: string, fallback: string) {
  const allowed = `a size from ${min} to ${max}, written like 4GiB or 512MB, or as a number of bytes`;
  const input = v.union([v.string(), v.pipe(v.number(), v.transform(String))], allowed);
  const range = inRange(parseSize, min, max, allowed);
  return {
    schema: v.optional(v.pipe(input, v.transform(parseSize), range), fallback),
    form: { kind: "size" as const, placeholder: "SIZE" },
  };
}

function inRange(parse: (text: string) => number | undefined, min: string, max: string, allowed: string) {
  const lowest = v.minValue<number, number, string>(parse(min) ?? NaN, allowed);
  return v.pipe(v.number(allowed), lowest, v.maxValue(parse(max) ?? NaN, allowed));
}

export function hostPort() {
  const allowed = "an address and a port, such as 127.0.0.1:4222 or [::1]:4222";
  const address = v.pipe(v.string(allowed), v.check((value) => parseHostPort(value) !== undefined, allowed));
  return text("HOST:PORT", v.optional(address));
}

export function urls(...schemes: string[]) {
  const allowed = `an address such as ${schemes[0]}://host:port, or a list of them`;
  const known = v.check((value: string) => parseServerUrl(value, schemes) !== undefined, allowed);
  return list("URL", v.optional(v.array(v.pipe(v.string(allowed), v.trim(), known), allowed), []));
}
