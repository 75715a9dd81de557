import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parse as parseToml } from "smol-toml";
import * as v from "valibot";
import { OPTIONS } from "../src/config.ts";
import { describeOrigin, secretOrigins } from "../src/config/effective.ts";
import { type ConfigSources, loadConfig } from "../src/config/layers.ts";
import { printConfig, printTemplate } from "../src/config/print.ts";
import { suggest } from "../src/config/suggest.ts";
import { formatDuration, formatSize, parseDuration, parseServerUrl, parseSize } from "../src/config/values.ts";
import { EXIT, MarmotError } from "../src/errors.ts";

function load(sources: Partial<ConfigSources> & { toml?: string } = {}) {
  const { toml, ...rest } = sources;
  const file = toml === undefined ? {} : { file: { path: "/etc/marmot.toml", text: toml } };
  return loadConfig({ flags: {}, variables: {}, directory: "/work", ...file, ...rest });
}

/** The message of a configuration that must be refused. */
function refusal(sources: Parameters<typeof load>[0]): string {
  try {
    load(sources);
  } catch (error) {
    assert.ok(error instanceof MarmotError, String(error));
    assert.equal(error.exitCode, EXIT.usage);
    return error.message;
  }
  return assert.fail("this configuration was accepted");
}

test("flags win over variables, variables over the file, the file over defaults", () => {
  const toml = `stream_prefix = "file"\nsubject_prefix = "file"\nlog_level = "warn"\n`;
  const variables = { MARMOT_STREAM_PREFIX: "variable", MARMOT_SUBJECT_PREFIX: "variable", HOME: "/root" };
  const { config, origins } = load({ toml, variables, flags: { streamPrefix: "flag" } });
  assert.equal(config.streamPrefix, "flag");
  assert.equal(config.subjectPrefix, "variable");
  assert.equal(config.logLevel, "warn");
  assert.equal(config.logFormat, "text");
  assert.equal(describeOrigin(origins.get("streamPrefix")), "--stream-prefix");
  assert.equal(describeOrigin(origins.get("subjectPrefix")), "MARMOT_SUBJECT_PREFIX");
  assert.equal(describeOrigin(origins.get("logLevel")), "/etc/marmot.toml line 3");
  assert.equal(describeOrigin(origins.get("logFormat")), "default");
});

test("a flag takes back what the file or a variable switched on", () => {
  assert.equal(load({ toml: "wal = true", flags: { wal: false } }).config.wal, false);
  assert.equal(load({ toml: "wal = true", variables: { MARMOT_WAL: "0" } }).config.wal, false);
  assert.equal(load({ variables: { MARMOT_WAL: "true" } }).config.wal, true);
});

test("an empty variable counts as not set", () => {
  assert.equal(load({ variables: { MARMOT_SHARDS: "", MARMOT_NATS_USER: "" } }).config.shards, 1);
});

test("variables that Kubernetes makes of services called marmot are left alone", () => {
  const variables = {
    MARMOT_SERVICE_HOST: "10.0.0.1",
    MARMOT_SERVICE_PORT: "4222",
    MARMOT_PORT: "tcp://10.0.0.1:4222",
    MARMOT_NATS_SERVICE_PORT_CLIENT: "4222",
    MARMOT_NATS_PORT_4222_TCP: "tcp://10.0.0.1:4222",
    MARMOT_NATS_PORT_4222_TCP_ADDR: "10.0.0.1",
    MARMOT_SHARDS: "2",
  };
  assert.equal(load({ variables }).config.shards, 2);
});

test("paths in the file start at the file, other paths at the working directory", () => {
  const { config } = load({ toml: `db_path = "data/a b.db"\nnats_server = "/bin/nats-server"` });
  assert.equal(config.dbPath, "/etc/data/a b.db");
  assert.equal(config.natsServer, "/bin/nats-server");
  assert.equal(load({ flags: { dbPath: "my.db" } }).config.dbPath, "/work/my.db");
});

