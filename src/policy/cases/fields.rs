//! Takes the fields of a recorded case out of its JSON; a field that is left at the end has a misspelt name.

use serde_json::{Map, Value};

use base::model::limits;

/// An object whose fields are taken out one by one. Errors name the field's place in the case.
pub(super) struct Fields {
    left: Map<String, Value>,
    place: String,
}

fn shortened(value: &Value) -> String {
    let mut text = value.to_string();
    text.truncate(text.floor_char_boundary(100));
    text
}

impl Fields {
    pub fn of(value: Value, place: &str) -> Result<Self, String> {
        match value {
            Value::Object(left) => Ok(Self { left, place: place.to_owned() }),
            other => Err(format!("{place}: an object is needed, not {}", shortened(&other))),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name)
    }

    /// An object within this one; an empty one if it is absent.
    pub fn object(&mut self, name: &str) -> Result<Self, String> {
        let place = self.named(name);
        Self::of(self.take(name).unwrap_or_else(|| Value::Object(Map::new())), &place)
    }

    pub fn list(&mut self, name: &str) -> Result<Vec<Value>, String> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(self.wrong(name, "a list", &other)),
        }
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string", &other)),
        }
    }

    pub fn number(&mut self, name: &str, standard: u64) -> Result<u64, String> {
        match self.take(name) {
            None => Ok(standard),
            Some(value) => value.as_u64().ok_or_else(|| self.wrong(name, "a whole number from 0", &value)),
        }
    }

    /// A number that fits into 32 bits.
    pub fn short(&mut self, name: &str, standard: u32) -> Result<u32, String> {
        let number = self.number(name, u64::from(standard))?;
        u32::try_from(number).map_err(|_| format!("{}: {number} is more than {}", self.named(name), u32::MAX))
    }

    pub fn signed(&mut self, name: &str, standard: i64) -> Result<i64, String> {
        match self.take(name) {
            None => Ok(standard),
            Some(value) => value.as_i64().ok_or_else(|| self.wrong(name, "a whole number", &value)),
        }
    }

    /// The code that a word stands for.
    pub fn code(&mut self, name: &str, standard: u8, known: &[(&'static str, u8)]) -> Result<u8, String> {
        let Some(word) = self.text(name)? else { return Ok(standard) };
        known.iter().find(|(own, _)| *own == word).map(|(_, code)| *code).ok_or_else(|| {
            let words = known.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            format!("{}: {word:?} is not one of {words}", self.named(name))
        })
    }

    /// The flag bits that a list of words stands for.
    pub fn flags(&mut self, known: &[(&'static str, u32)]) -> Result<u32, String> {
        let mut bits = 0;
        for word in self.list("flags")? {
            let found = known.iter().find(|(own, _)| Some(*own) == word.as_str());
            let Some((_, bit)) = found else {
                let words = known.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
                return Err(format!("{}: {} is not one of {words}", self.named("flags"), shortened(&word)));
            };
            bits |= bit;
        }
        Ok(bits)
    }

    pub fn bytes(&mut self, name: &str, standard: &[u8]) -> Result<Vec<u8>, String> {
        match self.take(name) {
            None => Ok(standard.to_vec()),
            Some(value) => bytes(value, &self.named(name)),
        }
    }

    /// Call this after all known fields have been taken.
    pub fn end(self) -> Result<(), String> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("{}: there is no field of this name", self.named(name))),
        }
    }

    pub fn named(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    fn wrong(&self, name: &str, needed: &str, found: &Value) -> String {
        format!("{}: {needed} is needed, not {}", self.named(name), shortened(found))
    }
}

/// A string, or an object that stands for bytes: `hex`, `repeat` with `times`, `items`, `concat`.
pub(super) fn bytes(value: Value, place: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    append(value, place, &mut out)?;
    Ok(out)
}

fn append(value: Value, place: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let mut fields = match value {
        Value::String(text) => return push(out, text.as_bytes(), place),
        other => Fields::of(other, place)?,
    };
    if let Some(digits) = fields.text("hex")? {
        push(
            out,
            &from_hex(&digits).ok_or_else(|| format!("{place}.hex: pairs of hexadecimal digits are needed"))?,
            place,
        )?;
    } else if let Some(piece) = fields.text("repeat")? {
        let times = fields.number("times", 0)?;
        let whole = (piece.len() as u64).checked_mul(times).filter(|all| *all <= limits::POLICY_CASE_BYTES_MAX as u64);
        whole.ok_or_else(|| too_long(place))?;
        for _ in 0..times {
            push(out, piece.as_bytes(), place)?;
        }
    } else if fields.has("items") {
        for (at, item) in fields.list("items")?.into_iter().enumerate() {
            let item = bytes(item, &format!("{place}.items[{at}]"))?;
            push(out, &(item.len() as u32).to_le_bytes(), place)?;
            push(out, &item, place)?;
        }
    } else if fields.has("concat") {
        for (at, piece) in fields.list("concat")?.into_iter().enumerate() {
            append(piece, &format!("{place}.concat[{at}]"), out)?;
        }
    } else if fields.left.is_empty() {
        return Err(format!("{place}: bytes are a string, or an object with hex, repeat, items or concat"));
    }
    fields.end()
}

fn push(out: &mut Vec<u8>, piece: &[u8], place: &str) -> Result<(), String> {
    if out.len() + piece.len() > limits::POLICY_CASE_BYTES_MAX {
        return Err(too_long(place));
    }
    out.extend_from_slice(piece);
    Ok(())
}

fn too_long(place: &str) -> String {
    format!("{place}: more than {} bytes", limits::POLICY_CASE_BYTES_MAX)
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(value(*high)? << 4 | value(*low)?),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_in_every_form() {
        let read = |value| bytes(value, "value").expect("bytes");
        assert_eq!(read(json!("é")), "é".as_bytes());
        assert_eq!(read(json!({"hex": "00fF"})), [0, 0xff]);
        assert_eq!(read(json!({"repeat": "ab", "times": 3})), b"ababab");
        assert_eq!(read(json!({"items": ["a", {"hex": ""}]})), b"\x01\0\0\0a\0\0\0\0");
        assert_eq!(read(json!({"concat": ["a", {"concat": []}, {"repeat": "b", "times": 2}]})), b"abb");
        for bad in [
            json!(1),
            json!({}),
            json!({"hex": "0"}),
            json!({"hex": "+1"}),
            json!({"hex": "00", "repeat": "x"}),
            json!({"repeat": "x", "times": u64::MAX}),
            json!({"repeat": "x", "times": -1}),
            json!({"what": 1}),
            json!({"items": "a"}),
        ] {
            let said = bytes(bad.clone(), "value").expect_err("not bytes");
            assert!(said.starts_with("value"), "{bad}: {said}");
        }
    }
}
