//! What a connection begins with: encryption requests, cancel requests and the startup packet. Pure; any thread. Speaks no TLS.
//!
//! These packets have no tag, only a length (protocol-message-formats). Texts and codes of refusals are PostgreSQL's own
//! (src/backend/tcop/backend_startup.c, `ProcessStartupPacket`).

use super::frame::{Violation, be32, cstr};
use base::model::limits;

const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;
const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSS_REQUEST: u32 = 1234 << 16 | 5680;
/// The first byte of a TLS handshake record; no packet within the length limit begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// What the first bytes of a connection, or those after a refused encryption request, are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    NeedMore,
    Ssl,
    Gss,
    Cancel {
        process: u32,
        key: Vec<u8>,
    },
    Startup(Startup),
    /// TLS without an SSLRequest (`sslnegotiation=direct`, PostgreSQL 17): the handshake is still in the buffer.
    DirectTls,
    Invalid(Violation),
}

/// A startup packet of protocol 3.
#[derive(Clone, PartialEq, Eq)]
pub struct Startup {
    /// The minor version the client asks for. A server answers a newer one than its own with NegotiateProtocolVersion.
    pub minor: u16,
    /// The whole packet, its length included: the server can be sent exactly what the client sent.
    pub raw: Vec<u8>,
    /// In the packet's order; bytes that are not UTF-8 are replaced.
    pub parameters: Vec<(String, String)>,
}

/// Shows names only, because values may be secrets of the application.
impl std::fmt::Debug for Startup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        f.debug_struct("Startup").field("minor", &self.minor).field("parameters", &names).finish()
    }
}

/// Reads the packet that begins `bytes`. The number is the packet's length in bytes; 0 for `NeedMore`, `DirectTls` and `Invalid`.
#[must_use]
pub fn opening(bytes: &[u8]) -> (Opening, usize) {
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return (Opening::DirectTls, 0);
    }
    let Some(len) = be32(bytes) else { return (Opening::NeedMore, 0) };
    let len = len as usize;
    if !(8..=limits::PG_STARTUP_BYTES_MAX + 4).contains(&len) {
        return (Opening::Invalid(bad_length()), 0);
    }
    let Some(packet) = bytes.get(..len) else { return (Opening::NeedMore, 0) };
    let opening = match be32(&packet[4..]) {
        Some(SSL_REQUEST) => Opening::Ssl,
        Some(GSS_REQUEST) => Opening::Gss,
        Some(CANCEL_REQUEST) => cancel(&packet[8..]),
        Some(version) => Startup::read(packet, version).map_or_else(Opening::Invalid, Opening::Startup),
        None => Opening::Invalid(bad_length()),
    };
    let used = if matches!(opening, Opening::Invalid(_)) { 0 } else { len };
    (opening, used)
}

fn bad_length() -> Violation {
    Violation::protocol("invalid length of startup packet")
}

fn cancel(body: &[u8]) -> Opening {
    match super::frame::backend_key_data(body) {
        Some((process, key)) => Opening::Cancel { process, key: key.to_vec() },
        // As in PostgreSQL, a cancel request is never answered, not even when it is malformed. This one names no session.
        None => Opening::Cancel { process: 0, key: Vec::new() },
    }
}

impl Startup {
    fn read(packet: &[u8], version: u32) -> Result<Self, Violation> {
        let (major, minor) = (version >> 16, (version & 0xffff) as u16);
        if major != 3 {
            let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2");
            return Err(Violation { sqlstate: "0A000", message });
        }
        let layout = || Violation::protocol("invalid startup packet layout: expected terminator as last byte");
        let mut rest = &packet[8..];
        let mut parameters = Vec::new();
        while rest.first().ok_or_else(layout)? != &0 {
            let (name, after) = cstr(rest).ok_or_else(layout)?;
            let (value, after) = cstr(after).ok_or_else(layout)?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            parameters.push((text(name), text(value)));
            rest = after;
        }
        if rest.len() != 1 {
            return Err(layout());
        }
        let startup = Self { minor, raw: packet.to_vec(), parameters };
        if startup.user().is_empty() {
            let message = "no PostgreSQL user name specified in startup packet".to_owned();
            return Err(Violation { sqlstate: "28000", message });
        }
        Ok(startup)
    }

    /// A parameter's value; the last one if it is given more than once, as in PostgreSQL.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The user's name; never empty, because a packet without one is refused.
    #[must_use]
    pub fn user(&self) -> &str {
        self.parameter("user").unwrap_or("")
    }

    /// The database's name: the user's when none or an empty one is given (protocol-message-formats, StartupMessage).
    #[must_use]
    pub fn database(&self) -> &str {
        self.parameter("database").filter(|name| !name.is_empty()).unwrap_or_else(|| self.user())
    }

    /// The name the application gives itself; empty when it gives none.
    #[must_use]
    pub fn application_name(&self) -> &str {
        self.parameter("application_name").unwrap_or("")
    }

    /// Whether a replication connection is asked for: `replication` is there and is not a spelling of false that PostgreSQL's `parse_bool`
    /// accepts. A value that PostgreSQL would refuse counts as yes.
    #[must_use]
    pub fn replication(&self) -> bool {
        let says_no = |value: &str| {
            let value = value.to_ascii_lowercase();
            let short_for = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
            value == "0" || short_for("false", 1) || short_for("no", 1) || short_for("off", 2)
        };
        self.parameter("replication").is_some_and(|value| !says_no(value))
    }

