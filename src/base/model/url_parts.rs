//! Parts that the URLs of all kinds of endpoints have: host and port, percent-encoding, and why one is refused.
//!
//! Written by hand: the URL grammar of libpq and of Redis clients differs from the WHATWG's (docs/decisions/0010).

use std::fmt;

/// Why an endpoint URL was refused. Never contains the URL itself, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlError(pub(super) String);

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UrlError {}

pub(super) fn refuse<T>(why: impl Into<String>) -> Result<T, UrlError> {
    Err(UrlError(why.into()))
}

/// `default_port` when the url has none; `example` for the error.
pub(super) fn split_host_port(place: &str, default_port: &str, example: &str) -> Result<(String, u16), UrlError> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && (!host.contains(':') || host.starts_with('[')) => (host, port),
        _ => (place, default_port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return refuse(format!("the url has no host: write {example}"));
    }
    Ok((host.to_owned(), parse_port(port)?))
}

pub(super) fn parse_port(port: &str) -> Result<u16, UrlError> {
    match port.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => refuse(format!("port {port:?} is not a number from 1 to 65535")),
    }
}

pub(super) fn percent_decode(text: &str) -> Result<Vec<u8>, UrlError> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
            match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => out.push(byte),
                None => return refuse("a '%' in the url must be followed by two hex digits"),
            }
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    Ok(out)
}
