import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { test } from "node:test";
import { nkeys } from "@nats-io/transport-node";
import { BrokerUnreachableError, EXIT, MarmotError } from "../src/errors.ts";
import { connectNats, type NatsOptions } from "../src/nats/connect.ts";
import { type Certificates, makeCertificates } from "./support/certificates.ts";
import { keptLog } from "./support/kept_log.ts";
import { freePort, startNatsServer } from "./support/nats.ts";
import { makeJwtAccounts } from "./support/nats_accounts.ts";
import { within } from "./support/process.ts";
import { haveProgram, type SkippableTest } from "./support/skip.ts";
import { SlowLink } from "./support/slow_link.ts";
import { type TempFolder, tempFolder } from "./support/tmp.ts";

const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** Connects and closes; @returns what the connection calls itself */
async function connects(options: NatsOptions): Promise<string> {
  const link = await connectNats(options, keptLog());
  assert.equal(link.connected, true);
  await link.close();
  assert.equal(link.connected, false);
  return link.description;
}

async function fails(options: NatsOptions): Promise<MarmotError> {
  try {
    await connects(options);
  } catch (error) {
    assert.ok(error instanceof MarmotError, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: "connected" });
}

async function refuses(options: NatsOptions, exitCode: number, pattern: RegExp): Promise<string> {
  const error = await fails(options);
  assert.match(error.message, pattern);
  assert.ok(!(error instanceof BrokerUnreachableError), error.message);
  assert.equal(error.exitCode, exitCode);
  return error.message;
}

test("user and password are accepted, from options and from the URL, and the description doesn't show them", async () => {
  await using server = await startNatsServer({ config: `authorization { user: ann, password: "p@ss/word" }` });
  const auth = { kind: "password", user: "ann", password: "p@ss/word" } as const;
  assert.equal(await connects({ urls: [server.url], auth }), `nats-server 2.14.5 at 127.0.0.1:${server.port}`);
  const url = `nats://ann:p%40ss%2Fword@127.0.0.1:${server.port}`;
  assert.equal(await connects({ urls: [url] }), `nats-server 2.14.5 at 127.0.0.1:${server.port}`);
});

test("a wrong password is refused for good, says which flags to check, and never crashes or shows it", async () => {
  await using server = await startNatsServer({ config: "authorization { user: ann, password: right }" });
  const pattern = /refuses the credentials\. Check --nats-user/;
  for (let attempt = 0; attempt < 20; attempt++) {
    const message = await refuses({ urls: [`nats://ann:hush@127.0.0.1:${server.port}`] }, EXIT.broker, pattern);
    assert.doesNotMatch(message, /hush|ann:/);
  }
  await refuses({ urls: [server.url] }, EXIT.broker, pattern);
});

test("a token is accepted, from options and from the URL", async () => {
  await using server = await startNatsServer({ config: "authorization { token: s3cret }" });
  await connects({ urls: [server.url], auth: { kind: "token", token: "s3cret" } });
  await connects({ urls: [`s3cret@127.0.0.1:${server.port}`] });
  await refuses({ urls: [server.url], auth: { kind: "token", token: "other" } }, EXIT.broker, /--nats-token-file/);
});

test("a credentials file may hold an nkey seed", async () => {
  await using folder = await tempFolder();
  const user = nkeys.createUser();
  await using server = await startNatsServer({ config: `authorization { users: [{ nkey: ${user.getPublicKey()} }] }` });
  const file = folder.file("seed");
  await writeFile(file, `# made by nk\n${decode(user.getSeed())}\n`);
  await connects({ urls: [server.url], auth: { kind: "credentials", file } });
  await writeFile(file, decode(nkeys.createUser().getSeed()));
  await refuses({ urls: [server.url], auth: { kind: "credentials", file } }, EXIT.broker, /--nats-credentials/);
});

test("a credentials file may hold a user JWT", async () => {
  await using folder = await tempFolder();
  const accounts = makeJwtAccounts();
  await using server = await startNatsServer({ config: accounts.config });
  const file = folder.file("user.creds");
  await writeFile(file, accounts.creds);
  await connects({ urls: [server.url], auth: { kind: "credentials", file } });
  await writeFile(file, makeJwtAccounts().creds);
  await refuses({ urls: [server.url], auth: { kind: "credentials", file } }, EXIT.broker, /refuses the credentials/);
});

