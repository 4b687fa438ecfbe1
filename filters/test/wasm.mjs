// Reads the sections of a module that the rules of ABI.md section 1 are about, and gives a module the growth limits that a host
// sets. Compiles nothing. Not a validator: that is the engine's.

export const LIMITS = { moduleBytes: 1 << 20, memoryPages: 16, tableElements: 1024, bufferMin: 4096, bufferMax: 262144 };

const I32 = 0x7f, I64 = 0x7e;
const TYPES = {
  cf_buffer: [[], [I32]], cf_buffer_len: [[], [I32]], cf_configure: [[I32], [I32]], cf_on_request: [[I32], [I64]],
  cf_on_pair: [[I32], [I64]], cf_on_window: [[I32], [I64]], cf_on_record: [[I32], [I64]],
};
const IMPORTS = {
  log: [[I32, I32, I32], [I32]], counter_add: [[I32, I32, I64], [I32]], frame_read: [[I32, I32, I32, I32], [I32]],
  now_ms: [[], [I64]], random: [[], [I64]],
};
export const HOOKS = ["cf_on_request", "cf_on_pair", "cf_on_window", "cf_on_record"];

export class Refused extends Error {
  constructor(rule, sentence) { super(`${rule}: ${sentence}`); this.rule = rule; }
}

class Reader {
  constructor(bytes, at = 0) { this.bytes = bytes; this.at = at; }
  u8() { if (this.at >= this.bytes.length) throw new Refused("validate", "ends too early"); return this.bytes[this.at++]; }
  u32() {
    let value = 0, shift = 0, byte;
    do { byte = this.u8(); value += (byte & 0x7f) * 2 ** shift; shift += 7; } while (byte & 0x80);
    return value;
  }
  take(length) { this.at += length; return this.bytes.subarray(this.at - length, this.at); }
  name() { return Buffer.from(this.take(this.u32())).toString(); }
  list(item) { return Array.from({ length: this.u32() }, () => item()); }
  limits() { const flags = this.u8(); return { flags, min: this.u32(), max: flags & 1 ? this.u32() : undefined }; }
  table() { return { type: this.u8(), ...this.limits() }; }
}

const leb = (value) => { const out = []; do { out.push((value & 0x7f) | (value > 0x7f ? 0x80 : 0)); value >>>= 7; } while (value); return out; };

export function sections(bytes) {
  if (Buffer.from(bytes.subarray(0, 8)).toString("hex") !== "0061736d01000000") throw new Refused("validate", "is not a core module");
  const found = { types: [], imports: [], functions: [], tables: [], memories: [], exports: [], raw: [] };
  const reader = new Reader(bytes, 8);
  while (reader.at < bytes.length) {
    const id = reader.u8(), body = reader.take(reader.u32()), r = new Reader(body);
    found.raw.push({ id, body });
    if (id === 1) found.types = r.list(() => { r.u8(); return [r.list(() => r.u8()), r.list(() => r.u8())]; });
    if (id === 2) found.imports = r.list(() => {
      const module = r.name(), name = r.name(), kind = r.u8();
      const type = kind === 0 ? r.u32() : kind === 1 ? r.table() : kind === 2 ? r.limits() : [r.u8(), r.u8()];
      return { module, name, kind, type };
    });
    if (id === 3) found.functions = r.list(() => r.u32());
    if (id === 4) found.tables = r.list(() => r.table());
    if (id === 5) found.memories = r.list(() => r.limits());
    if (id === 7) found.exports = r.list(() => ({ name: r.name(), kind: r.u8(), index: r.u32() }));
  }
  return found;
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

// Throws Refused at the first rule that is broken, in the document's order.
export function check(bytes) {
  if (bytes.length > LIMITS.moduleBytes) throw new Refused("size", `${bytes.length} bytes; ${LIMITS.moduleBytes} are allowed`);
  if (!WebAssembly.validate(bytes)) throw new Refused("validate", "is not valid WebAssembly");
  const s = sections(bytes);
  const marker = s.exports.find((e) => e.name === "cf_abi_v1");
  if (!marker || ![0, 3].includes(marker.kind)) {
    const other = s.exports.find((e) => e.name.startsWith("cf_abi_v"));
    if (other && !marker) throw new Refused("version", `speaks ${other.name}; this host speaks cf_abi_v1`);
    throw new Refused("marker", "exports no cf_abi_v1: not a Crossfade policy");
  }
  for (const { module, name, kind, type } of s.imports) {
    if (module !== "crossfade" || !(name in IMPORTS)) throw new Refused("import", `${module}.${name} is not among the imports of a policy`);
    if (kind !== 0 || !same(s.types[type], IMPORTS[name])) throw new Refused("import", `${name} is imported with another type`);
  }
  const memory = s.exports.find((e) => e.name === "memory");
  if (!memory || memory.kind !== 2 || s.memories.length !== 1) throw new Refused("memory", "one memory, exported as memory, is needed");
  if (s.memories[0].flags > 1) throw new Refused("memory", "a shared or 64-bit memory");
  if (s.memories[0].min > LIMITS.memoryPages) throw new Refused("memory", `${s.memories[0].min} pages; ${LIMITS.memoryPages} are allowed`);
  if (s.tables.length > 1 || s.tables.some((t) => t.min > LIMITS.tableElements)) throw new Refused("table", "more than one table, or more than 1024 elements");
  const typeOf = (index) => s.types[s.functions[index - s.imports.length]];
  for (const { name, kind, index } of s.exports) {
    if (name === "cf_abi_v1" || !name.startsWith("cf_")) continue;
    if (!(name in TYPES)) throw new Refused("export", `${name} is no export of a policy`);
    if (kind !== 0 || !same(typeOf(index), TYPES[name])) throw new Refused("export", `${name} has another type`);
  }
  for (const name of ["cf_buffer", "cf_buffer_len"])
    if (!s.exports.some((e) => e.name === name)) throw new Refused("export", `${name} is missing`);
  if (!HOOKS.some((name) => s.exports.some((e) => e.name === name))) throw new Refused("export", "has no hook");
  return s;
}

// The same module with maxima on its memory and table, so that growth beyond them answers -1 as with a host's limiter.
export function limited(bytes, s) {
  const out = [...bytes.subarray(0, 8)];
  const cap = (limits, most) => [1, ...leb(limits.min), ...leb(Math.min(limits.max ?? most, most))];
  for (const { id, body } of s.raw) {
    let content = body;
    if (id === 5) content = [1, ...cap(s.memories[0], LIMITS.memoryPages)];
    if (id === 4 && s.tables.length) content = [1, s.tables[0].type, ...cap(s.tables[0], LIMITS.tableElements)];
    out.push(id, ...leb(content.length));
    for (const byte of content) out.push(byte);
  }
  return Uint8Array.from(out);
}
