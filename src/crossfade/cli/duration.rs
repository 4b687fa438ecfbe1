//! Durations on the command line: 500ms, 2s, 10m, "1h 30m".

use std::time::Duration;

/// # Errors
/// A sentence that names the text and shows what to write.
pub fn parse(text: &str) -> Result<Duration, String> {
    const FORMS: &str = "write a number with a unit, such as 500ms, 2s or 10m";
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{text:?} is not a duration ({error}): {FORMS}"))?;
    if duration.is_zero() { Err(format!("{text:?} is a duration of zero: {FORMS}")) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        let good = [("500ms", 500), ("2s", 2000), ("10m", 600_000), ("1h", 3_600_000), ("1h 30m", 5_400_000)];
        for (text, ms) in good {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)));
        }
        for (text, words) in [
            ("2", "unit"),
            ("", "500ms, 2s or 10m"),
            ("s", "500ms, 2s or 10m"),
            ("-1s", "500ms, 2s or 10m"),
            ("0s", "of zero"),
            ("2 parsecs", "unit"),
            ("99999999999999999999s", "not a duration"),
            ("9999999999999999999m", "not a duration"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(words) && error.contains("500ms"), "{text}: {error}");
        }
    }
}
