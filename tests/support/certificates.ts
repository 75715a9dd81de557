/** Certificates for TLS tests, made with openssl. */
import { runProgram } from "./process.ts";
import type { TempFolder } from "./tmp.ts";

export interface Certificates {
  readonly ca: string;
  /** another CA, which signed nothing here */
  readonly otherCa: string;
  readonly server: CertificateFiles;
  /** for a name that is not this machine's */
  readonly otherName: CertificateFiles;
  readonly client: CertificateFiles;
}

export interface CertificateFiles {
  readonly cert: string;
  readonly key: string;
}

const HERE = "subjectAltName=DNS:localhost,IP:127.0.0.1";
const ELSEWHERE = "subjectAltName=DNS:elsewhere.example";

export async function makeCertificates(folder: TempFolder): Promise<Certificates> {
  const ca = await makeCa(folder, "ca");
  const otherCa = await makeCa(folder, "other-ca");
  return {
    ca: ca.cert,
    otherCa: otherCa.cert,
    server: await makeLeaf(folder, "server", ca, HERE),
    otherName: await makeLeaf(folder, "other-name", ca, ELSEWHERE),
    client: await makeLeaf(folder, "client", ca, "subjectAltName=DNS:client"),
  };
}

async function makeCa(folder: TempFolder, name: string): Promise<CertificateFiles> {
  const files = filesOf(folder, name);
  await openssl(["req", "-x509", "-subj", `/CN=${name}`, ...keyOptions(files), "-out", files.cert]);
  return files;
}

async function makeLeaf(
  folder: TempFolder,
  name: string,
  ca: CertificateFiles,
  altName: string,
): Promise<CertificateFiles> {
  const files = filesOf(folder, name);
  const usage = "extendedKeyUsage=serverAuth,clientAuth";
  await openssl([
    ...["req", "-x509", "-subj", `/CN=${name}`, "-CA", ca.cert, "-CAkey", ca.key],
    ...["-addext", altName, "-addext", "basicConstraints=critical,CA:FALSE", "-addext", usage],
    ...keyOptions(files),
    ...["-out", files.cert],
  ]);
  return files;
}

function filesOf(folder: TempFolder, name: string): CertificateFiles {
  return { cert: folder.file(`${name}.crt`), key: folder.file(`${name}.key`) };
}

function keyOptions({ key }: CertificateFiles): string[] {
  return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-keyout", key];
}

async function openssl(args: string[]): Promise<void> {
  const { code, stderr } = await runProgram(["openssl", ...args]);
  if (code !== 0) throw new Error(`openssl ${args.join(" ")}: ${stderr}`);
}
