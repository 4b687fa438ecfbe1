// Write a Crossfade policy in AssemblyScript.
//
// Export the hooks you want from your file together with the names every policy has:
//   export { cf_abi_v1, cf_buffer, cf_buffer_len } from "PATH/sdk/assemblyscript/index";
//   export function cf_on_request(length: i32): u64 { return request.classIs(Class.Read) ? mirrorCompare() : forward(); }
// and build with `asc policy.ts -O3 --runtime stub --use abort= -o policy.wasm`.
// Nothing here allocates, and a hook should not either: with the stub runtime what is allocated is never freed. Texts of a policy
// are ordinary string literals; what comes from a view is `ptr` and `len`. A view lies in the exchange buffer until the
// hook returns or a verdict with a text is made. Layouts are those of ABI.md.

// ---- marker and exchange buffer ----

const BUFFER_BYTES: i32 = 65536;
const TEXT_BYTES: i32 = 512;
const CLASS_BYTES: i32 = 64;
// Two pages behind the program's own memory, taken once: static zeros would be written into the module.
const exchange: usize = <usize>memory.grow(1) << 16;
const said: usize = memory.data(512);
let saidLength: i32 = 0;

export function cf_abi_v1(): void {}
export function cf_buffer(): usize { return exchange; }
export function cf_buffer_len(): i32 { return BUFFER_BYTES; }

// ---- imports ----

// @ts-ignore: decorator
@external("crossfade", "log") declare function host_log(level: i32, ptr: usize, len: i32): i32;
// @ts-ignore: decorator
@external("crossfade", "counter_add") declare function host_counter_add(id: usize, len: i32, delta: i64): i32;
// @ts-ignore: decorator
@external("crossfade", "frame_read") declare function host_frame_read(which: i32, offset: i32, ptr: usize, len: i32): i32;
// @ts-ignore: decorator
@external("crossfade", "now_ms") declare function host_now_ms(): i64;
// @ts-ignore: decorator
@external("crossfade", "random") declare function host_random(): i64;

export enum Level { Error = 1, Warn = 2, Info = 3, Debug = 4 }
export enum Frame { Request = 0, SourceReply = 1, TargetReply = 2, RecordValue = 3 }

// The text is the one begun with `say`.
export function log(level: Level, text: Text): i32 { return host_log(level, said, text.length); }
export function counterAdd(id: string, delta: i64): i32 {
  const at = said + 448; // the last bytes of the text's place; an id is at most 64
  let length = id.length < 64 ? id.length : 64;
  for (let i = 0; i < length; i++) store<u8>(at + i, <u8>id.charCodeAt(i));
  return host_counter_add(at, length, delta);
}
export function frameRead(which: Frame, offset: i32, ptr: usize, len: i32): i32 { return host_frame_read(which, offset, ptr, len); }
export function nowMs(): u64 { return <u64>host_now_ms(); }
export function random(): u64 { return <u64>host_random(); }

// ---- views ----

export enum Protocol { Redis = 1, Postgres = 2, Mongo = 3 }
export enum Class { Read = 1, Write = 2, Session = 3, Transaction = 4, Opaque = 5 }
export enum Phase { PreTest = 1, Analyze = 2, Compare = 3, Test = 4, Migrate = 5, Rollback = 6, Commit = 7 }
export enum Authority { Source = 1, Target = 2 }
export enum ReplyKind {
  Other = 0, Ok = 1, Error = 2, Value = 3, Integer = 4, Float = 5, Boolean = 6, Nothing = 7, List = 8, Set = 9, Map = 10,
  Rows = 11, Document = 12, Missing = 13,
}
export enum RecordType { Other = 0, Text = 1, List = 2, Set = 3, Map = 4, SortedSet = 5, Stream = 6, Row = 7, Document = 8 }
export enum Encoding { Raw = 1, Items = 2, Json = 3, Bson = 4, Opaque = 5 }
export enum Purpose { Backfill = 1, Clone = 2 }

