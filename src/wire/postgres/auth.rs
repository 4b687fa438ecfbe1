//! The messages of a log-in but SCRAM's: what a server asks for, what a client answers, md5 and plain passwords. Pure; any thread. SCRAM
//! is in [`super::scram`].

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use super::frame::{be32, cstr};
use base::model::login::Md5Hash;

/// What a server's Authentication frame (R) says (protocol-message-formats).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthRequest<'a> {
    Ok,
    Cleartext,
    Md5([u8; 4]),
    /// The mechanisms offered, the server's preferred one first.
    Sasl(Vec<&'a str>),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    /// Kerberos, GSSAPI, SSPI or something newer.
    Other(u32),
}

impl<'a> AuthRequest<'a> {
    /// Reads the body of an Authentication frame; `None` when it is too short for its kind.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let kind = be32(body)?;
        let data = &body[4..];
        Some(match kind {
            0 => Self::Ok,
            3 => Self::Cleartext,
            5 => Self::Md5(*data.first_chunk()?),
            10 => Self::Sasl(mechanisms(data)?),
            11 => Self::SaslContinue(data),
            12 => Self::SaslFinal(data),
            other => Self::Other(other),
        })
    }

    /// The method's name, for a message to an operator.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cleartext => "cleartext password",
            Self::Md5(_) => "md5",
            Self::Sasl(_) | Self::SaslContinue(_) | Self::SaslFinal(_) => "SASL",
            Self::Other(2) => "Kerberos V5",
            Self::Other(7 | 8) => "GSSAPI",
            Self::Other(9) => "SSPI",
            Self::Other(_) => "an unknown method",
        }
    }
}

fn mechanisms(data: &[u8]) -> Option<Vec<&str>> {
    let mut rest = data;
    let mut found = Vec::new();
    loop {
        let (name, after) = cstr(rest)?;
        if name.is_empty() {
            return Some(found);
        }
        found.push(std::str::from_utf8(name).unwrap_or("?"));
        rest = after;
    }
}

/// Reads the body of a PasswordMessage (p): the bytes before its NUL. `None` when the NUL is missing or not the last byte.
#[must_use]
pub fn password(body: &[u8]) -> Option<&[u8]> {
    cstr(body).filter(|(_, rest)| rest.is_empty()).map(|(password, _)| password)
}

/// Reads the body of a SASLInitialResponse (p): the mechanism that the client chose, and its first data, `None` when it sends none.
/// The outer `None`: the body is malformed (protocol-message-formats).
#[must_use]
pub fn sasl_initial(body: &[u8]) -> Option<(&str, Option<&[u8]>)> {
    let (mechanism, rest) = cstr(body)?;
    let (len, data) = (be32(rest)?, &rest[4..]);
    let data = match len {
        u32::MAX => None,
        len if len as usize == data.len() => Some(data),
        _ => return None,
    };
    Some((std::str::from_utf8(mechanism).ok()?, data))
}

fn md5_hex(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Md5::new();
    parts.iter().for_each(|part| digest.update(part));
    let bytes: [u8; 16] = digest.finalize().into();
    std::array::from_fn(|at| {
        let nibble = if at % 2 == 0 { bytes[at / 2] >> 4 } else { bytes[at / 2] & 15 };
        b"0123456789abcdef"[usize::from(nibble)]
    })
}

/// The hash that PostgreSQL stores for a user with an md5 password: md5(password, user), in hex (src/common/md5_common.c).
#[must_use]
pub fn md5_password(user: &str, password: &[u8]) -> Md5Hash {
    Md5Hash(md5_hex(&[password, user.as_bytes()]))
}

/// The answer to AuthenticationMD5Password: "md5" and 32 hex digits, without NUL (protocol-flow, Start-up).
#[must_use]
pub fn md5_response(hash: &Md5Hash, salt: [u8; 4]) -> Vec<u8> {
    [&b"md5"[..], &md5_hex(&[&hash.0, &salt])].concat()
}

/// Whether two secrets are equal. The time it takes depends on their lengths only, not on where they differ.
#[must_use]
pub fn same_secret(given: &[u8], expected: &[u8]) -> bool {
    bool::from(given.ct_eq(expected))
}

#[cfg(test)]
mod tests {
    use super::super::{encode, scram};
    use super::*;

    #[test]
    fn md5_as_postgresql_does_it() {
        // select 'md5' || md5('secret' || 'ann'); and the answer to the salt 1 2 3 4.
        let hash = md5_password("ann", b"secret");
        assert_eq!(String::from_utf8_lossy(&hash.0), "9d792a3a8853c2411afb9163d088c036");
        assert_eq!(String::from_utf8_lossy(&md5_response(&hash, [1, 2, 3, 4])), "md59009ce60b9ca97f1e752376843d1309e");
        assert!(same_secret(b"abc", b"abc") && !same_secret(b"abc", b"abd") && !same_secret(b"ab", b"abc"));
    }

    #[test]
    fn requests_are_read_back() {
        let read = |build: &dyn Fn(&mut Vec<u8>), check: &dyn Fn(Option<AuthRequest<'_>>)| {
            let mut out = Vec::new();
            build(&mut out);
            check(AuthRequest::read(&out[5..]));
        };
        read(&encode::authentication_ok, &|request| assert_eq!(request, Some(AuthRequest::Ok)));
        read(&encode::authentication_cleartext, &|request| assert_eq!(request, Some(AuthRequest::Cleartext)));
        read(&|out| encode::authentication_md5(out, *b"salt"), &|request| {
            assert_eq!(request, Some(AuthRequest::Md5(*b"salt")));
        });
        read(&|out| encode::authentication_sasl(out, &["SCRAM-SHA-256-PLUS", scram::MECHANISM]), &|request| {
            assert_eq!(request, Some(AuthRequest::Sasl(vec!["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])));
        });
        read(&|out| encode::authentication_sasl_final(out, b"v=x"), &|request| {
            assert_eq!(request, Some(AuthRequest::SaslFinal(b"v=x")));
        });
        for short in [&b""[..], b"\0\0\0\x05abc", b"\0\0\0\x0aSCRAM"] {
            assert_eq!(AuthRequest::read(short), None);
        }
        assert_eq!(AuthRequest::read(b"\0\0\0\x07").map(|request| request.name()), Some("GSSAPI"));
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(password(b"secret\0"), Some(&b"secret"[..]));
        assert_eq!((password(b"secret"), password(b"a\0b\0")), (None, None));
        let mut out = Vec::new();
        encode::sasl_initial_response(&mut out, scram::MECHANISM, b"n,,n=,r=x");
        assert_eq!(sasl_initial(&out[5..]), Some(("SCRAM-SHA-256", Some(&b"n,,n=,r=x"[..]))));
        assert_eq!(sasl_initial(b"M\0\xff\xff\xff\xff"), Some(("M", None)));
        assert_eq!(sasl_initial(b"M\0\0\0\0\x09short"), None);
    }
}
