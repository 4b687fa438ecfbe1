//! DUMP payloads and the values in them: any bytes are looked at without a panic; footers can be changed and changed back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::rdb::Dialect;
use wire::rdb::dump;
use wire::rdb::typed::{Element, elements, score_text};

fuzz_target!(|input: (u8, bool, u16, &[u8])| {
    let (type_byte, is_valkey, version, body) = input;
    let payload = dump::build(type_byte, body, version);
    let mut rewritten = payload.clone();
    dump::set_version(&mut rewritten, version ^ 1).expect("built with a right checksum");
    assert_eq!(dump::parse(&rewritten).map(|parts| (parts.type_byte, parts.body)), Ok((type_byte, body)));
    dump::set_version(&mut rewritten, version).expect("rewritten with a right checksum");
    assert_eq!(rewritten, payload);
    let _ = dump::parse(body);

    let dialect = if is_valkey { Dialect::Valkey } else { Dialect::Redis };
    let Ok(decoded) = elements(dialect, type_byte % 26, body) else { return };
    for element in decoded {
        match element {
            Ok(Element::Scored { score, .. }) => assert_eq!(score_text(score).parse(), Ok(score)),
            Ok(_) => {}
            Err(_) => break,
        }
    }
});
