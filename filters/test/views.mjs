// Views and expectations of recorded cases (ABI.md sections 4 and 9): JSON to bytes.

const PROTOCOL = { redis: 1, postgres: 2, mongo: 3 };
const CLASS = { read: 1, write: 2, session: 3, transaction: 4, opaque: 5 };
const PHASE = { "pre-test": 1, analyze: 2, compare: 3, test: 4, migrate: 5, rollback: 6, commit: 7 };
const AUTHORITY = { source: 1, target: 2 };
const KIND = { other: 0, ok: 1, error: 2, value: 3, integer: 4, float: 5, boolean: 6, nothing: 7, list: 8, set: 9, map: 10, rows: 11, document: 12, missing: 13 };
const TYPE = { other: 0, string: 1, list: 2, set: 3, map: 4, sorted_set: 5, stream: 6, row: 7, document: 8 };
const ENCODING = { raw: 1, items: 2, json: 3, bson: 4, opaque: 5 };
const PURPOSE = { backfill: 1, clone: 2 };
const FLAGS = {
  request: ["keys_cut", "frame_cut", "unordered", "field_pairs", "floats", "ttl_seconds", "ttl_millis", "nondeterministic", "in_transaction"],
  pair: ["source_cut", "target_cut", "digests", "raced"],
  window: ["flipped", "paused", "phase_changed"],
  record: ["value_cut", "key_cut"],
};

export function bytes(value) {
  if (typeof value === "string") return Buffer.from(value);
  if (value?.hex !== undefined) return Buffer.from(value.hex, "hex");
  if (value?.repeat !== undefined) return Buffer.from(value.repeat.repeat(value.times));
  if (value?.concat !== undefined) return Buffer.concat(value.concat.map(bytes));
  if (value?.items !== undefined) return Buffer.concat(value.items.map(bytes).flatMap((item) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(item.length);
    return [length, item];
  }));
  throw new Error(`not bytes: ${JSON.stringify(value)}`);
}

// Takes fields out of a case's object; what is left at the end is a misspelt name.
class Fields {
  constructor(object, what) { this.left = { ...object }; this.what = what; }
  get(name, standard) { const value = this.left[name] ?? standard; delete this.left[name]; return value; }
  number(name, standard = 0) { return BigInt(this.get(name, standard)); }
  code(name, table, standard) {
    const word = this.get(name, standard);
    if (!(word in table)) throw new Error(`${this.what}: ${name} ${JSON.stringify(word)} is not one of ${Object.keys(table).join(", ")}`);
    return table[word];
  }
  flags(kind) {
    return this.get("flags", []).reduce((bits, word) => {
      const bit = FLAGS[kind].indexOf(word);
      if (bit < 0) throw new Error(`${this.what}: no flag ${word}`);
      return bits | (1 << bit);
    }, 0);
  }
  end() { for (const name of Object.keys(this.left)) throw new Error(`${this.what}: unknown field ${name}`); }
}

class Writer {
  constructor(kind, fixed) { this.fixed = Buffer.alloc(fixed); this.parts = []; this.at = fixed; this.fixed.writeUInt16LE(1, 0); this.fixed.writeUInt16LE(kind, 2); }
  u8(at, value) { this.fixed.writeUInt8(Number(value), at); }
  u32(at, value) { this.fixed.writeUInt32LE(Number(value), at); }
  u64(at, value) { this.fixed.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), at); }
  append(content) { this.parts.push(content); this.at += content.length; return this.at - content.length; }
  part(at, content) { this.u32(at + 4, content.length); this.u32(at, this.append(content)); }
  end() { this.u32(4, this.at); return Buffer.concat([this.fixed, ...this.parts]); }
}