    /// The protocol options asked for. None is defined yet, so each must be named in a NegotiateProtocolVersion (protocol-flow, Start-up).
    #[must_use]
    pub fn unsupported_options(&self) -> Vec<&str> {
        self.parameters.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("_pq_.")).collect()
    }
}

/// A startup packet of protocol 3.`minor`, its length included. NUL bytes within a parameter are left out, because a NUL ends it.
#[must_use]
pub fn build_startup(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = vec![0; 4];
    packet.extend_from_slice(&(3 << 16 | u32::from(minor)).to_be_bytes());
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        packet.extend(text.bytes().filter(|byte| *byte != 0));
        packet.push(0);
    }
    packet.push(0);
    let len = packet.len() as u32;
    packet[..4].copy_from_slice(&len.to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use super::super::encode;
    use super::*;

    fn startup(parameters: &[(&str, &str)]) -> Startup {
        match opening(&build_startup(0, parameters)) {
            (Opening::Startup(startup), _) => startup,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(bytes: &[u8]) -> String {
        match opening(bytes) {
            (Opening::Invalid(why), 0) => why.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_before_the_startup_packet() {
        let mut bytes = Vec::new();
        encode::ssl_request(&mut bytes);
        assert_eq!(opening(&bytes), (Opening::Ssl, 8));
        bytes.extend_from_slice(b"more");
        assert_eq!(opening(&bytes), (Opening::Ssl, 8));
        assert_eq!(opening(b"\0\0\0\x08\x04\xd2\x16\x30"), (Opening::Gss, 8));
        assert_eq!(opening(b"\x16\x03\x01"), (Opening::DirectTls, 0));
        for len in [4, 32, 256] {
            let (key, mut bytes) = (vec![9; len], Vec::new());
            encode::cancel_request(&mut bytes, 77, &key);
            assert_eq!(opening(&bytes), (Opening::Cancel { process: 77, key }, 12 + len));
        }
        for len in [0, 3, 257] {
            let mut bytes = Vec::new();
            encode::cancel_request(&mut bytes, 77, &vec![9; len]);
            assert_eq!(opening(&bytes).0, Opening::Cancel { process: 0, key: Vec::new() }, "it names nobody");
        }
    }

    #[test]
    fn a_startup_packet_is_read_and_kept() {
        let raw = build_startup(
            2,
            &[("user", "ann"), ("application_name", "app"), ("_pq_.fancy", "1"), ("options", "-c a.b=c")],
        );
        let (Opening::Startup(startup), used) = opening(&[&raw[..], b"p"].concat()) else { panic!() };
        assert_eq!((used, &startup.raw, startup.minor), (raw.len(), &raw, 2));
        assert_eq!((startup.user(), startup.database(), startup.application_name()), ("ann", "ann", "app"));
        assert_eq!(startup.unsupported_options(), ["_pq_.fancy"]);
        assert!(!startup.replication());
        assert_eq!(super::tests::startup(&[("user", "a"), ("database", "d")]).database(), "d");
        assert_eq!(super::tests::startup(&[("user", "a"), ("database", "")]).database(), "a");
        assert!(!format!("{startup:?}").contains("a.b=c"));
        for cut in 0..raw.len() {
            assert_eq!(opening(&raw[..cut]), (Opening::NeedMore, 0), "cut at {cut}");
        }
    }

    #[test]
    fn replication_is_a_boolean_or_a_word() {
        for yes in ["true", "on", "1", "database", "yes", "t", "nonsense", ""] {
            assert!(startup(&[("user", "a"), ("replication", yes)]).replication() || yes.is_empty(), "{yes}");
        }
        for no in ["false", "off", "0", "no", "F", "of"] {
            assert!(!startup(&[("user", "a"), ("replication", no)]).replication(), "{no}");
        }
    }

    #[test]
    fn hostile_openings_are_refused_in_postgresqls_words() {
        for bad in [&b"GET / HTTP/1.1\r\n"[..], b"\0\0\0\x07", b"\0\0\0\0", b"\0\0\x27\x15", b"\xff\xff\xff\xff"] {
            assert_eq!(refusal(bad), "invalid length of startup packet (08P01)");
        }
        assert_eq!(opening(b"\0\0\x27\x14"), (Opening::NeedMore, 0));
        let words = "unsupported frontend protocol 2.0: server supports 3.0 to 3.2 (0A000)";
        assert_eq!(refusal(b"\0\0\0\x09\0\x02\0\0\0"), words);
        assert_eq!(refusal(b"\0\0\0\x09\0\x03\0\0\0"), "no PostgreSQL user name specified in startup packet (28000)");
        assert_eq!(
            refusal(&build_startup(0, &[("user", "")])),
            "no PostgreSQL user name specified in startup packet (28000)"
        );
        let layout = "invalid startup packet layout: expected terminator as last byte (08P01)";
        for bad in [
            &b"\0\0\0\x08\0\x03\0\0"[..],
            b"\0\0\0\x0d\0\x03\0\0user\0",
            b"\0\0\0\x0f\0\x03\0\0user\0a\0",
            b"\0\0\0\x0a\0\x03\0\0\0\0",
        ] {
            assert_eq!(refusal(bad), layout, "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, short: bool) {
            if short && bytes.len() >= 8 {
                let len = bytes.len() as u32;
                bytes[..4].copy_from_slice(&len.to_be_bytes());
                bytes[4..8].copy_from_slice(&[0, 3, 0, 0]);
            }
            let (opening, used) = opening(&bytes);
            proptest::prop_assert!(used <= bytes.len());
            if let Opening::Startup(startup) = opening {
                proptest::prop_assert!(!startup.user().is_empty());
            }
        }
    }
}
