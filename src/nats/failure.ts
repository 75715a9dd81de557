/** What went wrong with a broker, in words, and whether trying again can help. */
import { JetStreamApiError } from "@nats-io/jetstream";
import { errors } from "@nats-io/transport-node";
import { BrokerUnreachableError, EXIT, MarmotError } from "../errors.ts";

/** JetStream's numbers for errors (nats-server's errors.json). */
export const JETSTREAM = {
  noSuitablePeers: 10005,
  unavailable: 10008,
  accountResources: 10002,
  insufficientResources: 10023,
  insufficientMemory: 10028,
  messageNotFound: 10037,
  notEnabledForAccount: 10039,
  insufficientStorage: 10047,
  nameInUse: 10058,
  streamNotFound: 10059,
  subjectOverlap: 10065,
  wrongLastSequence: 10071,
  replicasNeedCluster: 10074,
  notEnabled: 10076,
  streamOffline: 10118,
  accountStreamBytes: 10122,
  wrongLastSequenceUnknown: 10164,
  ttlDisabled: 10166,
  tooManyRequests: 10167,
} as const;

/** Answers that a cluster gives while it forms, elects or is short of nodes. */
const PASSING = new Set<number>([
  JETSTREAM.noSuitablePeers,
  JETSTREAM.unavailable,
  JETSTREAM.streamOffline,
  JETSTREAM.tooManyRequests,
]);

const UNTRUSTED =
  /unknown ?issuer|self[- _]?signed|unable.to.(verify|get).*(certificate|issuer|leaf)|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|certificate verify failed|invalid peer certificate/i;
const OTHER_NAME = /altname|NotValidForName|not valid for name|hostname|does not match certificate/i;
const EXPIRED = /CERT_HAS_EXPIRED|certificate has expired|: Expired/i;
const CLIENT_CERTIFICATE = /certificate.?required|bad.?certificate|unknown.?ca\b|alert/i;
const TLS = /\b(tls|ssl|handshake|certificate)\b/i;
const NOT_FOUND = /ENOTFOUND|EAI_AGAIN|getaddrinfo|dns error|failed to lookup/i;

export interface Failure {
  /** trying again won't help before someone changes something */
  readonly refused: boolean;
  readonly state: string;
  readonly advice: string;
}

/** The code of a JetStream answer, or undefined for any other error. */
export function jetStreamCode(error: unknown): number | undefined {
  return error instanceof JetStreamApiError ? error.code : undefined;
}

/** All texts of an error and its causes: nats.js and the runtimes put the reason in different places. */
function textOf(error: unknown): string {
  const texts: string[] = [];
  for (let e: unknown = error; e instanceof Error && texts.length < 10; e = e.cause) {
    texts.push(e.message, "code" in e ? String(e.code) : "");
  }
  return texts.length > 0 ? texts.filter((text) => text !== "").join(": ") : String(error);
}

/** Why a server could not be connected to. */
export function connectFailure(error: unknown): Failure {
  if (error instanceof errors.AuthorizationError || error instanceof errors.UserAuthenticationExpiredError) {
    return authFailure(error);
  }
  const text = textOf(error);
  const refused = (state: string, advice: string): Failure => ({ refused: true, state, advice });
  const away = (state: string, advice: string): Failure => ({ refused: false, state, advice });
  if (/does not support 'tls'|'tls' is not available/.test(text)) {
    return refused("the server offers no TLS", "Turn TLS on in the server, or give neither tls:// nor --nats-ca.");
  }
  if (/unexpected response from server/.test(text)) {
    return refused("what answers there is no NATS server", "Check host and port of --nats-url.");
  }
  if (EXPIRED.test(text)) return refused("the server's certificate has expired", "Renew it on the server.");
  if (OTHER_NAME.test(text)) {
    return refused("the server's certificate is for another name", "Give in --nats-url a name the certificate holds.");
  }
  if (UNTRUSTED.test(text)) {
    return refused(
      "the server's certificate is not signed by a CA that is trusted here",
      "Give the CA's certificate with --nats-ca.",
    );
  }
  if (CLIENT_CERTIFICATE.test(text)) {
    return refused(
      "the server did not accept the TLS handshake; it may want a client certificate",
      "Give one that it trusts with --nats-cert and --nats-key.",
    );
  }
  if (/refused/i.test(text)) return away("nothing listens there", "Start the server, or check --nats-url.");
  if (NOT_FOUND.test(text)) return away("the host name is not known", "Check --nats-url and the name service.");
  if (error instanceof errors.TimeoutError || /timeout|timed? ?out/i.test(text)) {
    return away("no answer in time", "Check --nats-url, the network, its firewalls and, with TLS, --nats-cert.");
  }
  if (TLS.test(text)) return refused(`TLS failed (${text})`, "Check --nats-ca, --nats-cert and --nats-key.");
  return away(text === "" ? "the connection was closed" : text, "Check --nats-url and the server's log.");
}

function authFailure(error: Error): Failure {
  if (/timeout/i.test(error.message)) {
    return { refused: false, state: "the server did not check the credentials in time", advice: "Try again." };
  }
  return {
    refused: true,
    state: /expired/i.test(error.message) ? "the credentials have expired" : "the server refuses the credentials",
    advice: "Check --nats-user and --nats-password-file, --nats-token-file or --nats-credentials.",
  };
}

/**
 * The error for the user when JetStream does not do what was asked while a node starts.
 * @param verb what was tried, as "create the stream orders-1"
 */
export function jetStreamFailure(verb: string, error: unknown): MarmotError {
  if (error instanceof MarmotError) return error;
  const code = jetStreamCode(error);
  const options = { cause: error };
  const refused = (state: string): MarmotError => new MarmotError(`Cannot ${verb}: ${state}`, EXIT.broker, options);
  if (code === JETSTREAM.replicasNeedCluster) {
    return refused(
      "the server is not part of a cluster, so it can't keep several replicas. Give --replicas 1, or run a cluster.",
    );
  }
  if (code === JETSTREAM.insufficientStorage || code === JETSTREAM.insufficientResources) {
    return refused(
      "JetStream has not enough storage left. Give a smaller --retention-bytes, or more room to the server.",
    );
  }
  if (code === JETSTREAM.accountResources || code === JETSTREAM.accountStreamBytes) {
    return refused(
      "a limit of the NATS account is exceeded. Give a smaller --retention-bytes, or raise the account's limits.",
    );
  }
  if (code === JETSTREAM.notEnabled || code === JETSTREAM.notEnabledForAccount) {
    return refused("JetStream is not enabled. Enable it on the server and for this account.");
  }
  if (code !== undefined && PASSING.has(code)) {
    return new BrokerUnreachableError(
      `Cannot ${verb}: ${
        textOf(error)
      }. Check that enough nodes of the NATS cluster run (--replicas); it can be tried again.`,
      options,
    );
  }
  if (code !== undefined) return refused(`${textOf(error)}. Check the server's log.`);
  const denied = permissionDenied(error);
  if (denied !== undefined) {
    return refused(
      `the NATS user may not use ${denied}. Allow it $JS.API.>, $KV.>, the subjects of the streams and _INBOX.>.`,
    );
  }
  return new BrokerUnreachableError(
    `Cannot ${verb}: ${connectFailure(error).state}. Check the NATS server; it can be tried again.`,
    options,
  );
}

export function permissionDenied(error: unknown): string | undefined {
  for (let e: unknown = error; e instanceof Error; e = e.cause) {
    if (e instanceof errors.PermissionViolationError) return e.subject;
  }
  return undefined;
}
