/* Write a Crossfade policy in C: one header, no library, no allocator.
 *
 * Include it in one file, write the hooks you want as CF_HOOK(cf_on_request)(uint32_t length) { ... }, and build with
 *   clang --target=wasm32-unknown-unknown -Oz -mbulk-memory -nostdlib -ffreestanding -Wl,--no-entry -Wl,--strip-all \
 *         -Wl,-zstack-size=16384 -Wl,--stack-first -I sdk/c -o policy.wasm policy.c
 * The layouts below are those of ABI.md, checked by static assertions. A view lies in the exchange buffer until the hook
 * returns or a verdict with a text is made, whichever is first: make the verdict last.
 */
#ifndef CROSSFADE_H
#define CROSSFADE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CF_EXPORT(name) __attribute__((export_name(#name), used))
#define CF_IMPORT(name) __attribute__((import_module("crossfade"), import_name(#name)))
/* CF_HOOK(cf_on_request)(uint32_t length) { const cf_request *request = cf_request_view(); ... return cf_forward(); } */
#define CF_HOOK(name) CF_EXPORT(name) uint64_t name

/* ---- marker and exchange buffer ---- */

#define CF_BUFFER_BYTES 65536
#define CF_TEXT_BYTES 512
#define CF_CLASS_BYTES 64
static uint8_t cf_exchange[CF_BUFFER_BYTES] __attribute__((aligned(8)));

CF_EXPORT(cf_abi_v1) void cf_abi_v1(void) {}
CF_EXPORT(cf_buffer) uint8_t *cf_buffer(void) { return cf_exchange; }
CF_EXPORT(cf_buffer_len) uint32_t cf_buffer_len(void) { return CF_BUFFER_BYTES; }

/* ---- imports ---- */

enum { CF_ERROR = 1, CF_WARN = 2, CF_INFO = 3, CF_DEBUG = 4 };
enum { CF_FRAME_REQUEST = 0, CF_FRAME_SOURCE_REPLY = 1, CF_FRAME_TARGET_REPLY = 2, CF_FRAME_RECORD_VALUE = 3 };
enum { CF_OK = 0, CF_BAD_ARGUMENT = -1, CF_BAD_POINTER = -2, CF_LIMIT = -3, CF_UNAVAILABLE = -4 };

CF_IMPORT(log) int32_t cf_log(int32_t level, const void *text, uint32_t length);
CF_IMPORT(counter_add) int32_t cf_counter_add(const char *id, uint32_t id_length, int64_t delta);
CF_IMPORT(frame_read) int32_t cf_frame_read(uint32_t which, uint32_t offset, void *into, uint32_t length);
CF_IMPORT(now_ms) int64_t cf_now_ms(void);
CF_IMPORT(random) int64_t cf_random(void);

/* ---- views ---- */

enum { CF_REDIS = 1, CF_POSTGRES = 2, CF_MONGO = 3 };
enum { CF_READ = 1, CF_WRITE = 2, CF_SESSION = 3, CF_TRANSACTION = 4, CF_OPAQUE = 5 };
enum { CF_PRE_TEST = 1, CF_ANALYZE, CF_COMPARE, CF_TEST, CF_MIGRATE, CF_ROLLBACK, CF_COMMIT };
enum { CF_SOURCE = 1, CF_TARGET = 2 };
enum {
    CF_REPLY_OTHER, CF_REPLY_OK, CF_REPLY_ERROR, CF_REPLY_VALUE, CF_REPLY_INTEGER, CF_REPLY_FLOAT, CF_REPLY_BOOLEAN,
    CF_REPLY_NOTHING, CF_REPLY_LIST, CF_REPLY_SET, CF_REPLY_MAP, CF_REPLY_ROWS, CF_REPLY_DOCUMENT, CF_REPLY_MISSING
};
enum {
    CF_TYPE_OTHER, CF_TYPE_STRING, CF_TYPE_LIST, CF_TYPE_SET, CF_TYPE_MAP, CF_TYPE_SORTED_SET, CF_TYPE_STREAM, CF_TYPE_ROW,
    CF_TYPE_DOCUMENT
};
enum { CF_RAW = 1, CF_ITEMS = 2, CF_JSON = 3, CF_BSON = 4, CF_ENCODING_OPAQUE = 5 };
enum { CF_BACKFILL = 1, CF_CLONE = 2 };

