//! A reader of the configuration: one JSON object of numbers, texts, flags and lists of texts. Allocates nothing.
//!
//! The host has checked that it is JSON. What is not what was asked for is an error that names the setting.

use crate::Text;

/// The configuration table of this policy, as JSON.
#[derive(Clone, Copy)]
pub struct Config<'a>(&'a [u8]);

impl<'a> Config<'a> {
    pub fn new(json: &'a [u8]) -> Self {
        Config(json)
    }

    /// Refuses a setting whose name is none of these: a misspelt one would be silently without effect.
    pub fn only(&self, names: &[&str]) -> Result<(), Text> {
        match self.members().find(|(name, _)| !names.iter().any(|known| name.is(known))) {
            None => Ok(()),
            Some((name, _)) => Err(Text::new().with("unknown setting ").with(name.raw)),
        }
    }

    /// A number between `least` and `most`, or `default` when it is not set.
    pub fn number(&self, name: &str, default: f64, least: f64, most: f64) -> Result<f64, Text> {
        let Some(raw) = self.value(name) else { return Ok(default) };
        match parse_number(raw) {
            Some(value) if value >= least && value <= most => Ok(value),
            _ => Err(Text::new()
                .with(name)
                .with(": a number from ")
                .number(least as u64)
                .with(" to ")
                .number(most as u64)
                .with(" is needed")),
        }
    }

    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Text> {
        match self.value(name) {
            None => Ok(default),
            Some(b"true") => Ok(true),
            Some(b"false") => Ok(false),
            Some(_) => Err(Text::new().with(name).with(": true or false is needed")),
        }
    }

    pub fn text(&self, name: &str) -> Result<Option<JsonText<'a>>, Text> {
        let Some(raw) = self.value(name) else { return Ok(None) };
        match JsonText::whole(raw) {
            Some(text) => Ok(Some(text)),
            None => Err(Text::new().with(name).with(": a text is needed")),
        }
    }

    /// A list of texts; calls `each` for every one. `Ok(false)` when it is not set. `each` answers whether there was room.
    pub fn texts(&self, name: &str, mut each: impl FnMut(JsonText<'a>) -> bool) -> Result<bool, Text> {
        let Some(raw) = self.value(name) else { return Ok(false) };
        let bad = || Text::new().with(name).with(": a list of texts is needed");
        let mut rest = space(raw.strip_prefix(b"[").ok_or_else(bad)?);
        while !rest.starts_with(b"]") {
            let (item, behind) = value(rest).ok_or_else(bad)?;
            if !each(JsonText::whole(item).ok_or_else(bad)?) {
                return Err(Text::new().with(name).with(": too many or too long"));
            }
            rest = space(behind);
            rest = space(rest.strip_prefix(b",").unwrap_or(rest));
        }
        Ok(true)
    }

    fn value(&self, wanted: &str) -> Option<&'a [u8]> {
        self.members().find(|(name, _)| name.is(wanted)).map(|(_, value)| value)
    }

    fn members(&self) -> impl Iterator<Item = (JsonText<'a>, &'a [u8])> + use<'a> {
        let mut rest = space(self.0).strip_prefix(b"{").unwrap_or(&[]);
        core::iter::from_fn(move || {
            let from = space(rest);
            let (name, behind) = value(space(from.strip_prefix(b",").unwrap_or(from)))?;
            let (member, behind) = value(space(space(behind).strip_prefix(b":")?))?;
            rest = behind;
            Some((JsonText::whole(name)?, member))
        })
    }
}

/// A text of the configuration, still with its escapes.
#[derive(Clone, Copy)]
pub struct JsonText<'a> {
    raw: &'a [u8],
}

impl<'a> JsonText<'a> {
    fn whole(raw: &'a [u8]) -> Option<Self> {
        raw.strip_prefix(b"\"")?.strip_suffix(b"\"").map(|raw| JsonText { raw })
    }

    pub fn is(&self, text: &str) -> bool {
        self.bytes().eq(text.bytes())
    }

    /// The text in UTF-8, escapes undone. A surrogate without its other half becomes `?`.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + use<'a> {
        let (mut rest, mut ready, mut at) = (self.raw, [0; 4], 4);
        core::iter::from_fn(move || {
            if at < 4 {
                at += 1;
                return Some(ready[at - 1]);
            }
            let (&first, behind) = rest.split_first()?;
            rest = behind;
            if first != b'\\' {
                return Some(first);
            }
            let (&escape, behind) = rest.split_first()?;
            rest = behind;
            Some(match escape {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'b' => 8,
                b'f' => 12,
                b'u' => {
                    let character = unit(&mut rest);
                    let mut utf8 = [0; 4];
                    let length = character.encode_utf8(&mut utf8).len();
                    at = 4 - length;
                    ready[at..].copy_from_slice(&utf8[..length]);
                    at += 1;
                    ready[at - 1]
                }
                itself => itself,
            })
        })
    }
}

/// The character of `\uXXXX`, with the pair that follows when it is half of one.
fn unit(rest: &mut &[u8]) -> char {
    let high = hex(rest);
    if (0xd800..0xdc00).contains(&high)
        && let Some(mut behind) = rest.strip_prefix(b"\\u")
    {
        let low = hex(&mut behind);
        if (0xdc00..0xe000).contains(&low) {
            *rest = behind;
            return char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).unwrap_or('?');
        }
    }
    char::from_u32(high).unwrap_or('?')
}

