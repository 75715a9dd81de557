/** Looks into an executable, for another machine too: what it runs on, and that nats-server is whole in it. */
import { Buffer } from "node:buffer";
import type { Target } from "./targets.ts";

/** e_machine of ELF, cputype of Mach-O, Machine of PE */
const MACHINES = {
  elf: { x64: 0x3e, arm64: 0xb7 },
  macho: { x64: 0x01000007, arm64: 0x0100000c },
  pe: { x64: 0x8664, arm64: 0xaa64 },
} as const;
const FORMATS: Readonly<Record<string, keyof typeof MACHINES>> = { linux: "elf", darwin: "macho", win32: "pe" };
/** where the DOS header of a PE file says that its own begins */
const PE_HEADER_AT = 0x3c;
/** program headers of ELF64: where, their size, their number; the kind that names the loader */
const ELF_PROGRAM_HEADERS_AT = 0x20;
const ELF_HEADER_SIZE_AT = 0x36;
const ELF_INTERPRETER = 3;

/** @throws Error when it is not an executable for the target with this nats-server inside */
export function checkExecutable(
  program: Uint8Array,
  target: Target,
  natsServer: Uint8Array,
  record: { readonly sha256: string },
): void {
  const bytes = Buffer.from(program.buffer, program.byteOffset, program.length);
  const wrong = wrongMachine(bytes, target) ?? wrongContent(bytes, natsServer, record.sha256);
  if (wrong !== undefined) throw new Error(`Cannot use what was built for ${target.name}: ${wrong}.`);
}

function wrongMachine(bytes: Buffer, target: Target): string | undefined {
  const format = FORMATS[target.platform];
  const found = machineOf(bytes);
  const wanted = format === undefined ? undefined : MACHINES[format][target.arch === "arm64" ? "arm64" : "x64"];
  if (found?.format !== format || found?.machine !== wanted) {
    return `it is ${
      found === undefined ? "no executable" : `${found.format} for machine 0x${found.machine.toString(16)}`
    }`;
  }
  if (format !== "elf") return undefined;
  const loader = elfLoader(bytes);
  const musl = loader.includes("ld-musl-");
  return musl === (target.musl === true) ? undefined : `its loader is ${loader}`;
}

function machineOf(bytes: Buffer): { format: keyof typeof MACHINES; machine: number } | undefined {
  const magic = bytes.readUInt32LE(0);
  if (magic === 0x464c457f) return { format: "elf", machine: bytes.readUInt16LE(0x12) };
  if (magic === 0xfeedfacf) return { format: "macho", machine: bytes.readUInt32LE(4) };
  if ((magic & 0xffff) !== 0x5a4d) return undefined;
  const header = bytes.readUInt32LE(PE_HEADER_AT);
  return { format: "pe", machine: bytes.readUInt16LE(header + 4) };
}

/** Such as /lib64/ld-linux-x86-64.so.2. */
function elfLoader(bytes: Buffer): string {
  const start = Number(bytes.readBigUInt64LE(ELF_PROGRAM_HEADERS_AT));
  const size = bytes.readUInt16LE(ELF_HEADER_SIZE_AT);
  const count = bytes.readUInt16LE(ELF_HEADER_SIZE_AT + 2);
  for (let at = start; at < start + size * count; at += size) {
    if (bytes.readUInt32LE(at) !== ELF_INTERPRETER) continue;
    const offset = Number(bytes.readBigUInt64LE(at + 8));
    const length = Number(bytes.readBigUInt64LE(at + 32));
    return bytes.toString("latin1", offset, offset + length - 1);
  }
  return "none";
}

function wrongContent(bytes: Buffer, natsServer: Uint8Array, sha256: string): string | undefined {
  if (!bytes.includes(natsServer)) return "nats-server is not whole in it";
  return bytes.includes(sha256) ? undefined : "it does not know the digest of its nats-server";
}