#define CF_REQUEST_KEYS_CUT (1u << 0)
#define CF_REQUEST_FRAME_CUT (1u << 1)
#define CF_REQUEST_UNORDERED (1u << 2)
#define CF_REQUEST_FIELD_PAIRS (1u << 3)
#define CF_REQUEST_FLOATS (1u << 4)
#define CF_REQUEST_TTL_SECONDS (1u << 5)
#define CF_REQUEST_TTL_MILLIS (1u << 6)
#define CF_REQUEST_NONDETERMINISTIC (1u << 7)
#define CF_REQUEST_IN_TRANSACTION (1u << 8)
#define CF_PAIR_SOURCE_CUT (1u << 0)
#define CF_PAIR_TARGET_CUT (1u << 1)
#define CF_PAIR_DIGESTS (1u << 2)
#define CF_PAIR_RACED (1u << 3)
#define CF_WINDOW_FLIPPED (1u << 0)
#define CF_WINDOW_PAUSED (1u << 1)
#define CF_WINDOW_PHASE_CHANGED (1u << 2)
#define CF_RECORD_VALUE_CUT (1u << 0)
#define CF_RECORD_KEY_CUT (1u << 1)

#define CF_PACKED __attribute__((packed))
typedef struct CF_PACKED { uint32_t offset, length; } cf_part;
typedef struct CF_PACKED { uint16_t version, kind; uint32_t length; } cf_header;

typedef struct CF_PACKED {
    cf_header header;
    uint8_t protocol, class_, phase, authority;
    uint32_t flags;
    uint64_t client, size;
    uint32_t sample, key_count;
    cf_part database, command, keys, frame;
} cf_request;
_Static_assert(sizeof(cf_request) == 72 && offsetof(cf_request, sample) == 32 && offsetof(cf_request, frame) == 64, "");

typedef struct CF_PACKED {
    cf_header header;
    cf_part request;
    uint32_t flags;
    uint8_t source_kind, target_kind;
    uint16_t reserved;
    uint64_t source_length, target_length, source_digest, target_digest;
    uint32_t source_latency_us, target_latency_us;
    cf_part source_bytes, target_bytes;
} cf_pair;
_Static_assert(sizeof(cf_pair) == 80 && offsetof(cf_pair, source_digest) == 40, "");

typedef struct CF_PACKED {
    cf_header header;
    uint8_t phase, authority;
    uint16_t reserved;
    uint32_t flags;
    uint64_t at_ms;
    uint32_t length_ms, phase_seconds;
    uint64_t source_requests, target_requests, source_errors, target_errors;
    uint32_t source_p50_us, source_p99_us, target_p50_us, target_p99_us;
    uint64_t shadow_lag_us, queue_depth, dirty, in_flight, compared, divergences_new, divergences_total;
    uint32_t read_share, write_share;
    cf_part migration;
} cf_window;
_Static_assert(sizeof(cf_window) == 152 && offsetof(cf_window, shadow_lag_us) == 80, "");

typedef struct CF_PACKED {
    cf_header header;
    uint8_t protocol, type, encoding, purpose;
    uint32_t flags;
    int64_t ttl_ms;
    uint64_t value_length;
    cf_part database, namespace_, key, value;
} cf_record;
_Static_assert(sizeof(cf_record) == 64 && offsetof(cf_record, key) == 48, "");

static inline const cf_request *cf_request_view(void) { return (const cf_request *)cf_exchange; }
static inline const cf_pair *cf_pair_view(void) { return (const cf_pair *)cf_exchange; }
static inline const cf_window *cf_window_view(void) { return (const cf_window *)cf_exchange; }
static inline const cf_record *cf_record_view(void) { return (const cf_record *)cf_exchange; }

typedef struct { const uint8_t *at; uint32_t length; } cf_bytes;

/* A part of a view: cf_of(request, request->command). */
static inline cf_bytes cf_of(const void *view, cf_part part) {
    return (cf_bytes){(const uint8_t *)view + part.offset, part.length};
}
static inline const cf_request *cf_pair_request(const cf_pair *pair) {
    return (const cf_request *)cf_of(pair, pair->request).at;
}
/* Keys listed in the view; request->key_count may be more. */
static inline uint32_t cf_key_total(const cf_request *request) { return request->keys.length / 8; }
static inline cf_bytes cf_key(const cf_request *request, uint32_t index) {
    const cf_part *table = (const cf_part *)cf_of(request, request->keys).at;
    return cf_of(request, table[index]);
}