export namespace flags {
  export const REQUEST_KEYS_CUT: u32 = 1 << 0;
  export const REQUEST_FRAME_CUT: u32 = 1 << 1;
  export const REQUEST_UNORDERED: u32 = 1 << 2;
  export const REQUEST_FIELD_PAIRS: u32 = 1 << 3;
  export const REQUEST_FLOATS: u32 = 1 << 4;
  export const REQUEST_TTL_SECONDS: u32 = 1 << 5;
  export const REQUEST_TTL_MILLIS: u32 = 1 << 6;
  export const REQUEST_NONDETERMINISTIC: u32 = 1 << 7;
  export const REQUEST_IN_TRANSACTION: u32 = 1 << 8;
  export const PAIR_SOURCE_CUT: u32 = 1 << 0;
  export const PAIR_TARGET_CUT: u32 = 1 << 1;
  export const PAIR_DIGESTS: u32 = 1 << 2;
  export const PAIR_RACED: u32 = 1 << 3;
  export const WINDOW_FLIPPED: u32 = 1 << 0;
  export const WINDOW_PAUSED: u32 = 1 << 1;
  export const WINDOW_PHASE_CHANGED: u32 = 1 << 2;
  export const RECORD_VALUE_CUT: u32 = 1 << 0;
  export const RECORD_KEY_CUT: u32 = 1 << 1;
}

// Whether bytes are the ASCII text.
export function same(ptr: usize, len: i32, text: string): bool {
  if (len != text.length) return false;
  for (let i = 0; i < len; i++) if (<i32>load<u8>(ptr + i) != text.charCodeAt(i)) return false;
  return true;
}

// A part of the view at `view`, found at `at`: two of these make `ptr` and `len`.
// @ts-ignore: decorator
@inline function partPtr(view: usize, at: usize): usize { return view + <usize>load<u32>(view + at); }
// @ts-ignore: decorator
@inline function partLen(view: usize, at: usize): i32 { return load<i32>(view + at, 4); }

// A whole RequestView at an address; `request` is the one of cf_on_request, `pair.request` that of a pair.
@unmanaged
export class RequestView {
  get protocol(): Protocol { return load<u8>(changetype<usize>(this), 8); }
  get class_(): Class { return load<u8>(changetype<usize>(this), 9); }
  classIs(which: Class): bool { return this.class_ == which; }
  get phase(): Phase { return load<u8>(changetype<usize>(this), 10); }
  get authority(): Authority { return load<u8>(changetype<usize>(this), 11); }
  get flags(): u32 { return load<u32>(changetype<usize>(this), 12); }
  get client(): u64 { return load<u64>(changetype<usize>(this), 16); }
  get size(): u64 { return load<u64>(changetype<usize>(this), 24); }
  get sample(): u32 { return load<u32>(changetype<usize>(this), 32); }
  get keyCount(): u32 { return load<u32>(changetype<usize>(this), 36); }
  get databasePtr(): usize { return partPtr(changetype<usize>(this), 40); }
  get databaseLen(): i32 { return partLen(changetype<usize>(this), 40); }
  get commandPtr(): usize { return partPtr(changetype<usize>(this), 48); }
  get commandLen(): i32 { return partLen(changetype<usize>(this), 48); }
  commandIs(text: string): bool { return same(this.commandPtr, this.commandLen, text); }
  // Keys that the view lists; `keyCount` may be more.
  get keysListed(): i32 { return partLen(changetype<usize>(this), 56) / 8; }
  keyPtr(index: i32): usize {
    return changetype<usize>(this) + <usize>load<u32>(partPtr(changetype<usize>(this), 56) + <usize>index * 8);
  }
  keyLen(index: i32): i32 { return load<i32>(partPtr(changetype<usize>(this), 56) + <usize>index * 8, 4); }
  get framePtr(): usize { return partPtr(changetype<usize>(this), 64); }
  get frameLen(): i32 { return partLen(changetype<usize>(this), 64); }
}

