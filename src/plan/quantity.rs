//! Numbers with units, as people write and read them.

use std::fmt;

use serde::Serialize;

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {expected}")]
pub struct QuantityError {
    /// What was written.
    found: String,
    /// What can be written instead, with examples.
    expected: &'static str,
}

/// A time, above 0 and finite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Seconds(f64);

/// The speed of a link in one direction, above 0 and finite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct BytesPerSecond(f64);

impl Seconds {
    /// Times that can be asked about: a nanosecond to a quarter of a year.
    const RANGE: std::ops::RangeInclusive<f64> = 1e-9..=1e7;

    /// A time computed from others.
    pub(super) fn of(seconds: f64) -> Seconds {
        Seconds(seconds)
    }

    /// The number of seconds.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Reads `50ms`, `1.5s`, `800us`, `2min`.
    ///
    /// # Errors
    /// If it is something else, below a nanosecond or above 1e7 seconds.
    pub fn parse(text: &str) -> Result<Seconds, QuantityError> {
        let error = || QuantityError { found: text.into(), expected: "a time such as 50ms, 1.5s, 800us or 2min" };
        let (digits, unit) = split(text).ok_or_else(error)?;
        let (exponent, factor) = match unit {
            "ns" => (-9, 1.0),
            "us" | "µs" => (-6, 1.0),
            "ms" => (-3, 1.0),
            "s" => (0, 1.0),
            "min" => (0, 60.0),
            _ => return Err(error()),
        };
        let seconds = scaled(&digits, exponent).ok_or_else(error)? * factor;
        if Seconds::RANGE.contains(&seconds) { Ok(Seconds(seconds)) } else { Err(error()) }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HOUR: f64 = 3600.0;
        const DAY: f64 = 24.0 * HOUR;
        f.pad(&match self.0 {
            seconds if seconds < 599.5 => prefixed(seconds, &[(-3, "ns"), (-2, "us"), (-1, "ms"), (0, "s")]),
            seconds if seconds < HOUR => format!("{} min", significant(seconds / 60.0, 3, false)),
            seconds if seconds < 99.95 * HOUR => format!("{} h", significant(seconds / HOUR, 3, false)),
            seconds if seconds < 9999.5 * DAY => format!("{} d", significant(seconds / DAY, 3, false)),
            seconds => format!("{:.1e} d", seconds / DAY),
        })
    }
}

impl BytesPerSecond {
    /// Links that can be asked about: a byte to a petabyte per second.
    const RANGE: std::ops::RangeInclusive<f64> = 1.0..=1e15;

    /// A speed computed from others.
    pub(super) fn of(speed: f64) -> BytesPerSecond {
        BytesPerSecond(speed)
    }

    /// The number of bytes per second.
    pub fn get(self) -> f64 {
        self.0
    }

    /// How long `bytes` take.
    pub fn time(self, bytes: u64) -> Seconds {
        Seconds(bytes as f64 / self.0)
    }

    /// Reads `100Gb/s`, `10Gbit`, `25Gbps` (bits) and `1.25GB/s`, `125MB`, `1GiB/s` (bytes).
    ///
    /// # Errors
    /// If it is something else, below one byte or above 1e15 bytes per second. `10G` is: of bits or of bytes?
    pub fn parse(text: &str) -> Result<BytesPerSecond, QuantityError> {
        let expected = "a speed such as 100Gb/s or 10Gbit (bits), 1.25GB/s or 800MiB/s (bytes)";
        let error = || QuantityError { found: text.into(), expected };
        let (digits, unit) = split(text).ok_or_else(error)?;
        let unit = unit.strip_suffix("/s").or(unit.strip_suffix("ps")).unwrap_or(unit);
        let (prefix, factor) = if let Some(prefix) = ["bits", "bit", "b"].iter().find_map(|x| unit.strip_suffix(x)) {
            (prefix, 0.125)
        } else if let Some(prefix) = ["bytes", "byte", "B"].iter().find_map(|x| unit.strip_suffix(x)) {
            (prefix, 1.0)
        } else {
            return Err(error());
        };
        let (exponent, binary) = match prefix {
            "" => (0, 1.0),
            "k" | "K" => (3, 1.0),
            "M" | "m" => (6, 1.0),
            "G" | "g" => (9, 1.0),
            "T" | "t" => (12, 1.0),
            "Ki" => (0, 1024.0),
            "Mi" => (0, 1024f64.powi(2)),
            "Gi" => (0, 1024f64.powi(3)),
            "Ti" => (0, 1024f64.powi(4)),
            _ => return Err(error()),
        };
        let speed = scaled(&digits, exponent).ok_or_else(error)? * binary * factor;
        if BytesPerSecond::RANGE.contains(&speed) { Ok(BytesPerSecond(speed)) } else { Err(error()) }
    }
}

