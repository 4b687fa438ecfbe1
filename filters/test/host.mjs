// A host small enough to read: loads a module by the rules of ABI.md, calls hooks, decodes verdicts. For tests and for writing
// policies; it has no deadline of its own (run.mjs puts what may loop into a worker).

import { ACTIONS, VIEWS } from "./views.mjs";
import { check, limited, LIMITS, Refused } from "./wasm.mjs";

export class Fault extends Error {
  constructor(kind, sentence) { super(`${kind}: ${sentence}`); this.kind = kind; }
}

const STATUS = { ok: 0, badArgument: -1, badPointer: -2, limit: -3, unavailable: -4 };

// Checked and compiled once; instances are made from it.
export function compile(bytes) {
  return new WebAssembly.Module(limited(bytes, check(bytes)));
}

export class Policy {
  constructor(module, { configure = {}, nowMs = 0 } = {}) {
    this.logs = [];
    this.counters = new Map();
    this.frames = null;
    this.drawn = 0n;
    this.nowMs = BigInt(nowMs);
    try {
      this.exports = new WebAssembly.Instance(module, { crossfade: this.#imports() }).exports;
    } catch (error) {
      throw new Refused("start", error.message);
    }
    this.#buffer();
    this.#configure(configure);
  }

  #inside(ptr, len) { return (ptr >>> 0) + (len >>> 0) <= this.exports.memory.buffer.byteLength; }
  #slice(ptr, len) { return Buffer.from(this.exports.memory.buffer, ptr >>> 0, len >>> 0); }

  #imports() {
    return {
      log: (level, ptr, len) => {
        if (!this.exports) return STATUS.unavailable;
        if (!this.#inside(ptr, len)) return STATUS.badPointer;
        if (level < 1 || level > 4) return STATUS.badArgument;
        if (this.logs.length >= 10) return STATUS.limit;
        this.logs.push(this.#slice(ptr, Math.min(len >>> 0, 1024)).toString());
        return STATUS.ok;
      },
      counter_add: (ptr, len, delta) => {
        if (!this.exports) return STATUS.unavailable;
        if (!this.#inside(ptr, len)) return STATUS.badPointer;
        const id = len >= 1 && len <= 64 ? this.#slice(ptr, len).toString("latin1") : "";
        if (!/^[a-z0-9_]+$/.test(id) || delta < 0n) return STATUS.badArgument;
        if (!this.counters.has(id) && this.counters.size >= 64) return STATUS.limit;
        this.counters.set(id, (this.counters.get(id) ?? 0n) + delta);
        return STATUS.ok;
      },
      frame_read: (which, offset, ptr, len) => {
        if (!this.exports) return STATUS.unavailable;
        if (!this.#inside(ptr, len)) return STATUS.badPointer;
        if (which < 0 || which > 3) return STATUS.badArgument;
        const frame = this.frames?.[which];
        if (!frame) return STATUS.unavailable;
        const piece = frame.subarray(offset >>> 0, (offset >>> 0) + (len >>> 0));
        this.#slice(ptr, piece.length).set(piece);
        return piece.length;
      },
      now_ms: () => this.nowMs,
      random: () => (this.drawn += 1n),
    };
  }

  #buffer() {
    let length;
    try {
      this.at = this.exports.cf_buffer() >>> 0;
      length = this.exports.cf_buffer_len() >>> 0;
    } catch (error) {
      throw new Refused("buffer", error.message);
    }
    if (length < LIMITS.bufferMin || length > LIMITS.bufferMax) throw new Refused("buffer", `${length} bytes; ${LIMITS.bufferMin} to ${LIMITS.bufferMax} are allowed`);
    if (!this.#inside(this.at, length)) throw new Refused("buffer", `${this.at} + ${length} is outside the memory`);
    this.length = length;
  }

  #configure(configure) {
    const json = Buffer.from(JSON.stringify(configure));
    if (!this.exports.cf_configure) {
      if (json.length > 2) throw new Refused("configure", "takes no configuration");
      return;
    }
    if (json.length > this.length) throw new Refused("configure", "does not fit into the exchange buffer");
    this.#slice(this.at, json.length).set(json);
    let answer;
    try {
      answer = this.exports.cf_configure(json.length);
    } catch (error) {
      throw new Refused("configure", error.message);
    }
    if (answer < 0 || answer > Math.min(512, this.length)) throw new Refused("configure", `answered ${answer}`);
    if (answer > 0) throw new Refused("configure", this.#slice(this.at, answer).toString());
  }

  // The hook's verdict, decoded; throws Fault.
  call(hook, view, frames = null) {
    if (view.length > this.length) throw new Error(`a view of ${view.length} bytes for a buffer of ${this.length}`);
    this.#slice(this.at, view.length).set(view);
    this.frames = frames;
    let raw;
    try {
      raw = BigInt.asUintN(64, this.exports[`cf_on_${hook}`](view.length));
    } catch (error) {
      throw new Fault("trap", error.message);
    } finally {
      this.frames = null;
    }
    return this.#decode(hook, raw);
  }

  #decode(hook, raw) {
    const bad = (why) => { throw new Fault("bad_verdict", `${why} (0x${raw.toString(16)})`); };
    const [word, least, most] = ACTIONS[hook][Number(raw & 0xffn)] ?? bad("not an action of this hook");
    const scope = Number(raw >> 8n & 0xfn), prefix = Number(raw >> 12n & 0xffn), length = Number(raw >> 32n);
    if (raw >> 20n & 0xfffn) bad("reserved bits");
    if (scope > 2 || (scope === 2) !== (prefix > 0) || (scope && hook !== "request")) bad("memo");
    if (length < least || length > Math.min(most, this.length)) bad(`${length} bytes of text`);
    const text = Buffer.from(this.#slice(this.at, length));
    return { verdict: word, memo: ["none", "command", "key_prefix"][scope], prefix, text };
  }
}

export const view = (hook, object) => {
  if (!VIEWS[hook]) throw new Error(`no hook ${hook}`);
  return VIEWS[hook](object);
};