@unmanaged
export class PairView {
  get request(): RequestView { return changetype<RequestView>(partPtr(changetype<usize>(this), 8)); }
  get flags(): u32 { return load<u32>(changetype<usize>(this), 16); }
  get sourceKind(): ReplyKind { return load<u8>(changetype<usize>(this), 20); }
  get targetKind(): ReplyKind { return load<u8>(changetype<usize>(this), 21); }
  get sourceLength(): u64 { return load<u64>(changetype<usize>(this), 24); }
  get targetLength(): u64 { return load<u64>(changetype<usize>(this), 32); }
  get sourceDigest(): u64 { return load<u64>(changetype<usize>(this), 40); }
  get targetDigest(): u64 { return load<u64>(changetype<usize>(this), 48); }
  get sourceLatencyUs(): u32 { return load<u32>(changetype<usize>(this), 56); }
  get targetLatencyUs(): u32 { return load<u32>(changetype<usize>(this), 60); }
  get sourcePtr(): usize { return partPtr(changetype<usize>(this), 64); }
  get sourceLen(): i32 { return partLen(changetype<usize>(this), 64); }
  get targetPtr(): usize { return partPtr(changetype<usize>(this), 72); }
  get targetLen(): i32 { return partLen(changetype<usize>(this), 72); }
}

@unmanaged
export class WindowView {
  get phase(): Phase { return load<u8>(changetype<usize>(this), 8); }
  get authority(): Authority { return load<u8>(changetype<usize>(this), 9); }
  get flags(): u32 { return load<u32>(changetype<usize>(this), 12); }
  get atMs(): u64 { return load<u64>(changetype<usize>(this), 16); }
  get lengthMs(): u32 { return load<u32>(changetype<usize>(this), 24); }
  get phaseSeconds(): u32 { return load<u32>(changetype<usize>(this), 28); }
  get sourceRequests(): u64 { return load<u64>(changetype<usize>(this), 32); }
  get targetRequests(): u64 { return load<u64>(changetype<usize>(this), 40); }
  get sourceErrors(): u64 { return load<u64>(changetype<usize>(this), 48); }
  get targetErrors(): u64 { return load<u64>(changetype<usize>(this), 56); }
  get sourceP50Us(): u32 { return load<u32>(changetype<usize>(this), 64); }
  get sourceP99Us(): u32 { return load<u32>(changetype<usize>(this), 68); }
  get targetP50Us(): u32 { return load<u32>(changetype<usize>(this), 72); }
  get targetP99Us(): u32 { return load<u32>(changetype<usize>(this), 76); }
  get shadowLagUs(): u64 { return load<u64>(changetype<usize>(this), 80); }
  get queueDepth(): u64 { return load<u64>(changetype<usize>(this), 88); }
  get dirty(): u64 { return load<u64>(changetype<usize>(this), 96); }
  get inFlight(): u64 { return load<u64>(changetype<usize>(this), 104); }
  get compared(): u64 { return load<u64>(changetype<usize>(this), 112); }
  get divergencesNew(): u64 { return load<u64>(changetype<usize>(this), 120); }
  get divergencesTotal(): u64 { return load<u64>(changetype<usize>(this), 128); }
  get readShare(): u32 { return load<u32>(changetype<usize>(this), 136); }
  get writeShare(): u32 { return load<u32>(changetype<usize>(this), 140); }
  get migrationPtr(): usize { return partPtr(changetype<usize>(this), 144); }
  get migrationLen(): i32 { return partLen(changetype<usize>(this), 144); }
}

@unmanaged
export class RecordView {
  get protocol(): Protocol { return load<u8>(changetype<usize>(this), 8); }
  get type(): RecordType { return load<u8>(changetype<usize>(this), 9); }
  get encoding(): Encoding { return load<u8>(changetype<usize>(this), 10); }
  get purpose(): Purpose { return load<u8>(changetype<usize>(this), 11); }
  get flags(): u32 { return load<u32>(changetype<usize>(this), 12); }
  get ttlMs(): i64 { return load<i64>(changetype<usize>(this), 16); }
  get valueLength(): u64 { return load<u64>(changetype<usize>(this), 24); }
  get databasePtr(): usize { return partPtr(changetype<usize>(this), 32); }
  get databaseLen(): i32 { return partLen(changetype<usize>(this), 32); }
  get namespacePtr(): usize { return partPtr(changetype<usize>(this), 40); }
  get namespaceLen(): i32 { return partLen(changetype<usize>(this), 40); }
  get keyPtr(): usize { return partPtr(changetype<usize>(this), 48); }
  get keyLen(): i32 { return partLen(changetype<usize>(this), 48); }
  get valuePtr(): usize { return partPtr(changetype<usize>(this), 56); }
  get valueLen(): i32 { return partLen(changetype<usize>(this), 56); }
}