function request(object) {
  const f = new Fields(object, "request"), w = new Writer(1, 72);
  w.u8(8, f.code("protocol", PROTOCOL, "redis"));
  w.u8(9, f.code("class", CLASS, "read"));
  w.u8(10, f.code("phase", PHASE, "compare"));
  w.u8(11, f.code("authority", AUTHORITY, "source"));
  w.u32(12, f.flags("request"));
  w.u64(16, f.number("client"));
  const frame = bytes(f.get("frame", "")), keys = f.get("keys", []).map(bytes);
  w.u64(24, f.number("size", frame.length));
  w.u32(32, f.number("sample"));
  w.u32(36, f.number("key_count", keys.length));
  w.part(40, bytes(f.get("database", "0")));
  w.part(48, bytes(f.get("command", "")));
  const table = Buffer.alloc(keys.length * 8);
  w.part(56, table);
  keys.forEach((key, index) => { table.writeUInt32LE(w.append(key), index * 8); table.writeUInt32LE(key.length, index * 8 + 4); });
  w.part(64, frame.subarray(0, 1024));
  f.end();
  return w.end();
}

function pair(object) {
  const f = new Fields(object, "pair"), w = new Writer(2, 80);
  w.part(8, request(f.get("request", {})));
  w.u32(16, f.flags("pair"));
  [["source", 20, 24, 40, 56, 64], ["target", 21, 32, 48, 60, 72]].forEach(([side, kind, length, digest, latency, content]) => {
    const r = new Fields(f.get(side, {}), side), reply = bytes(r.get("bytes", ""));
    w.u8(kind, r.code("kind", KIND, "value"));
    w.u64(length, r.number("length", reply.length));
    w.u64(digest, r.number("digest"));
    w.u32(latency, r.number("latency_us"));
    w.part(content, reply);
    r.end();
  });
  f.end();
  return w.end();
}

function window(object) {
  const f = new Fields(object, "window"), w = new Writer(3, 152);
  w.u8(8, f.code("phase", PHASE, "compare"));
  w.u8(9, f.code("authority", AUTHORITY, "source"));
  w.u32(12, f.flags("window"));
  w.u64(16, f.number("at_ms"));
  w.u32(24, f.number("length_ms", 1000));
  w.u32(28, f.number("phase_seconds"));
  [["source", 32, 48, 64, 68], ["target", 40, 56, 72, 76]].forEach(([name, requests, errors, p50, p99]) => {
    const side = new Fields(f.get(name, {}), name);
    w.u64(requests, side.number("requests"));
    w.u64(errors, side.number("errors"));
    w.u32(p50, side.number("p50_us"));
    w.u32(p99, side.number("p99_us"));
    side.end();
  });
  ["shadow_lag_us", "queue_depth", "dirty", "in_flight", "compared", "divergences_new", "divergences_total"]
    .forEach((name, index) => w.u64(80 + index * 8, f.number(name)));
  w.u32(136, f.number("read_share"));
  w.u32(140, f.number("write_share"));
  w.part(144, bytes(f.get("migration", "")));
  f.end();
  return w.end();
}

function record(object) {
  const f = new Fields(object, "record"), w = new Writer(4, 64);
  w.u8(8, f.code("protocol", PROTOCOL, "redis"));
  w.u8(9, f.code("type", TYPE, "string"));
  w.u8(10, f.code("encoding", ENCODING, "raw"));
  w.u8(11, f.code("purpose", PURPOSE, "backfill"));
  w.u32(12, f.flags("record"));
  w.u64(16, f.number("ttl_ms", -1));
  const value = bytes(f.get("value", ""));
  w.u64(24, f.number("value_length", value.length));
  w.part(32, bytes(f.get("database", "0")));
  w.part(40, bytes(f.get("namespace", "")));
  w.part(48, bytes(f.get("key", "")));
  w.part(56, value);
  f.end();
  return w.end();
}

export const VIEWS = { request, pair, window, record };

// Each action: its word and the least and greatest length of its text.
export const ACTIONS = {
  request: { 0x10: ["forward", 0, 0], 0x11: ["mirror", 0, 0], 0x12: ["mirror_compare", 0, 0], 0x13: ["refuse", 1, 512] },
  pair: { 0x20: ["builtin", 0, 0], 0x21: ["equal", 0, 0], 0x22: ["equivalent", 0, 0], 0x23: ["divergent", 1, 64], 0x24: ["ignore", 0, 0] },
  window: { 0x30: ["continue", 0, 0], 0x31: ["warn", 1, 512], 0x32: ["hold", 1, 512], 0x33: ["roll_back", 1, 512] },
  record: { 0x40: ["keep", 0, 0], 0x41: ["replace", 0, 262144], 0x42: ["drop", 0, 0] },
};
