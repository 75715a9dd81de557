/** Durations, sizes and addresses as people write them. */

const DURATION_UNITS_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

const SIZE_UNITS_BYTES = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** @returns milliseconds, or undefined when the text is no duration */
export function parseDuration(text: string): number | undefined {
  return parseWithUnit(text, DURATION_UNITS_MS);
}

/** The shortest exact spelling: 604800000 is "7d", 90000 is "90s". */
export function formatDuration(ms: number): string {
  return formatWithUnit(ms, DURATION_UNITS_MS);
}

/** @returns bytes, or undefined when the text is no size; a bare number is bytes */
export function parseSize(text: string): number | undefined {
  return /^\d+$/.test(text) ? Number(text) : parseWithUnit(text, SIZE_UNITS_BYTES);
}

/** The shortest exact spelling: 4294967296 is "4GiB", 512000000 is "512MB". */
export function formatSize(bytes: number): string {
  return formatWithUnit(bytes, SIZE_UNITS_BYTES);
}

function parseWithUnit(text: string, units: Record<string, number>): number | undefined {
  const [, digits, unit] = /^(\d+) ?([a-z]+)$/i.exec(text) ?? [];
  const name = Object.keys(units).find((known) => known.toLowerCase() === unit?.toLowerCase());
  return name === undefined ? undefined : Number(digits) * (units[name] ?? NaN);
}

function formatWithUnit(value: number, units: Record<string, number>): string {
  const exact = Object.entries(units).filter(([, unit]) => value % unit === 0).sort(([, a], [, b]) => b - a);
  const [name, unit] = exact[0] ?? ["", 1];
  return `${value / unit}${name}`;
}

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

const HIGHEST_PORT = 65_535;

/** `127.0.0.1:4222`, `[::1]:4222`, `host.example:4222`. @returns undefined when it is none */
export function parseHostPort(text: string): HostPort | undefined {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-f:.]+)\]|([\w.-]+)):(\d{1,5})$/i.exec(text) ?? [];
  const port = Number(digits);
  const host = bracketed ?? plain;
  return host !== undefined && port > 0 && port <= HIGHEST_PORT ? { host, port } : undefined;
}

export interface ServerUrl {
  /** without user and password */
  readonly url: string;
  readonly user?: string;
  readonly password?: string;
}

/**
 * A NATS address such as `nats://host:4222`, `tls://user:password@host` or `host`.
 * @param schemes allowed ones; any when left out
 * @returns undefined when it is none
 */
export function parseServerUrl(text: string, schemes?: readonly string[]): ServerUrl | undefined {
  const [, scheme, account, address] = /^(?:([a-z-]+):\/\/)?(?:([^@\s/]*)@)?([^@\s/]+)\/?$/i.exec(text) ?? [];
  if (address === undefined || (scheme !== undefined && schemes?.includes(scheme.toLowerCase()) === false)) {
    return undefined;
  }
  const host = /:\d+$/.test(address) ? address : `${address}:1`;
  if (parseHostPort(host) === undefined) return undefined;
  const url = scheme === undefined ? address : `${scheme.toLowerCase()}://${address}`;
  if (account === undefined) return { url };
  const [user = "", password] = account.split(/:(.*)/s).map(decodePercent);
  return password === undefined ? { url, user } : { url, user, password };
}

function decodePercent(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray percent sign stands for itself
  }
}