fn hex(rest: &mut &[u8]) -> u32 {
    let Some((digits, behind)) = rest.split_at_checked(4) else { return u32::from(b'?') };
    *rest = behind;
    digits.iter().fold(0, |value, &digit| value << 4 | (digit as char).to_digit(16).unwrap_or(0))
}

fn space(json: &[u8]) -> &[u8] {
    json.trim_ascii_start()
}

/// The first value of `json` as it stands there, and what follows it.
fn value(json: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut depth, mut quoted, mut at) = (0_u32, false, 0);
    while let Some(&byte) = json.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted && depth > 0 => depth -= 1,
            b',' | b':' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' if !quoted && depth == 0 => break,
            _ => {}
        }
        at += 1;
        // A text, list or object ends where it closes; a number or a word where something else begins.
        if !quoted && depth == 0 && matches!(byte, b'"' | b'}' | b']') {
            break;
        }
    }
    if at == 0 { None } else { json.split_at_checked(at) }
}

/// A decimal number: sign, digits, fraction, exponent, `inf`. About 15 digits count. `None` for anything else.
pub fn parse_number(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if digits.eq_ignore_ascii_case(b"inf") || digits.eq_ignore_ascii_case(b"infinity") {
        return Some(if negative { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    let (mut value, mut scale, mut seen, mut fraction, mut at) = (0.0_f64, 0_i32, false, false, 0);
    while let Some(&byte) = digits.get(at) {
        match byte {
            b'0'..=b'9' => {
                seen = true;
                value = value * 10.0 + f64::from(byte - b'0');
                scale -= i32::from(fraction);
            }
            b'.' if !fraction => fraction = true,
            b'e' | b'E' if seen => {
                scale = scale.saturating_add(parse_exponent(&digits[at + 1..])?);
                break;
            }
            _ => return None,
        }
        at += 1;
    }
    if !seen {
        return None;
    }
    let mut power = 1.0_f64;
    for _ in 0..scale.unsigned_abs().min(700) {
        power *= 10.0;
    }
    let value = if scale < 0 { value / power } else { value * power };
    Some(if negative { -value } else { value })
}

fn parse_exponent(text: &[u8]) -> Option<i32> {
    let (sign, digits) = match text.split_first()? {
        (b'-', rest) => (-1, rest),
        (b'+', rest) => (1, rest),
        _ => (1, text),
    };
    if digits.is_empty() {
        return None;
    }
    digits
        .iter()
        .try_fold(0_i32, |value, &digit| match digit {
            b'0'..=b'9' => Some(value.saturating_mul(10).saturating_add(i32::from(digit - b'0')).min(10_000)),
            _ => None,
        })
        .map(|value| sign * value)
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    fn text(text: JsonText<'_>) -> String {
        String::from_utf8(text.bytes().collect()).expect("UTF-8")
    }

    #[test]
    fn settings_are_read() {
        let config = Config::new(
            br#" { "a" : 1.5e2, "b":["x\n\"y", "\u00e9\ud83d\ude00", ""], "c": {"a": [2, "}"]}, "d":true,"e" :"\\" } "#,
        );
        assert_eq!(config.number("a", 0.0, 0.0, 200.0).expect("a number"), 150.0);
        assert_eq!(config.number("none", 7.0, 0.0, 200.0).expect("the default"), 7.0);
        assert!(config.number("d", 0.0, 0.0, 1.0).is_err() && config.number("a", 0.0, 0.0, 100.0).is_err());
        let mut texts = Vec::new();
        assert!(
            config
                .texts("b", |item| {
                    texts.push(text(item));
                    true
                })
                .expect("a list")
        );
        assert_eq!(texts, ["x\n\"y", "\u{e9}\u{1f600}", ""]);
        assert!(config.flag("d", false).expect("a flag") && config.flag("a", false).is_err());
        assert_eq!(config.text("e").expect("a text").map(text).as_deref(), Some("\\"));
        assert!(config.texts("a", |_| true).is_err() && config.text("a").is_err());
        assert!(config.only(&["a", "b", "c", "d", "e"]).is_ok());
        let unknown = config.only(&["a", "b", "c", "d"]).expect_err("e is unknown");
        assert_eq!(unknown.as_ref(), b"unknown setting e");
    }

    #[test]
    fn broken_json_ends_every_reader() {
        let whole = br#"{"a": ["x", {"y": "\u12"}], "b": 1}"#;
        for cut in 0..whole.len() {
            let config = Config::new(&whole[..cut]);
            let _ = (config.only(&[]), config.number("a", 0.0, 0.0, 1.0), config.text("a"), config.flag("b", true));
            let _ = config.texts("a", |item| item.bytes().count() < 100);
        }
    }

    #[test]
    fn numbers() {
        for (text, expected) in
            [("0", 0.0), ("-12.50", -12.5), ("1e3", 1000.0), ("2.5E-1", 0.25), ("+3", 3.0), ("1e999", f64::INFINITY)]
        {
            assert_eq!(parse_number(text.as_bytes()), Some(expected), "{text}");
        }
        assert_eq!(parse_number(b"-inf"), Some(f64::NEG_INFINITY));
        for text in ["", "-", ".", "1x", "e5", "1e", "1.2.3", "nan", "0x10", "1e-"] {
            assert_eq!(parse_number(text.as_bytes()), None, "{text}");
        }
    }
}