export const request: RequestView = changetype<RequestView>(exchange);
export const pair: PairView = changetype<PairView>(exchange);
export const window: WindowView = changetype<WindowView>(exchange);
export const record: RecordView = changetype<RecordView>(exchange);

// ---- texts ----

// The one text being made: say("error rate ").number(12).add(" %"). What does not fit is cut.
@unmanaged
export class Text {
  get length(): i32 { return saidLength; }
  add(text: string): Text {
    for (let i = 0; i < text.length && saidLength < TEXT_BYTES; i++) store<u8>(said + saidLength++, <u8>text.charCodeAt(i));
    return this;
  }
  bytes(ptr: usize, len: i32): Text {
    let kept = len < TEXT_BYTES - saidLength ? len : TEXT_BYTES - saidLength;
    memory.copy(said + saidLength, ptr, kept);
    saidLength += kept;
    return this;
  }
  number(value: u64): Text {
    let place: u64 = 1;
    while (value / place >= 10) place *= 10;
    for (; place > 0 && saidLength < TEXT_BYTES; place /= 10) store<u8>(said + saidLength++, <u8>(48 + ((value / place) % 10)));
    return this;
  }
  // With two digits behind the point.
  decimal(value: f64): Text {
    const hundredths = <u64>(value * 100.0 + 0.5);
    this.number(hundredths / 100).add(".").number(hundredths / 10 % 10);
    return this.number(hundredths % 10);
  }
}

export function say(text: string): Text {
  saidLength = 0;
  return changetype<Text>(said).add(text);
}

// ---- verdicts ----

function withText(action: u64, limit: i32): u64 {
  if (saidLength == 0) say("no reason given");
  const length = saidLength < limit ? saidLength : limit;
  memory.copy(exchange, said, length);
  return action | (<u64>length << 32);
}

export function forward(): u64 { return 0x10; }
export function mirror(): u64 { return 0x11; }
export function mirrorCompare(): u64 { return 0x12; }
export function refuse(text: Text): u64 { return withText(0x13, TEXT_BYTES); }
// The answer holds for every command of this name.
export function forCommand(verdict: u64): u64 { return verdict | (1 << 8); }
// The answer holds for commands of this name all of whose keys begin with the first `length` bytes (1 to 255) of the first key.
export function forPrefix(verdict: u64, length: i32): u64 {
  return length >= 1 && length <= 255 ? verdict | (2 << 8) | (<u64>length << 12) : verdict;
}
export function builtin(): u64 { return 0x20; }
export function equal(): u64 { return 0x21; }
export function equivalent(): u64 { return 0x22; }
export function divergent(class_: Text): u64 { return withText(0x23, CLASS_BYTES); }
export function ignore(): u64 { return 0x24; }
export function carryOn(): u64 { return 0x30; }
export function warn(text: Text): u64 { return withText(0x31, TEXT_BYTES); }
export function hold(text: Text): u64 { return withText(0x32, TEXT_BYTES); }
export function rollBack(text: Text): u64 { return withText(0x33, TEXT_BYTES); }
export function keep(): u64 { return 0x40; }
// At most the buffer; a longer one traps rather than being cut.
export function replace(ptr: usize, len: i32): u64 {
  if (len < 0 || len > BUFFER_BYTES) unreachable();
  memory.copy(exchange, ptr, len);
  return 0x41 | (<u64>len << 32);
}
export function dropRecord(): u64 { return 0x42; }

// ---- configuration: one JSON object of numbers, flags and texts ----