test("lists come from repeated flags, from commas in variables, and from one text in the file", () => {
  assert.deepEqual(load({ flags: { include: ["a,b", "c"] } }).config.include, ["a,b", "c"]);
  assert.deepEqual(load({ flags: { natsUrl: ["nats://a,nats://b:1", "c"] } }).config.natsUrl, [
    "nats://a",
    "nats://b:1",
    "c",
  ]);
  assert.deepEqual(load({ variables: { MARMOT_INCLUDE: "a, b" } }).config.include, ["a", "b"]);
  assert.deepEqual(load({ toml: `include = "a,b"` }).config.include, ["a,b"]);
});

test("an unknown key, variable or value names its place, the value and what is allowed, all at once", () => {
  const message = refusal({
    toml: [
      "retention_age = 90",
      "retension_bytes = 5",
      "stream_prefix = '''",
      "shards=3",
      "'''",
      "  shards = 3.5",
      "[natz_url]",
      "x = 1",
    ].join("\n"),
    variables: { MARMOT_DB_PAHT: "x", MARMOT_CREATE: "maybe" },
    flags: { replicas: "0", logLevel: "loud" },
  });
  const expected = [
    "retension_bytes in /etc/marmot.toml, line 2, column 1: there is no such option. Did you mean retention_bytes?",
    "natz_url in /etc/marmot.toml, line 7, column 2: there is no such option. Did you mean nats_url?",
    "the variable MARMOT_DB_PAHT: Marmot has none of that name. Did you mean MARMOT_DB_PATH?",
    "retention_age = 90 in /etc/marmot.toml, line 1, column 1: it must be a duration from 1m to 3650d, " +
    "written like 7d, 12h, 30m, 45s or 500ms.",
    'stream_prefix = "shards=3\\n" in /etc/marmot.toml, line 3, column 1: ' +
    "it must be 1 to 32 letters, digits, dashes or underscores.",
    "shards = 3.5 in /etc/marmot.toml, line 6, column 3: it must be a whole number from 1 to 256.",
    "the variable MARMOT_CREATE=maybe: it must be true or false.",
    "--replicas 0: it must be a whole number from 1 to 5.",
    "--log-level loud: it must be one of debug, info, warn, error.",
  ];
  assert.deepEqual(message.split("\n"), expected.map((line) => `Cannot use ${line}`));
});

test("a TOML error names file, line and column, and no text of the file", () => {
  const message = refusal({ toml: `nats_user = "u"\nnats_password = "geheim\nshards = 1` });
  assert.match(message, /^Cannot read \/etc\/marmot\.toml, line 2, column \d+: .+\.$/);
  assert.doesNotMatch(message, /geheim/);
});

test("wrong types and ranges of every option are refused", () => {
  for (const option of OPTIONS.filter((option) => !option.noFile)) {
    const wrong = { flag: ['"yes"', "1"], number: ["0", "-1", "1e9", '"1"', "1.5"], list: ["1", "[1]", '[""]'] };
    const texts = {
      text: ["1", "true", '""'],
      duration: ["7", '"7"', '"0s"', '"9999d"'],
      size: ["-5", '"4 eggs"', "true"],
    };
    for (const value of { ...wrong, ...texts }[option.kind]) {
      assert.match(
        refusal({ toml: `${option.tomlKey} = ${value}` }),
        new RegExp(`${option.tomlKey}.* line 1, .*must be`),
      );
    }
  }
});

test("addresses and names that NATS would not take are refused", () => {
  const wrong: Record<string, string[]> = {
    nats_url: ["http://a", "nats://", "nats://a:99999", "a b"],
    listen: ["4222", "localhost", "1.2.3.4:70000", "1.2.3.4:0", "::1:4222"],
    stream_prefix: ["a.b", "a b", "*", ">"],
    subject_prefix: ["a..b", ".a", "a.*", "a.>", "a b"],
  };
  for (const [key, values] of Object.entries(wrong)) {
    for (const value of values) {
      assert.match(refusal({ toml: `${key} = "${value}"` }), new RegExp(`Cannot use ${key} = `));
    }
  }
});

