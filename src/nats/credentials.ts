/** Who we are for a NATS server, and whom we trust: options and files turned into what nats.js wants. */
import { readFileSync } from "node:fs";
import {
  type Authenticator,
  credsAuthenticator,
  nkeyAuthenticator,
  nkeys,
  tokenAuthenticator,
  usernamePasswordAuthenticator,
} from "@nats-io/transport-node";
import { EXIT, MarmotError } from "../errors.ts";
import type { NatsAddress } from "./address.ts";

const NKEY_SEED = /^SU[A-Z2-7]{56}$/;
const CREDS_MARK = "BEGIN NATS USER JWT";

export type NatsAuth =
  | { readonly kind: "password"; readonly user: string; readonly password: string }
  | { readonly kind: "token"; readonly token: string }
  /** a .creds file, or a file with an nkey user seed: told apart by what is in it */
  | { readonly kind: "credentials"; readonly file: string };

/** Files in PEM. Given at all, even empty, it insists on TLS. */
export interface NatsTls {
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
}

const encoder = new TextEncoder();

/**
 * The first read happens here, so that a bad file ends the start; later ones at each reconnect, since credentials are
 * renewed in place. One that can't be read then leaves the last good one in use.
 * @throws MarmotError (usage)
 */
export function authenticatorOf(
  auth: NatsAuth | undefined,
  addresses: readonly NatsAddress[],
): Authenticator | undefined {
  const chosen = auth ?? authOfAddresses(addresses);
  if (chosen === undefined) return undefined;
  if (chosen.kind === "password") return usernamePasswordAuthenticator(chosen.user, chosen.password);
  if (chosen.kind === "token") return tokenAuthenticator(chosen.token);
  const { file } = chosen;
  let current = parseCredentials(file, readText(file, "--nats-credentials"));
  return (nonce?: string) => {
    try {
      current = parseCredentials(file, readText(file, "--nats-credentials"));
    } catch {
      // the last good one: the server decides, and its refusal is what the user sees
    }
    return current(nonce);
  };
}

/** nats.js takes one identity for all servers, so addresses must not disagree. */
function authOfAddresses(addresses: readonly NatsAddress[]): NatsAuth | undefined {
  const found = addresses.filter((address) => address.user !== undefined);
  const first = found[0];
  if (first?.user === undefined) return undefined;
  if (found.some(({ user, password }) => user !== first.user || password !== first.password)) {
    throw new MarmotError(
      "Cannot use several NATS addresses with different users: one identity is used for all of them. " +
        "Give the user once, with --nats-user and --nats-password-file.",
      EXIT.usage,
    );
  }
  return first.password === undefined
    ? { kind: "token", token: first.user }
    : { kind: "password", user: first.user, password: first.password };
}

function parseCredentials(file: string, content: string): Authenticator {
  if (content.includes(CREDS_MARK)) return checked(file, credsAuthenticator(encoder.encode(content)));
  const seed = content.split(/\r?\n/).map((line) => line.trim()).find((line) => NKEY_SEED.test(line));
  if (seed === undefined) {
    throw new MarmotError(
      `Cannot use the credentials file ${file}: it holds neither a NATS user JWT (.creds) nor an nkey user seed (SU…). ` +
        "Give the file that nsc, nk or the first node made, with --nats-credentials.",
      EXIT.usage,
    );
  }
  const bytes = encoder.encode(seed);
  try {
    nkeys.fromSeed(bytes);
  } catch {
    throw damaged(file);
  }
  return nkeyAuthenticator(bytes);
}

/** A .creds file is parsed by nats.js when the server asks; ask once here. */
function checked(file: string, authenticator: Authenticator): Authenticator {
  try {
    authenticator("check");
  } catch {
    throw damaged(file);
  }
  return authenticator;
}

function damaged(file: string): MarmotError {
  return new MarmotError(
    `Cannot use the credentials file ${file}: it is damaged or cut short. Copy it again from where it was made.`,
    EXIT.usage,
  );
}

/** The files themselves are read at each connect, since certificates are renewed in place. @throws MarmotError (usage) */
export function checkTls(tls: NatsTls): void {
  if ((tls.certFile === undefined) !== (tls.keyFile === undefined)) {
    throw new MarmotError(
      "Cannot use a client certificate without its key, or a key without its certificate. " +
        "Give both --nats-cert and --nats-key.",
      EXIT.usage,
    );
  }
  if (tls.caFile !== undefined) checkPem(tls.caFile, "--nats-ca", "CERTIFICATE");
  if (tls.certFile !== undefined) checkPem(tls.certFile, "--nats-cert", "CERTIFICATE");
  if (tls.keyFile !== undefined) checkPem(tls.keyFile, "--nats-key", "PRIVATE KEY");
}

function checkPem(file: string, flag: string, what: string): void {
  if (new RegExp(`-----BEGIN [A-Z ]*${what}-----`).test(readText(file, flag))) return;
  throw new MarmotError(
    `Cannot use ${file}: it holds no ${what.toLowerCase()} in PEM. Give another file with ${flag}.`,
    EXIT.usage,
  );
}

function readText(file: string, flag: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const state = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
    throw new MarmotError(`Cannot read ${file}: ${state}. Check the path given with ${flag}.`, EXIT.usage, { cause });
  }
}