// Readers of the configuration, to be used in cf_configure only: config.begin(length), then settings, then config.done().
export namespace config {
  let at: usize = 0;
  let end: usize = 0;
  let failed: bool = false;
  // The name and value found last.
  let namePtr: usize = 0;
  let nameLen: i32 = 0;
  export let valuePtr: usize = 0;
  export let valueLen: i32 = 0;

  export function begin(length: i32): void {
    end = exchange + length;
    failed = false;
  }

  // What cf_configure returns.
  export function done(): i32 { return failed ? <i32>(withText(0, TEXT_BYTES) >> 32) : 0; }

  export function fail(name: string, why: string): void {
    if (!failed) say(name).add(why);
    failed = true;
  }

  function space(): void { while (at < end && load<u8>(at) <= 32) at++; }

  function skip(wanted: u8): bool {
    space();
    if (at >= end || load<u8>(at) != wanted) return false;
    at++;
    return true;
  }

  // Steps over the value at `at`; answers its length.
  function value(): i32 {
    space();
    const from = at;
    let depth = 0, quoted = false;
    while (at < end) {
      const byte = load<u8>(at);
      const opens = byte == 0x7b || byte == 0x5b, closes = byte == 0x7d || byte == 0x5d;
      if (quoted && byte == 0x5c) at++;
      else if (byte == 0x22) quoted = !quoted;
      else if (!quoted && opens) depth++;
      else if (!quoted && depth > 0 && closes) depth--;
      else if (!quoted && depth == 0 && (byte == 0x2c || byte == 0x3a || closes || byte <= 32)) break;
      at++;
      if (!quoted && depth == 0 && (byte == 0x22 || closes)) break;
    }
    if (at > end) at = end;
    return <i32>(at - from);
  }

  function rewind(): void { at = exchange; skip(0x7b); }

  function next(): bool {
    skip(0x2c);
    nameLen = value();
    namePtr = at - nameLen + 1;
    nameLen -= 2;
    if (nameLen < 0 || !skip(0x3a)) return false;
    valueLen = value();
    valuePtr = at - valueLen;
    return valueLen > 0;
  }

  // Whether the setting is there; then valuePtr and valueLen are its JSON.
  export function has(name: string): bool {
    rewind();
    while (next()) if (same(namePtr, nameLen, name)) return true;
    return false;
  }

  // Refuses a setting whose name is not among these, parted by spaces: config.only("sample_percent commands").
  export function only(names: string): void {
    rewind();
    while (next()) {
      let known = false, from = 0;
      for (let i = 0; i <= names.length; i++) {
        if (i < names.length && names.charCodeAt(i) != 32) continue;
        let matches = i - from == nameLen;
        for (let n = 0; matches && n < nameLen; n++) matches = <i32>load<u8>(namePtr + n) == names.charCodeAt(from + n);
        known = known || matches;
        from = i + 1;
      }
      if (!known && !failed) {
        say("unknown setting ").bytes(namePtr, nameLen);
        failed = true;
      }
    }
  }

  // A number without exponent, or `standard` when it is not set.
  export function number(name: string, standard: f64, least: f64, most: f64): f64 {
    if (!has(name)) return standard;
    let result = 0.0, scale = 0.0, digits = 0, right = true;
    const minus = load<u8>(valuePtr) == 0x2d;
    for (let i = minus ? 1 : 0; i < valueLen; i++) {
      const byte = load<u8>(valuePtr + i);
      if (byte == 0x2e && scale == 0) scale = 1.0;
      else if (byte >= 48 && byte <= 57) { result = result * 10.0 + <f64>(byte - 48); scale *= 10.0; digits++; }
      else right = false;
    }
    if (scale > 1.0) result /= scale;
    if (minus) result = -result;
    if (right && digits > 0 && result >= least && result <= most) return result;
    if (!failed) say(name).add(": a number from ").number(<u64>least).add(" to ").number(<u64>most).add(" is needed");
    failed = true;
    return standard;
  }

  export function flag(name: string, standard: bool): bool {
    if (!has(name)) return standard;
    if (same(valuePtr, valueLen, "true")) return true;
    if (!same(valuePtr, valueLen, "false")) fail(name, ": true or false is needed");
    return false;
  }
}
