//! Spans of time as they are written on the command line: 500ms, 2s, 10m.

use std::time::Duration;

/// # Errors
/// A sentence with what to write.
pub fn parse(text: &str) -> Result<Duration, String> {
    const FORMS: &str = "write 500ms, 2s or 10m";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a span of time: {FORMS}"))?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "" => return Err(format!("{text:?} has no unit: {number}s or {number}ms? {FORMS}")),
        _ => return Err(format!("the unit {unit:?} is not known: {FORMS}")),
    };
    let milliseconds = milliseconds.ok_or_else(|| format!("{text:?} is too long"))?;
    if milliseconds == 0 {
        Err(format!("{text:?} is no time at all: {FORMS}"))
    } else {
        Ok(Duration::from_millis(milliseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_number_and_a_unit() {
        let good = [("500ms", 500), ("2s", 2000), ("10m", 600_000), ("1h", 3_600_000)];
        for (text, ms) in good {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)));
        }
        for (text, words) in [
            ("2", "2s or 2ms?"),
            ("", "write 500ms"),
            ("s", "not a span"),
            ("2 s", "unit"),
            ("-1s", "not a span"),
            ("0s", "no time"),
            ("1.5s", "unit"),
            ("99999999999999999999s", "not a span"),
            ("9999999999999999999m", "too long"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
