//! What a session keeps, through any sequence of what clients and servers may say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::postgres::registry::Registry;

fuzz_target!(|steps: Vec<(u8, &[u8], &[u8])>| {
    let mut registry = Registry::new();
    for (step, name, body) in steps {
        match step % 12 {
            0 => registry.on_parse(name, body),
            1 => registry.on_parse_too_long(name),
            2 => registry.on_close_statement(name),
            3 => registry.on_close_portal(),
            4 => drop(registry.on_statement(body)),
            5 => registry.on_unknown_statement(),
            6 => registry.on_sync(),
            7 => registry.on_parse_complete(),
            8 => registry.on_close_complete(),
            9 => registry.on_complete(body),
            10 => registry.on_error(),
            _ => registry.on_ready(step, name.len()),
        }
        let _ = (registry.statement_text(name), registry.is_complete(), registry.keeps(), registry.prepared().count());
    }
});