/* ---- bytes and texts ---- */

static inline uint32_t cf_length(const char *text) {
    uint32_t length = 0;
    while (text[length]) length++;
    return length;
}
static inline cf_bytes cf_text(const char *text) { return (cf_bytes){(const uint8_t *)text, cf_length(text)}; }
static inline void cf_copy(void *to, const void *from, uint32_t length) { __builtin_memcpy(to, from, length); }
static inline bool cf_same(cf_bytes one, cf_bytes other) {
    if (one.length != other.length) return false;
    for (uint32_t i = 0; i < one.length; i++) if (one.at[i] != other.at[i]) return false;
    return true;
}
static inline uint8_t cf_upper(uint8_t byte) { return byte >= 'a' && byte <= 'z' ? byte - 32 : byte; }
static inline bool cf_same_word(cf_bytes one, cf_bytes other) {
    if (one.length != other.length) return false;
    for (uint32_t i = 0; i < one.length; i++) if (cf_upper(one.at[i]) != cf_upper(other.at[i])) return false;
    return true;
}

/* A text that is being made; what does not fit is cut. */
typedef struct { uint8_t bytes[CF_TEXT_BYTES]; uint32_t length; } cf_writer;
static cf_writer cf_said;
static inline cf_writer *cf_say_bytes(cf_writer *writer, cf_bytes more) {
    uint32_t room = CF_TEXT_BYTES - writer->length, kept = more.length < room ? more.length : room;
    cf_copy(writer->bytes + writer->length, more.at, kept);
    writer->length += kept;
    return writer;
}
static inline cf_writer *cf_say(cf_writer *writer, const char *more) { return cf_say_bytes(writer, cf_text(more)); }
static inline cf_writer *cf_say_number(cf_writer *writer, uint64_t value) {
    uint8_t digits[20];
    uint32_t at = 20;
    do digits[--at] = '0' + value % 10; while (value /= 10);
    return cf_say_bytes(writer, (cf_bytes){digits + at, 20 - at});
}
/* Begins anew: cf_say(cf_begin(), "...") */
static inline cf_writer *cf_begin(void) { cf_said.length = 0; return &cf_said; }
static inline cf_bytes cf_written(const cf_writer *writer) { return (cf_bytes){writer->bytes, writer->length}; }

/* ---- verdicts ---- */

static inline uint64_t cf_with_text(uint64_t action, cf_bytes text, uint32_t limit) {
    if (text.length == 0) text = cf_text("no reason given");
    if (text.length > limit) text.length = limit;
    __builtin_memmove(cf_exchange, text.at, text.length);
    return action | (uint64_t)text.length << 32;
}
static inline uint64_t cf_forward(void) { return 0x10; }
static inline uint64_t cf_mirror(void) { return 0x11; }
static inline uint64_t cf_mirror_compare(void) { return 0x12; }
static inline uint64_t cf_refuse(cf_bytes text) { return cf_with_text(0x13, text, CF_TEXT_BYTES); }
/* The answer holds for every command of this name. */
static inline uint64_t cf_for_command(uint64_t verdict) { return verdict | 1u << 8; }
/* The answer holds for commands of this name all of whose keys begin with these first bytes (1 to 255) of the first key. */
static inline uint64_t cf_for_prefix(uint64_t verdict, uint32_t length) {
    return length >= 1 && length <= 255 ? verdict | 2u << 8 | (uint64_t)length << 12 : verdict;
}
static inline uint64_t cf_builtin(void) { return 0x20; }
static inline uint64_t cf_equal(void) { return 0x21; }
static inline uint64_t cf_equivalent(void) { return 0x22; }
static inline uint64_t cf_divergent(cf_bytes class_) { return cf_with_text(0x23, class_, CF_CLASS_BYTES); }
static inline uint64_t cf_ignore(void) { return 0x24; }
static inline uint64_t cf_carry_on(void) { return 0x30; }
static inline uint64_t cf_warn(cf_bytes text) { return cf_with_text(0x31, text, CF_TEXT_BYTES); }
static inline uint64_t cf_hold(cf_bytes text) { return cf_with_text(0x32, text, CF_TEXT_BYTES); }
static inline uint64_t cf_roll_back(cf_bytes text) { return cf_with_text(0x33, text, CF_TEXT_BYTES); }
static inline uint64_t cf_keep(void) { return 0x40; }
/* At most CF_BUFFER_BYTES; a longer one traps rather than being cut. */
static inline uint64_t cf_replace(cf_bytes value) {
    if (value.length > CF_BUFFER_BYTES) __builtin_trap();
    __builtin_memmove(cf_exchange, value.at, value.length);
    return 0x41 | (uint64_t)value.length << 32;
}
static inline uint64_t cf_drop_record(void) { return 0x42; }