test("a credentials file that is missing, damaged or something else is a usage error that doesn't show its content", async () => {
  await using folder = await tempFolder();
  const file = folder.file("credentials");
  const options: NatsOptions = { urls: ["nats://127.0.0.1:1"], auth: { kind: "credentials", file } };
  await refuses(options, EXIT.usage, /ENOENT.*--nats-credentials/);
  const seed = decode(nkeys.createUser().getSeed());
  for (
    const content of ["", "password", seed.slice(0, 40), `${seed.slice(0, -4)}AAAA`, "-----BEGIN NATS USER JWT-----\nx"]
  ) {
    await writeFile(file, content);
    const message = await refuses(options, EXIT.usage, /Cannot use the credentials file/);
    assert.ok(content === "" || !message.includes(content));
  }
});

async function certificates(context: SkippableTest, folder: TempFolder): Promise<Certificates | undefined> {
  if (!await haveProgram(context, ["openssl", "version"])) return undefined;
  return await makeCertificates(folder);
}

test("TLS is verified with the given CA, by name and by address, and refused with another or none", async (context) => {
  await using folder = await tempFolder();
  const made = await certificates(context, folder);
  if (made === undefined) return;
  const { cert, key } = made.server;
  await using server = await startNatsServer({ config: `tls { cert_file: "${cert}", key_file: "${key}" }` });
  await connects({ urls: [`tls://localhost:${server.port}`], tls: { caFile: made.ca } });
  await connects({ urls: [server.url], tls: { caFile: made.ca } });
  await refuses({ urls: [server.url], tls: { caFile: made.otherCa } }, EXIT.broker, /not signed by a CA.*--nats-ca/);
  await refuses({ urls: [server.url] }, EXIT.broker, /not signed by a CA.*--nats-ca/);
});

test("a certificate for another name is refused, also when an address was called", async (context) => {
  await using folder = await tempFolder();
  const made = await certificates(context, folder);
  if (made === undefined) return;
  const { cert, key } = made.otherName;
  await using server = await startNatsServer({ config: `tls { cert_file: "${cert}", key_file: "${key}" }` });
  for (const host of ["localhost", "127.0.0.1"]) {
    const options = { urls: [`${host}:${server.port}`], tls: { caFile: made.ca } };
    await refuses(options, EXIT.broker, /for another name.*--nats-url/);
  }
});

test("a client certificate is shown to a server that wants one", async (context) => {
  await using folder = await tempFolder();
  const made = await certificates(context, folder);
  if (made === undefined) return;
  const { cert, key } = made.server;
  const config = `tls { cert_file: "${cert}", key_file: "${key}", ca_file: "${made.ca}", verify: true }`;
  await using server = await startNatsServer({ config });
  const tls = { caFile: made.ca, certFile: made.client.cert, keyFile: made.client.key };
  await connects({ urls: [server.url], tls });
  await refuses(
    { urls: [server.url], tls: { certFile: made.client.cert } },
    EXIT.usage,
    /both --nats-cert and --nats-key/,
  );
  await refuses({ urls: [server.url], tls: { caFile: made.client.key } }, EXIT.usage, /no certificate.*--nats-ca/);
});

test("certificates that were renewed in place, with another CA too, are used at the next connection", async (context) => {
  await using folder = await tempFolder();
  const made = await certificates(context, folder);
  if (made === undefined) return;
  const { cert, key } = made.server;
  const config = `tls { cert_file: "${cert}", key_file: "${key}", ca_file: "${made.ca}", verify: true }`;
  await using server = await startNatsServer({ config });
  const tls = { caFile: made.ca, certFile: made.client.cert, keyFile: made.client.key };
  const link = await connectNats({ urls: [server.url], tls }, keptLog());
  const back = new Promise<void>((resolve) => link.onChange((connected) => connected && resolve()));
  await server.stop();
  await makeCertificates(folder);
  await server.restart();
  await within(10_000, back, () => "it is not back");
  await link.close();
});

test("TLS that was asked for is never left out", async () => {
  await using server = await startNatsServer();
  const url = `tls://127.0.0.1:${server.port}`;
  await refuses({ urls: [url] }, EXIT.broker, /offers no TLS/);
});

test("a server without JetStream is named as such, with its version and the one wanted", async () => {
  await using server = await startNatsServer({ jetstream: false });
  await refuses({ urls: [server.url] }, EXIT.broker, /version 2\.14\.5\).*no JetStream.*2\.11\.0 or newer/);
});

test("a server that is too old is named with its version and the one wanted", async () => {
  await using server = await pretendServer("2.10.29");
  await refuses({ urls: [server.url] }, EXIT.broker, /version 2\.10\.29, and 2\.11\.0 or newer is wanted/);
});

test("a server whose messages are too small is named with its limit and the one wanted", async () => {
  await using server = await startNatsServer({ config: "max_payload: 1024" });
  await refuses({ urls: [server.url] }, EXIT.broker, /may have 1024 bytes, and 16384 are wanted/);
});

