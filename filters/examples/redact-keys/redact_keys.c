/* Example: takes personal data out of records on their way into a clone or a target.
 *
 * Settings: "keys", patterns with * (a record whose key or namespace matches is redacted; absent: every record); "fields", names of
 * map fields or columns whose values are redacted (absent: the whole value); "replacement" ("[redacted]"); "clones_only" (true).
 * What it cannot redact (BSON, opaque, cut values, odd JSON) it drops: a record that is missing is seen, one that leaked is not.
 * Mirrored traffic is not changed by it: the shadow of live writes holds what clients write.
 */
#include "crossfade.h"

static cf_names patterns, fields;
static bool all_keys, whole, clones_only;
static uint8_t replacement[256];
static uint32_t replacement_length;
static uint8_t out[CF_BUFFER_BYTES];
static uint32_t out_length;

CF_EXPORT(cf_configure) uint32_t cf_configure(uint32_t length) {
    cf_config config = cf_read_config(length);
    cf_bytes text = cf_text("\"[redacted]\"");
    cf_only(&config, (const char *[]){"keys", "fields", "replacement", "clones_only"}, 4);
    all_keys = !cf_texts(&config, "keys", &patterns);
    whole = !cf_texts(&config, "fields", &fields);
    clones_only = cf_flag(&config, "clones_only", true);
    cf_setting(&config, "replacement", &text);
    replacement_length = cf_is_text(text) ? cf_unescape(cf_unquoted(text), replacement, sizeof replacement) : UINT32_MAX;
    if (replacement_length == UINT32_MAX) cf_fail(&config, "replacement", ": a text of at most 256 bytes is needed");
    return cf_configured(&config);
}

/* Pattern with * for any bytes. Goes back only to the last star, so it is never slower than length times length. */
static bool matches(cf_bytes pattern, cf_bytes text) {
    uint32_t p = 0, t = 0, star = UINT32_MAX, from = 0;
    while (t < text.length) {
        if (p < pattern.length && pattern.at[p] == '*') star = p++, from = t;
        else if (p < pattern.length && pattern.at[p] == text.at[t]) p++, t++;
        else if (star != UINT32_MAX) p = star + 1, t = ++from;
        else return false;
    }
    while (p < pattern.length && pattern.at[p] == '*') p++;
    return p == pattern.length;
}

static bool concerned(cf_bytes key, cf_bytes space) {
    if (all_keys) return true;
    uint32_t at = 0;
    cf_bytes pattern;
    while (cf_next_name(&patterns, &at, &pattern)) if (matches(pattern, key) || (space.length && matches(pattern, space))) return true;
    return false;
}

static bool put(cf_bytes bytes) {
    if (bytes.length > sizeof out - out_length) return false;
    cf_copy(out + out_length, bytes.at, bytes.length);
    out_length += bytes.length;
    return true;
}
static bool put_item(cf_bytes bytes) {
    uint32_t length = bytes.length;
    return put((cf_bytes){(const uint8_t *)&length, 4}) && put(bytes);
}
static cf_bytes instead(void) { return (cf_bytes){replacement, replacement_length}; }

/* Elements of a list or set are redacted each; of a map and a sorted set the values, and the members. */
static bool items(const cf_record *record, cf_bytes value) {
    bool field_next = true, redact = false;
    while (value.length) {
        uint32_t length;
        if (value.length < 4) return false;
        cf_copy(&length, value.at, 4);
        if (length > value.length - 4) return false;
        cf_bytes item = {value.at + 4, length};
        value.at += 4 + length, value.length -= 4 + length;
        bool hide;
        if (record->type == CF_TYPE_MAP) {
            hide = !field_next && redact;
            if (field_next) redact = whole || cf_listed(&fields, item);
            field_next = !field_next;
        } else if (record->type == CF_TYPE_SORTED_SET || record->type == CF_TYPE_SET || record->type == CF_TYPE_STREAM) {
            return false; /* equal members would fall together, and ids of a stream are not ours to change */
        } else hide = true;
        if (!put_item(hide ? instead() : item)) return false;
    }
    return field_next;
}

static bool quoted_replacement(void) {
    if (!put(cf_text("\""))) return false;
    for (uint32_t i = 0; i < replacement_length; i++) {
        uint8_t byte = replacement[i];
        if (byte < ' ') return false;
        if ((byte == '"' || byte == '\\') && !put(cf_text("\\"))) return false;
        if (!put((cf_bytes){&byte, 1})) return false;
    }
    return put(cf_text("\""));
}

/* A column's name may be written with escapes; it is compared by what it says. */
static bool named(cf_bytes raw) {
    static uint8_t name[256];
    uint32_t length = cf_unescape(cf_unquoted(raw), name, sizeof name);
    return length == UINT32_MAX || cf_listed(&fields, (cf_bytes){name, length});
}

static bool row(cf_bytes value) {
    cf_bytes rest = value, name, column;
    bool first = true;
    while (cf_member(&rest, &name, &column)) {
        if (!put(cf_text(first ? "{" : ",")) || !put(name) || !put(cf_text(":"))) return false;
        first = false;
        bool hide = (whole || named(name)) && !cf_same(column, cf_text("null"));
        if (hide ? !quoted_replacement() : !put(column)) return false;
    }
    return !first && cf_skip(&rest, '}') && put(cf_text("}"));
}

CF_HOOK(cf_on_record)(uint32_t length) {
    const cf_record *record = cf_record_view();
    cf_bytes value = cf_of(record, record->value);
    bool done = false;
    out_length = 0;
    if (clones_only && record->purpose != CF_CLONE) return cf_keep();
    if (!(record->flags & CF_RECORD_KEY_CUT) && !concerned(cf_of(record, record->key), cf_of(record, record->namespace_))) return cf_keep();
    if (!(record->flags & (CF_RECORD_VALUE_CUT | CF_RECORD_KEY_CUT))) {
        if (record->encoding == CF_RAW) done = put(instead());
        else if (record->encoding == CF_ITEMS) done = items(record, value);
        else if (record->encoding == CF_JSON) done = row(value);
    }
    cf_counter_add(done ? "redacted" : "dropped", done ? 8 : 7, 1);
    return done ? cf_replace((cf_bytes){out, out_length}) : cf_drop_record();
}
