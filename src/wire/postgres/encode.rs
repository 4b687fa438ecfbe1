//! Builds the frames that Crossfade itself sends. Each function appends one frame, or as many as it says, to `out`. Pure; any thread.
//!
//! Layouts: protocol-message-formats. NUL bytes within a text are left out, because a NUL ends it.

use super::startup;

/// Appends a tag, the length and what `body` writes.
fn frame(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    lengthened(out, body);
}

fn lengthened(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().filter(|byte| **byte != 0));
    out.push(0);
}

/// SSLRequest, the packet without a tag that asks for TLS.
pub fn ssl_request(out: &mut Vec<u8>) {
    lengthened(out, |out| out.extend_from_slice(&[0x04, 0xd2, 0x16, 0x2f]));
}

/// CancelRequest for the backend that gave `process` and `key` in its BackendKeyData.
pub fn cancel_request(out: &mut Vec<u8>, process: u32, key: &[u8]) {
    lengthened(out, |out| {
        out.extend_from_slice(&[0x04, 0xd2, 0x16, 0x2e]);
        out.extend_from_slice(&process.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// StartupMessage of protocol 3.`minor`.
pub fn startup(out: &mut Vec<u8>, minor: u16, parameters: &[(&str, &str)]) {
    out.extend_from_slice(&startup::build_startup(minor, parameters));
}

/// The optional fields of an ErrorResponse or NoticeResponse (protocol-error-fields).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct More<'a> {
    /// Field D.
    pub detail: Option<&'a str>,
    /// Field H.
    pub hint: Option<&'a str>,
}

impl<'a> More<'a> {
    /// Neither field.
    pub const NONE: Self = Self { detail: None, hint: None };

    /// A detail only.
    #[must_use]
    pub fn detail(detail: &'a str) -> Self {
        Self { detail: Some(detail), hint: None }
    }

    /// A hint only.
    #[must_use]
    pub fn hint(hint: &'a str) -> Self {
        Self { detail: None, hint: Some(hint) }
    }
}

/// ErrorResponse (E); `severity` is ERROR, FATAL or PANIC, `sqlstate` has five characters (errcodes-appendix).
pub fn error_response(out: &mut Vec<u8>, severity: &str, sqlstate: &str, message: &str, more: More<'_>) {
    report(out, b'E', severity, sqlstate, message, more);
}

/// NoticeResponse (N); `severity` is WARNING, NOTICE, DEBUG, INFO or LOG.
pub fn notice_response(out: &mut Vec<u8>, severity: &str, sqlstate: &str, message: &str, more: More<'_>) {
    report(out, b'N', severity, sqlstate, message, more);
}

fn report(out: &mut Vec<u8>, tag: u8, severity: &str, sqlstate: &str, message: &str, more: More<'_>) {
    let always = [(b'S', Some(severity)), (b'V', Some(severity)), (b'C', Some(sqlstate)), (b'M', Some(message))];
    frame(out, tag, |out| {
        for (kind, value) in always.into_iter().chain([(b'D', more.detail), (b'H', more.hint)]) {
            if let Some(value) = value {
                out.push(kind);
                text(out, value.as_bytes());
            }
        }
        out.push(0);
    });
}

/// ReadyForQuery (Z); `status` is b'I' (idle), b'T' (in a transaction) or b'E' (in a failed one).
pub fn ready_for_query(out: &mut Vec<u8>, status: u8) {
    frame(out, b'Z', |out| out.push(status));
}

fn authentication(out: &mut Vec<u8>, kind: u32, data: &[u8]) {
    frame(out, b'R', |out| {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// AuthenticationOk (R).
pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(out, 0, &[]);
}

/// AuthenticationCleartextPassword (R): asks for the password itself.
pub fn authentication_cleartext(out: &mut Vec<u8>) {
    authentication(out, 3, &[]);
}

/// AuthenticationMD5Password (R): asks for the md5 hash, hashed again with this salt.
pub fn authentication_md5(out: &mut Vec<u8>, salt: [u8; 4]) {
    authentication(out, 5, &salt);
}

/// AuthenticationSASL (R) with the mechanisms offered, the preferred one first.
pub fn authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    frame(out, b'R', |out| {
        out.extend_from_slice(&10u32.to_be_bytes());
        mechanisms.iter().for_each(|mechanism| text(out, mechanism.as_bytes()));
        out.push(0);
    });
}

/// AuthenticationSASLContinue (R).
pub fn authentication_sasl_continue(out: &mut Vec<u8>, data: &[u8]) {
    authentication(out, 11, data);
}

/// AuthenticationSASLFinal (R).
pub fn authentication_sasl_final(out: &mut Vec<u8>, data: &[u8]) {
    authentication(out, 12, data);
}

/// BackendKeyData (K). The key has 4 bytes in protocol 3.0 and 4 to 256 in 3.2.
pub fn backend_key_data(out: &mut Vec<u8>, process: u32, key: &[u8]) {
    frame(out, b'K', |out| {
        out.extend_from_slice(&process.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// ParameterStatus (S).
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    frame(out, b'S', |out| {
        text(out, name);
        text(out, value);
    });
}

/// NegotiateProtocolVersion (v): the newest minor version that Crossfade speaks, and the protocol options it does not know.
///
/// The number sent is the whole version (3 << 16 | minor), as PostgreSQL sends it and libpq reads it; the documentation says minor only.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, minor: u16, options: &[&str]) {
    frame(out, b'v', |out| {
        out.extend_from_slice(&(3 << 16 | u32::from(minor)).to_be_bytes());
        out.extend_from_slice(&(options.len() as u32).to_be_bytes());
        options.iter().for_each(|option| text(out, option.as_bytes()));
    });
}

/// PasswordMessage (p): a password, or the answer to an md5 salt.
pub fn password_message(out: &mut Vec<u8>, password: &[u8]) {
    frame(out, b'p', |out| text(out, password));
}

/// SASLInitialResponse (p): the mechanism chosen and its first data.
pub fn sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    frame(out, b'p', |out| {
        text(out, mechanism.as_bytes());
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// SASLResponse (p).
pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    frame(out, b'p', |out| out.extend_from_slice(data));
}

/// Query (Q): one or more statements in a simple query.
pub fn query(out: &mut Vec<u8>, sql: &str) {
    frame(out, b'Q', |out| text(out, sql.as_bytes()));
}

/// Parse (P) with the body of an earlier one.
pub fn parse(out: &mut Vec<u8>, body: &[u8]) {
    frame(out, b'P', |out| out.extend_from_slice(body));
}

/// Sync (S).
pub fn sync(out: &mut Vec<u8>) {
    frame(out, b'S', |_| {});
}

/// Terminate (X).
pub fn terminate(out: &mut Vec<u8>) {
    frame(out, b'X', |_| {});
}

/// Parse, Bind, Execute and Sync of a statement with one text parameter; all columns are asked for as text. Answered by '1', '2',
/// rows, 'C' and 'Z'.
pub fn query_with_parameter(out: &mut Vec<u8>, sql: &str, parameter: &[u8]) {
    frame(out, b'P', |out| {
        out.push(0);
        text(out, sql.as_bytes());
        out.extend_from_slice(&[0; 2]);
    });
    frame(out, b'B', |out| {
        // Portal and statement unnamed; no format codes: text; one parameter; no result codes: text.
        out.extend_from_slice(&[0, 0, 0, 0, 0, 1]);
        out.extend_from_slice(&(parameter.len() as u32).to_be_bytes());
        out.extend_from_slice(parameter);
        out.extend_from_slice(&[0; 2]);
    });
    frame(out, b'E', |out| out.extend_from_slice(&[0; 5]));
    sync(out);
}

#[cfg(test)]
mod tests {
    use super::super::frame::{self, Head};
    use super::*;

    fn built(build: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = b"before".to_vec();
        build(&mut out);
        out.split_off(6)
    }

    #[test]
    fn frames_are_those_of_the_documentation() {
        let table: &[(Vec<u8>, &[u8])] = &[
            (built(ssl_request), b"\0\0\0\x08\x04\xd2\x16\x2f"),
            (built(|out| cancel_request(out, 1, b"abcd")), b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd"),
            (built(|out| ready_for_query(out, b'T')), b"Z\0\0\0\x05T"),
            (built(authentication_ok), b"R\0\0\0\x08\0\0\0\0"),
            (built(authentication_cleartext), b"R\0\0\0\x08\0\0\0\x03"),
            (built(|out| authentication_md5(out, *b"salt")), b"R\0\0\0\x0c\0\0\0\x05salt"),
            (built(|out| authentication_sasl(out, &["A", "B"])), b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0"),
            (built(|out| authentication_sasl_continue(out, b"x")), b"R\0\0\0\x09\0\0\0\x0bx"),
            (built(|out| authentication_sasl_final(out, b"x")), b"R\0\0\0\x09\0\0\0\x0cx"),
            (built(|out| backend_key_data(out, 2, b"abcd")), b"K\0\0\0\x0c\0\0\0\x02abcd"),
            (built(|out| parameter_status(out, b"a", b"b")), b"S\0\0\0\x08a\0b\0"),
            (
                built(|out| negotiate_protocol_version(out, 2, &["_pq_.x"])),
                b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0",
            ),
            (built(|out| password_message(out, b"p\0w")), b"p\0\0\0\x07pw\0"),
            (built(|out| sasl_initial_response(out, "M", b"d")), b"p\0\0\0\x0bM\0\0\0\0\x01d"),
            (built(|out| sasl_response(out, b"d")), b"p\0\0\0\x05d"),
            (built(|out| query(out, "select 1")), b"Q\0\0\0\x0dselect 1\0"),
            (built(terminate), b"X\0\0\0\x04"),
            (
                built(|out| query_with_parameter(out, "q", b"ann")),
                b"P\0\0\0\x09\0q\0\0\0B\0\0\0\x13\0\0\0\0\0\x01\0\0\0\x03ann\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04",
            ),
        ];
        for (frame, expected) in table {
            assert_eq!(frame, expected, "{:?}", String::from_utf8_lossy(expected));
        }
    }

    #[test]
    fn an_error_says_what_it_was_given() {
        let error = built(|out| error_response(out, "FATAL", "57P01", "moved", More::hint("reconnect")));
        assert_eq!(frame::server_head(&error), Head::Frame { tag: b'E', body_len: error.len() - 5 });
        let fields: Vec<_> = frame::error_fields(&error[5..]).collect();
        let expected = [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', "57P01"), (b'M', "moved"), (b'H', "reconnect")];
        assert_eq!(fields, expected);
        let notice = built(|out| notice_response(out, "NOTICE", "00000", "m", More::detail("d")));
        assert_eq!((notice[0], frame::error_field(&notice[5..], b'D')), (b'N', Some("d")));
    }
}