test("a user and password, or a token, in nats_url become options of their own", () => {
  const { config, origins } = load({ flags: { natsUrl: ["nats://joe:p%40ss@a:1,tls://b:2"] } });
  assert.deepEqual(config.natsUrl, ["nats://a:1", "tls://b:2"]);
  assert.equal(config.natsUser, "joe");
  assert.equal(config.natsPassword, "p@ss");
  assert.equal(describeOrigin(origins.get("natsPassword")), "--nats-url");
  assert.equal(load({ toml: `nats_url = "nats://t0ken@a"` }).config.natsToken, "t0ken");
});

test("settings that contradict each other, or need another, are refused", () => {
  const url = `nats_url = "nats://a"\n`;
  const cases: [string, RegExp][] = [
    [`${url}nats_user = "u"`, /nats_user \(\/etc\/marmot.toml line 2\) without a password/],
    [`${url}nats_password = "p"`, /without a user/],
    [`${url}nats_user = "u"\nnats_password = "p"\nnats_token = "t"`, /one way to authenticate/],
    [`${url}nats_user = "u"\nnats_password = "p"\nnats_password_file = "t"`, /one way to authenticate/],
    [`nats_url = "nats://u:p@a"\nnats_token = "t"`, /with a user in it together with nats_token/],
    [`nats_url = ["nats://u:p@a", "nats://v:p@b"]`, /different users/],
    [`${url}nats_cert = "c"`, /nats_cert .* alone: give nats_key/],
    [`nats_ca = "c"`, /no nats_url is given/],
    [`${url}listen = "127.0.0.1:1"`, /for the embedded broker/],
    [`${url}cluster_addr = "127.0.0.1:1"`, /for the embedded broker/],
    [`nats_credentials = "c"`, /neither nats_url nor leaf_url is given/],
    [`replicas = 3`, /one embedded broker stores one replica/],
    [`cluster_peers = "nats://b:1"`, /give cluster_addr with it/],
  ];
  for (const [toml, expected] of cases) assert.match(refusal({ toml }), expected);
});

test("no message about a setting shows a secret", () => {
  const wrong = [
    refusal({ toml: `nats_url = "nats://a"\nnats_password = ["geheim"]` }),
    refusal({ toml: `nats_url = ["http://joe:geheim@a"]` }),
    refusal({ flags: { natsUrl: ["http://joe:geheim@a"] } }),
    refusal({ variables: { MARMOT_NATS_URL: "nats://joe:geheim@a b" } }),
    refusal({ variables: { MARMOT_NATS_TOKEN: "geheim" } }),
  ];
  for (const message of wrong) assert.doesNotMatch(message, /geheim/);
});

