/** What options mean together: which exclude each other, and which need another. */
import { type Config, type OptionKey, OPTIONS } from "../config.ts";
import { type EffectiveConfig, nameAsGiven } from "./effective.ts";
import { parseServerUrl } from "./values.ts";

const EXTERNAL_ONLY = [
  "natsUser",
  "natsPassword",
  "natsPasswordFile",
  "natsToken",
  "natsTokenFile",
  "natsCa",
  "natsCert",
  "natsKey",
] as const;
const EMBEDDED_ONLY = ["listen", "clusterName", "clusterAddr", "clusterPeers", "leafAddr", "leafUrl"] as const;
/** In each pair, one needs the other. */
const PAIRS = [["natsCert", "natsKey"], ["natsKey", "natsCert"], ["clusterPeers", "clusterAddr"]] as const;

/**
 * Moves user and password, or the token, out of the addresses of nats_url into options of their own, so that an address
 * can be shown. @throws never: what can't be moved stays, and `conflicts` says so
 */
export function separateCredentials(effective: EffectiveConfig): EffectiveConfig {
  const { config, origins } = effective;
  const origin = origins.get("natsUrl");
  const [account, another] = accounts(config.natsUrl);
  if (account === undefined || another !== undefined || origin === undefined) return effective;
  if (waysToAuthenticate(effective).length > 0) return effective;
  const { user, password } = account;
  const found: Partial<Config> = password === undefined
    ? { natsToken: user }
    : { natsUser: user, natsPassword: password };
  const natsUrl = config.natsUrl.map((text) => parseServerUrl(text)?.url ?? text);
  const moved = Object.keys(found).map((key) => [key as OptionKey, origin] as const);
  return { config: { ...config, ...found, natsUrl }, origins: new Map([...origins, ...moved]) };
}

/** @returns a message for each combination that can't be meant */
export function conflicts(effective: EffectiveConfig): string[] {
  const { config, origins } = effective;
  const given = (key: OptionKey) => origins.has(key) && !isDefault(config, key);
  const name = (key: OptionKey) => nameAsGiven(effective, key);
  const found = authenticationConflicts(effective);
  for (const [key, needed] of PAIRS) {
    if (given(key) && !given(needed)) found.push(`Cannot use ${name(key)} alone: give ${name(needed)} with it.`);
  }
  if (config.natsUrl.length === 0) {
    for (const key of EXTERNAL_ONLY.filter(given)) {
      found.push(
        `Cannot use ${name(key)}: it is for a NATS server of your own, and no nats_url is given. ` +
          `Give --nats-url, or leave it out.`,
      );
    }
    if (given("natsCredentials") && !given("leafUrl")) {
      found.push(
        `Cannot use ${
          name("natsCredentials")
        }: it is for a NATS server of your own, and neither nats_url nor leaf_url ` +
          "is given. Give one of them, or leave it out: the embedded broker makes its own.",
      );
    }
    if (config.replicas > 1 && !given("clusterAddr") && !given("leafUrl")) {
      found.push(
        `Cannot use ${name("replicas")}: one embedded broker stores one replica. ` +
          `Form a cluster with --cluster-addr and --cluster-peers, or give --nats-url.`,
      );
    }
  } else {
    for (const key of EMBEDDED_ONLY.filter(given)) {
      found.push(
        `Cannot use ${name(key)} together with ${name("natsUrl")}: it is for the embedded broker, ` +
          `which runs only without nats_url. Leave one of them out.`,
      );
    }
  }
  return found;
}

/** `marmot config` writes defaults out, and what it writes can be loaded. */
function isDefault(config: Config, key: OptionKey): boolean {
  const fallback = OPTIONS.find((option) => option.key === key)?.default;
  return JSON.stringify(config[key]) === JSON.stringify(fallback);
}

function authenticationConflicts(effective: EffectiveConfig): string[] {
  const { config, origins } = effective;
  const name = (key: OptionKey) => nameAsGiven(effective, key);
  const ways = waysToAuthenticate(effective);
  const found: string[] = [];
  const distinct = accounts(config.natsUrl);
  if (distinct.length > 1) {
    found.push(`Cannot use ${name("natsUrl")}: its addresses hold different users. Give one with --nats-user.`);
  } else if (distinct.length === 1) {
    found.push(
      `Cannot use ${name("natsUrl")} with a user in it together with ${ways.map(name).join(" and ")}. Give only one.`,
    );
  }
  const [first, second] = ways;
  if (first !== undefined && second !== undefined) {
    found.push(`Cannot use ${name(first)} together with ${name(second)}: one way to authenticate is enough.`);
  }
  const password = (["natsPassword", "natsPasswordFile"] as const).find((key) => origins.has(key));
  if (config.natsUser !== undefined && password === undefined) {
    found.push(
      `Cannot use ${name("natsUser")} without a password: ` +
        `give --nats-password-file, or the variable MARMOT_NATS_PASSWORD.`,
    );
  }
  if (config.natsUser === undefined && password !== undefined) {
    found.push(`Cannot use ${name(password)} without a user: give --nats-user.`);
  }
  return found;
}

/** One option of each way that was given: two of them are one too many. */
function waysToAuthenticate({ origins }: EffectiveConfig): OptionKey[] {
  const passwords = (["natsPassword", "natsPasswordFile"] as const).filter((key) => origins.has(key));
  if (passwords.length === 0 && origins.has("natsUser")) return ["natsUser"];
  const others = (["natsToken", "natsTokenFile", "natsCredentials"] as const).filter((key) => origins.has(key));
  return [...passwords, ...others];
}

interface Account {
  readonly user: string;
  readonly password: string | undefined;
}

/** The different users in addresses. */
function accounts(urls: readonly string[]): Account[] {
  const found = new Map<string, Account>();
  for (const text of urls) {
    const { user, password } = parseServerUrl(text) ?? {};
    if (user !== undefined) found.set(JSON.stringify([user, password]), { user, password });
  }
  return [...found.values()];
}