impl fmt::Display for BytesPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", bytes(self.0))
    }
}

/// Reads a whole number: `11000000`, `25_000_000`, `1.1e7`, `11M`, `1.5B` (k, M, G or B for thousands, millions, billions).
///
/// # Errors
/// If it is something else, not whole, or 2^53 or more.
pub fn parse_count(text: &str) -> Result<usize, QuantityError> {
    let expected = "a whole number such as 11000000, 25_000_000, 1.1e7, 11M or 1.5B";
    let error = || QuantityError { found: text.into(), expected };
    let (digits, unit) = split(text).ok_or_else(error)?;
    let exponent = match unit {
        "" => 0,
        "k" | "K" => 3,
        "m" | "M" => 6,
        "g" | "G" | "b" | "B" => 9,
        _ => return Err(error()),
    };
    let number = scaled(&digits, exponent).ok_or_else(error)?;
    // Whole numbers below 2^53 are exact in f64.
    let whole = number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number);
    if whole { Ok(number as usize) } else { Err(error()) }
}

/// Bytes to three digits: `44.0 MB`.
pub(super) fn bytes(bytes: f64) -> String {
    prefixed(bytes, &[(0, "B"), (1, "kB"), (2, "MB"), (3, "GB"), (4, "TB"), (5, "PB")])
}

/// A whole number with commas: `11,000,000`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let lead = digits.len() % 3;
    let groups = digits.as_bytes()[lead..].chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let parts: Vec<String> = (lead > 0).then(|| digits[..lead].into()).into_iter().chain(groups).collect();
    parts.join(",")
}

/// Three digits and a unit, which is chosen by the number's thousands.
fn prefixed(number: f64, units: &[(i32, &str)]) -> String {
    // As rounded: 999.6 is already 1.00 of the next unit.
    let thousands = exponent(number, 2).div_euclid(3);
    let (first, last) = (units[0].0, units[units.len() - 1].0);
    let (power, unit) = units[(thousands.clamp(first, last) - first) as usize];
    format!("{} {unit}", significant(number / 1000f64.powi(power), 3, power == 0 && first == 0))
}

/// `number` to `digits` digits, without a decimal point if there is nothing behind it to be said.
fn significant(number: f64, digits: i32, whole: bool) -> String {
    let decimals = if whole { 0 } else { (digits - 1 - exponent(number, digits as usize - 1)).clamp(0, 6) };
    format!("{number:.*}", decimals as usize)
}

/// The power of ten of `number`, rounded to `decimals` behind its first digit.
fn exponent(number: f64, decimals: usize) -> i32 {
    let text = format!("{number:.decimals$e}");
    text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}

/// A number and its unit; the number without `_`.
fn split(text: &str) -> Option<(String, &str)> {
    let text = text.trim();
    let mut characters = text.char_indices().peekable();
    let mut digits = String::new();
    let mut end = text.len();
    while let Some((at, character)) = characters.next() {
        match character {
            '0'..='9' | '.' => digits.push(character),
            '_' if at > 0 => {}
            'e' | 'E' if matches!(characters.peek(), Some((_, '0'..='9' | '+' | '-'))) => {
                digits.push('e');
                digits.extend(characters.next().map(|(_, sign)| sign));
            }
            _ => {
                end = at;
                break;
            }
        }
    }
    digits.starts_with(|first: char| first.is_ascii_digit()).then(|| (digits, text[end..].trim_start()))
}