test("the effective configuration is printed without secrets, loads again, and gives the same values", () => {
  const effective = load({
    toml: `nats_url = "nats://joe:geheim@a"\nnats_ca = "ca.pem"\nretention_bytes = 5000000\nretention_age = "90s"`,
    variables: { MARMOT_DB_PATH: 'a "b".db', MARMOT_SHARDS: "3" },
    flags: { exclude: ["x'y", "ü"] },
  });
  const printed = printConfig(effective);
  assert.doesNotMatch(printed, /geheim/);
  assert.match(printed, /^shards = 3 # MARMOT_SHARDS$/m);
  assert.match(printed, /^retention_bytes = "5MB" # \/etc\/marmot.toml line 3$/m);
  assert.match(printed, /^create = false # default$/m);
  assert.match(printed, /^# nats_password is set, and hidden here # \/etc\/marmot.toml line 1$/m);
  const again = load({ toml: printed, variables: { MARMOT_NATS_PASSWORD: "geheim" } });
  assert.deepEqual(again.config, effective.config);
  for (const option of OPTIONS) assert.match(printed, new RegExp(`^(# )?${option.tomlKey} `, "m"));
});

test("every address with a password in it is printed without", () => {
  const printed = printConfig(load({ toml: `leaf_url = "nats-leaf://joe:geheim@hub:7422"` }));
  assert.doesNotMatch(printed, /geheim/);
  assert.match(printed, /^leaf_url = \[ "nats-leaf:\/\/hub:7422" \] # .*hidden here$/m);
});

test("it is known which source brought a secret", () => {
  const origins = secretOrigins(load({ toml: `leaf_url = "nats-leaf://joe:geheim@hub:7422"` }));
  assert.deepEqual(origins.map(describeOrigin), ["/etc/marmot.toml line 1"]);
  assert.deepEqual(secretOrigins(load({ toml: `leaf_url = "nats-leaf://hub:7422"\nnats_credentials = "x"` })), []);
});

test("docs/config.toml loads, and names every option and its default", () => {
  const text = readFileSync(new URL("../docs/config.toml", import.meta.url), "utf8");
  assert.equal(text, printTemplate(), "write it anew: marmot config --template > docs/config.toml");
  assert.deepEqual(load({ toml: text }).config, load().config);
  const lines = text.split("\n").filter((line) => /^#\w/.test(line)).map((line) => line.slice(1));
  const options = OPTIONS.filter((option) => !option.noFile);
  assert.equal(lines.length, options.length);
  for (const [index, option] of options.entries()) {
    const value = parseToml(lines[index] ?? "")[option.tomlKey];
    assert.ok(v.is(option.schema, value), lines[index]);
    if (option.default !== undefined) assert.deepEqual(value, option.default);
  }
});

test("durations and sizes are read exactly, and written in their shortest form", () => {
  const durations = { "7d": 604_800_000, "12h": 43_200_000, "90m": 5_400_000, "45s": 45_000, "500ms": 500 };
  for (const [text, ms] of Object.entries(durations)) {
    assert.equal(parseDuration(text), ms);
    assert.equal(formatDuration(ms), text);
  }
  const sizes = { "4GiB": 2 ** 32, "512MB": 512e6, "1B": 1, "1500KB": 1.5e6, "3KiB": 3072 };
  for (const [text, bytes] of Object.entries(sizes)) {
    assert.equal(parseSize(text), bytes);
    assert.equal(formatSize(bytes), text);
  }
  assert.equal(parseSize("1048576"), 1048576);
  assert.equal(parseSize("4gib"), 2 ** 32);
  for (const text of ["", "7", "d", "-7d", "7 days", "1.5h", "7d12h"]) {
    assert.equal(parseDuration(text), undefined, text);
  }
  for (const text of ["", "GiB", "-1GB", "1.5GiB", "4 eggs", "4G"]) assert.equal(parseSize(text), undefined, text);
});

test("an address keeps user and password apart, percent signs decoded", () => {
  assert.deepEqual(parseServerUrl("nats://j:a%3Ab:c@[::1]:4222/"), {
    url: "nats://[::1]:4222",
    user: "j",
    password: "a:b:c",
  });
  assert.deepEqual(parseServerUrl("host.example"), { url: "host.example" });
  assert.equal(parseServerUrl("nats://a/b"), undefined);
  assert.equal(parseServerUrl("tls://a", ["nats"]), undefined);
});

test("a slip of the hand is recognised, something else is not", () => {
  const names = ["db-path", "shards", "nats-url", "log-level", "include"];
  const slips = { "db-pth": "db-path", dbpath: "db-path", db: "db-path", shrads: "shards", "nast-url": "nats-url" };
  for (const [slip, name] of Object.entries(slips)) assert.equal(suggest(slip, names), name);
  for (const other of ["frobnicate", "x", "colour"]) assert.equal(suggest(other, names), undefined, other);
});
