/** JWT accounts as `nsc` makes them, for a nats-server in operator mode and a .creds file. */
import { Buffer } from "node:buffer";
import { nkeys } from "@nats-io/transport-node";

type KeyPair = ReturnType<typeof nkeys.createUser>;

export interface JwtAccounts {
  /** lines for the server's configuration */
  readonly config: string;
  /** content of a .creds file */
  readonly creds: string;
}

const UNLIMITED = {
  subs: -1,
  data: -1,
  payload: -1,
  imports: -1,
  exports: -1,
  wildcards: true,
  conn: -1,
  leaf: -1,
  mem_storage: -1,
  disk_storage: -1,
  streams: -1,
  consumer: -1,
};
/** without JetStream, which the system account must not have */
const SYSTEM = { ...UNLIMITED, mem_storage: 0, disk_storage: 0, streams: 0, consumer: 0 };

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

export function makeJwtAccounts(): JwtAccounts {
  const operator = nkeys.createOperator();
  const system = nkeys.createAccount();
  const account = nkeys.createAccount();
  const user = nkeys.createUser();
  const accountJwt = (key: KeyPair, limits: object): string =>
    jwt(operator, key, { type: "account", version: 2, limits, default_permissions: { pub: {}, sub: {} } });
  const operatorJwt = jwt(operator, operator, { type: "operator", version: 2, system_account: system.getPublicKey() });
  const userJwt = jwt(account, user, { type: "user", version: 2, pub: {}, sub: {}, subs: -1, data: -1, payload: -1 });
  return {
    config: [
      `operator: ${operatorJwt}`,
      `system_account: ${system.getPublicKey()}`,
      "resolver: MEMORY",
      "resolver_preload: {",
      ` ${system.getPublicKey()}: ${accountJwt(system, SYSTEM)}`,
      ` ${account.getPublicKey()}: ${accountJwt(account, UNLIMITED)}`,
      "}",
    ].join("\n"),
    creds: [
      "-----BEGIN NATS USER JWT-----",
      userJwt,
      "------END NATS USER JWT------",
      "",
      "-----BEGIN USER NKEY SEED-----",
      text(user.getSeed()),
      "------END USER NKEY SEED------",
      "",
    ].join("\n"),
  };
}

function jwt(issuer: KeyPair, subject: KeyPair, nats: object): string {
  const claims = {
    jti: "test",
    iat: Math.floor(Date.now() / 1_000),
    iss: issuer.getPublicKey(),
    name: "test",
    sub: subject.getPublicKey(),
    nats,
  };
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ typ: "JWT", alg: "ed25519-nkey" })}.${part(claims)}`;
  return `${signed}.${Buffer.from(issuer.sign(new TextEncoder().encode(signed))).toString("base64url")}`;
}