/// `digits x 10^exponent`, rounded once: 2.3M is 2300000, which 2.3 x 1e6 is not.
fn scaled(digits: &str, exponent: i32) -> Option<f64> {
    let (mantissa, own) = digits.split_once('e').unwrap_or((digits, "0"));
    let exponent = own.parse::<i32>().ok()?.checked_add(exponent)?;
    format!("{mantissa}e{exponent}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_are_read_as_people_write_them() {
        for (text, count) in [
            ("11000000", 11_000_000),
            ("25_000_000", 25_000_000),
            ("1e7", 10_000_000),
            ("1.1e7", 11_000_000),
            ("11M", 11_000_000),
            ("2.3 M", 2_300_000),
            ("1.5B", 1_500_000_000),
            ("7k", 7000),
            ("0", 0),
        ] {
            assert_eq!(parse_count(text), Ok(count), "{text}");
        }
        for text in
            ["", "M", "1.5", "-3", "1,000", "1e", "1e99", "1e-3", "1.2.3M", "7 apples", "_1", "99999999999999999"]
        {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn speeds_are_bits_or_bytes_and_never_a_guess() {
        for (text, speed) in [
            ("100Gb/s", 12.5e9),
            ("10Gbit", 1.25e9),
            ("10 Gbit/s", 1.25e9),
            ("25gbps", 3.125e9),
            ("1.25GB/s", 1.25e9),
            ("125MB", 125e6),
            ("1GiB/s", 1_073_741_824.0),
            ("1e9 bytes/s", 1e9),
        ] {
            assert_eq!(BytesPerSecond::parse(text).unwrap().get(), speed, "{text}");
        }
        for text in ["10G", "10", "fast", "0Gb/s", "Gb/s", "-1Gb/s", "1e40Gb/s", "10Xb/s", "1e-40B"] {
            assert!(BytesPerSecond::parse(text).is_err(), "{text}");
        }
        assert!(BytesPerSecond::parse("10G").unwrap_err().to_string().contains("1.25GB/s or"));
    }

    #[test]
    fn times_are_read() {
        for (text, seconds) in [("50ms", 0.05), ("1.5s", 1.5), ("800us", 0.0008), ("800 µs", 0.0008), ("2min", 120.0)]
        {
            assert_eq!(Seconds::parse(text).unwrap().get(), seconds, "{text}");
        }
        for text in ["50", "0ms", "ms", "-1s", "1e99s", "3h"] {
            assert!(Seconds::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn three_digits_are_shown() {
        let shown = |seconds: f64| Seconds(seconds).to_string();
        assert_eq!((shown(0.0528), shown(0.25), shown(1.0)), ("52.8 ms".into(), "250 ms".into(), "1.00 s".into()));
        assert_eq!(
            (shown(0.00099996), shown(3e-10), shown(12345.6)),
            ("1.00 ms".into(), "0.300 ns".into(), "3.43 h".into())
        );
        assert_eq!(
            (shown(599.0), shown(720.0), shown(864_000.0)),
            ("599 s".into(), "12.0 min".into(), "10.0 d".into())
        );
        assert_eq!(shown(8.64e9), "1.0e5 d");
        assert_eq!((bytes(44e6), bytes(999.0), bytes(999_600.0)), ("44.0 MB".into(), "999 B".into(), "1.00 MB".into()));
        assert_eq!((bytes(0.0), bytes(65_600.0)), ("0 B".into(), "65.6 kB".into()));
        assert_eq!(
            (grouped(0), grouped(999), grouped(1000), grouped(11_000_000)),
            ("0".into(), "999".into(), "1,000".into(), "11,000,000".into())
        );
        assert_eq!(BytesPerSecond::parse("100Gb/s").unwrap().to_string(), "12.5 GB/s");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9eE._+ kMGgBbits/ps-]{0,12}|\\PC{0,8}") {
            if let Ok(time) = Seconds::parse(&text) {
                prop_assert!(Seconds::RANGE.contains(&time.get()));
            }
            if let Ok(speed) = BytesPerSecond::parse(&text) {
                prop_assert!(BytesPerSecond::RANGE.contains(&speed.get()));
            }
            let _ = parse_count(&text);
        }

        #[test]
        fn any_number_can_be_shown(number in proptest::num::f64::POSITIVE) {
            prop_assert!(Seconds(number).to_string().contains(' ') && bytes(number).contains(' '));
        }
    }
}