test("a server that refuses us for a while is said once, not at every try, and connected to again afterwards", async () => {
  const users = (password: string) => `authorization { user: ann, password: ${password} }`;
  await using server = await startNatsServer({ config: users("right") });
  const log = keptLog();
  const link = await connectNats({ urls: [`nats://ann:right@127.0.0.1:${server.port}`] }, log);
  let attempts = 0;
  const several = new Promise<void>((resolve) => {
    void (async () => {
      for await (const { type } of link.connection.status()) if (type === "error" && ++attempts === 5) resolve();
    })();
  });
  const back = new Promise<void>((resolve) => link.onChange((connected) => connected && resolve()));
  await server.restart(users("other"));
  await within(20_000, several, () => `${attempts} attempts`);
  await server.restart(users("right"));
  await within(20_000, back, () => "it is not back");
  await link.close();
  const said = log.entries.map(({ message }) => message);
  assert.deepEqual(said, [
    "Connection to NATS lost, trying to get it back",
    "NATS server reports an error",
    "Connection to NATS is back",
  ]);
});

test("what answers but is no NATS server is refused", async () => {
  await using server = await pretendServer(undefined);
  await refuses({ urls: [server.url] }, EXIT.broker, /no NATS server\. Check host and port/);
});

test("a server that can't be reached may be tried again; one of several that works is enough", async () => {
  const nobody = `nats://127.0.0.1:${await freePort()}`;
  const error = await fails({ urls: [nobody] });
  assert.ok(error instanceof BrokerUnreachableError);
  assert.match(error.message, /127\.0\.0\.1:\d+: nothing listens there\. Start the server, or check --nats-url/);
  assert.ok(await fails({ urls: ["nobody.invalid"] }) instanceof BrokerUnreachableError);
  await using server = await startNatsServer({ config: "authorization { user: ann, password: right }" });
  await connects({ urls: [nobody, server.url], auth: { kind: "password", user: "ann", password: "right" } });
  const wrong = { kind: "password", user: "ann", password: "wrong" } as const;
  await refuses({ urls: [nobody, server.url], auth: wrong }, EXIT.broker, /nothing listens there; .*refuses the cred/);
});

test("addresses that can't be right are usage errors without the password", async () => {
  const bad = [
    "",
    "http://h:4222",
    "nats://",
    "nats://u:hush@h:99999",
    "nats://u:hush@h/path",
    "nats://u:hush@",
    "u:%zz@h",
  ];
  for (const url of bad) {
    const message = await refuses({ urls: [url] }, EXIT.usage, /Cannot use the NATS address/);
    assert.doesNotMatch(message, /hush|zz/);
  }
  await refuses({ urls: [] }, EXIT.usage, /--nats-url/);
  await refuses({ urls: ["a:b@h", "c:d@i"] }, EXIT.usage, /different users/);
});

test("a connection tells when it is lost and when it is back", async () => {
  await using server = await startNatsServer();
  const link = await connectNats({ urls: [server.url] }, keptLog());
  const changes: boolean[] = [];
  let changed = () => {};
  link.onChange((connected) => {
    changes.push(connected);
    changed();
  });
  const next = () => new Promise<void>((resolve) => changed = resolve);
  const lost = next();
  const pending = assert.rejects(link.request(() => new Promise(() => {})), BrokerUnreachableError);
  await server.kill();
  await lost;
  await pending;
  assert.equal(link.connected, false);
  await assert.rejects(link.request(() => Promise.resolve(1)), BrokerUnreachableError);
  const back = next();
  await server.restart();
  await back;
  assert.equal(await link.request(() => Promise.resolve(1)), 1);
  await link.close();
  assert.deepEqual(changes, [false, true, false]);
});

test("a link that dies without a word, with much on its way, is given up within seconds", async () => {
  await using server = await startNatsServer();
  await using way = await SlowLink.to(server.port, 100_000_000);
  const link = await connectNats({ urls: [way.url] }, keptLog());
  const back = new Promise<void>((resolve) => link.onChange((connected) => connected && resolve()));
  way.goDead();
  const megabyte = new Uint8Array(1_000_000);
  for (let sent = 0; sent < 40; sent++) link.connection.publish("anything", megabyte);
  await within(10_000, back, () => "it is not back");
  await link.close();
});

/** A server that says hello as a NATS server of that version would, or as no NATS server at all. */
async function pretendServer(version: string | undefined): Promise<AsyncDisposable & { url: string }> {
  const hello = version === undefined
    ? "HTTP/1.1 400 Bad Request\r\n\r\n"
    : `INFO ${JSON.stringify({ server_id: "x", version, proto: 1, headers: true, max_payload: 1_048_576 })}\r\n`;
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (data) => data.includes("PING") ? socket.write("PONG\r\n") : undefined);
    socket.write(hello);
  });
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return {
    url: `nats://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