/* ---- configuration: one JSON object of numbers, flags, texts and lists of texts ---- */

typedef struct { cf_bytes json; bool failed; } cf_config;

static inline cf_config cf_read_config(uint32_t length) { return (cf_config){{cf_exchange, length}, false}; }

static inline void cf_fail(cf_config *config, const char *name, const char *why) {
    if (!config->failed) cf_say(cf_say(cf_begin(), name), why);
    config->failed = true;
}
/* What cf_configure returns: 0, or the length of the first thing that was wrong. */
static inline uint32_t cf_configured(const cf_config *config) {
    return config->failed ? (uint32_t)(cf_with_text(0, cf_written(&cf_said), CF_TEXT_BYTES) >> 32) : 0;
}
static inline void cf_space(cf_bytes *json) {
    while (json->length && (*json->at == ' ' || *json->at == '\t' || *json->at == '\n' || *json->at == '\r')) json->at++, json->length--;
}
static inline bool cf_skip(cf_bytes *json, char wanted) {
    cf_space(json);
    if (!json->length || *json->at != (uint8_t)wanted) return false;
    json->at++, json->length--;
    return true;
}
/* Takes the first value of json as it stands there. */
static bool cf_value(cf_bytes *json, cf_bytes *value) {
    cf_space(json);
    uint32_t depth = 0, at = 0;
    bool quoted = false;
    while (at < json->length) {
        uint8_t byte = json->at[at];
        if (quoted && byte == '\\') at++;
        else if (byte == '"') quoted = !quoted;
        else if (!quoted && (byte == '{' || byte == '[')) depth++;
        else if (!quoted && depth && (byte == '}' || byte == ']')) depth--;
        else if (!quoted && !depth && (byte == ',' || byte == ':' || byte == '}' || byte == ']' || byte <= ' ')) break;
        at++;
        if (!quoted && !depth && (byte == '"' || byte == '}' || byte == ']')) break;
    }
    if (at == 0 || at > json->length) return false;
    *value = (cf_bytes){json->at, at};
    json->at += at, json->length -= at;
    return true;
}
/* Takes the next "name": value of an object; object begins as a copy of the whole. The name keeps its quotes. */
static bool cf_member(cf_bytes *object, cf_bytes *name, cf_bytes *value) {
    if (!cf_skip(object, '{')) cf_skip(object, ',');
    return cf_value(object, name) && cf_skip(object, ':') && cf_value(object, value);
}
static inline bool cf_is_text(cf_bytes raw) { return raw.length >= 2 && raw.at[0] == '"' && raw.at[raw.length - 1] == '"'; }
static inline cf_bytes cf_unquoted(cf_bytes raw) { return cf_is_text(raw) ? (cf_bytes){raw.at + 1, raw.length - 2} : raw; }
/* Leaves *value as it is when the setting is not there. */
static bool cf_setting(const cf_config *config, const char *wanted, cf_bytes *value) {
    cf_bytes rest = config->json, name, found;
    while (cf_member(&rest, &name, &found))
        if (cf_same(cf_unquoted(name), cf_text(wanted))) return *value = found, true;
    return false;
}
/* Refuses a setting that is none of these: cf_only(&config, (const char *[]){"a", "b"}, 2) */
static void cf_only(cf_config *config, const char *const *names, uint32_t count) {
    cf_bytes rest = config->json, name, value;
    while (cf_member(&rest, &name, &value)) {
        bool known = false;
        for (uint32_t i = 0; i < count; i++) known |= cf_same(cf_unquoted(name), cf_text(names[i]));
        if (!known && !config->failed) {
            cf_say_bytes(cf_say(cf_begin(), "unknown setting "), cf_unquoted(name));
            config->failed = true;
        }
    }
}
static inline bool cf_flag(cf_config *config, const char *name, bool standard) {
    cf_bytes value;
    if (!cf_setting(config, name, &value)) return standard;
    if (cf_same(value, cf_text("true"))) return true;
    if (!cf_same(value, cf_text("false"))) cf_fail(config, name, ": true or false is needed");
    return false;
}
/* A number without exponent. */
static inline double cf_number(cf_config *config, const char *name, double standard, double least, double most) {
    cf_bytes value;
    if (!cf_setting(config, name, &value)) return standard;
    double number = 0, scale = 0;
    bool minus = value.at[0] == '-', right = value.length > minus;
    for (uint32_t i = minus; i < value.length; i++) {
        uint8_t byte = value.at[i];
        if (byte == '.' && scale == 0) scale = 1;
        else if (byte >= '0' && byte <= '9') number = number * 10 + (byte - '0'), scale *= 10;
        else right = false;
    }
    if (scale > 1) number /= scale;
    if (minus) number = -number;
    if (right && number >= least && number <= most) return number;
    cf_say_number(cf_say(cf_say_number(cf_say(cf_say(cf_begin(), name), ": a number from "), (uint64_t)least), " to "), (uint64_t)most);
    config->failed = true;
    return standard;
}
/* Undoes the escapes of a JSON text into a place of `room` bytes; answers the length, or UINT32_MAX when there is no room. */
static uint32_t cf_unescape(cf_bytes raw, uint8_t *into, uint32_t room) {
    uint32_t length = 0;
    for (uint32_t i = 0; i < raw.length; i++) {
        uint32_t character = raw.at[i];
        if (character == '\\' && i + 1 < raw.length) {
            character = raw.at[++i];
            if (character == 'n') character = '\n';
            else if (character == 't') character = '\t';
            else if (character == 'r') character = '\r';
            else if (character == 'b') character = 8;
            else if (character == 'f') character = 12;
            else if (character == 'u') {
                character = 0;
                for (uint32_t n = 0; n < 4 && i + 1 < raw.length; n++) {
                    uint8_t digit = raw.at[++i];
                    character = character << 4 | (digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10);
                }
                if (character >= 0x80) {
                    if (length + 3 > room) return UINT32_MAX;
                    if (character >= 0x800) into[length++] = 0xe0 | character >> 12, into[length++] = 0x80 | (character >> 6 & 63);
                    else into[length++] = 0xc0 | character >> 6;
                    character = 0x80 | (character & 63);
                }
            }
        }
        if (length == room) return UINT32_MAX;
        into[length++] = character;
    }
    return length;
}

/* A list of names, each a length byte and so many bytes. */
typedef struct { uint8_t bytes[2048]; uint32_t length; } cf_names;

static bool cf_add_name(cf_names *names, cf_bytes raw) {
    uint32_t room = sizeof names->bytes - names->length;
    if (room < 2) return false;
    uint32_t length = cf_unescape(raw, names->bytes + names->length + 1, room - 1);
    if (length > 255) return false;
    names->bytes[names->length] = length;
    names->length += length + 1;
    return true;
}
/* Takes the next name; *at begins as 0. */
static bool cf_next_name(const cf_names *names, uint32_t *at, cf_bytes *name) {
    if (*at >= names->length) return false;
    *name = (cf_bytes){names->bytes + *at + 1, names->bytes[*at]};
    *at += 1 + name->length;
    return true;
}
/* Reads a list of texts; answers whether it is set. */
static bool cf_texts(cf_config *config, const char *name, cf_names *names) {
    cf_bytes list, item;
    if (!cf_setting(config, name, &list)) return false;
    names->length = 0;
    if (!cf_skip(&list, '[')) { cf_fail(config, name, ": a list of texts is needed"); return true; }
    while (cf_value(&list, &item)) {
        if (!cf_is_text(item)) cf_fail(config, name, ": a list of texts is needed");
        else if (!cf_add_name(names, cf_unquoted(item))) cf_fail(config, name, ": too many or too long");
        cf_skip(&list, ',');
    }
    return true;
}
static inline bool cf_listed(const cf_names *names, cf_bytes word) {
    uint32_t at = 0;
    cf_bytes name;
    while (cf_next_name(names, &at, &name)) if (cf_same_word(name, word)) return true;
    return false;
}

#endif
