//! `google.protobuf.Duration` and `Timestamp` as text.

use crate::wire::{Fields, Malformed, WireValue};

/// Largest number of seconds of a duration, about 10 000 years.
const MAX_DURATION_SECONDS: i64 = 315_576_000_000;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

const DAY: i64 = 86_400;

/// Seconds and nanoseconds of an encoded duration or timestamp: both have the same two fields.
pub(crate) fn duration_parts(message: &[u8]) -> Result<(i64, i32), Malformed> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields::new(message) {
        match field? {
            (1, WireValue::Varint(value)) => seconds = value as i64,
            (2, WireValue::Varint(value)) => nanos = value as i32,
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

/// Reads `1.5s`: seconds with up to nine decimals and one `s`. What is wrong is worded as protobuf does.
pub(super) fn parse_duration(text: &str) -> Result<(i64, i32), &'static str> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, rest) = leading_digits(rest);
    let seconds = match digits(whole) {
        Some(seconds) => seconds,
        None if whole.is_empty() && !negative => return Err("duration must start with an integer"),
        None => return Err("duration had bad seconds"),
    };
    if seconds > MAX_DURATION_SECONDS {
        return Err("duration out of range");
    }
    let (nanos, rest) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let (decimals, rest) = leading_digits(rest);
            let nanos = nanoseconds(decimals).filter(|_| !decimals.is_empty());
            (nanos.ok_or("duration had bad nanoseconds")?, rest)
        }
    };
    if rest != "s" {
        return Err("duration must end with a single 's'");
    }
    Ok(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

fn leading_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Writes the shortest of 0, 3, 6 or 9 decimals that is exact, as protobuf does.
pub(crate) fn format_duration(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    format!("{sign}{}{}s", seconds.unsigned_abs(), fraction(nanos.unsigned_abs()))
}

/// Reads RFC 3339, such as `2006-01-02T15:04:05.5+01:00`.
pub(super) fn parse_timestamp(text: &str) -> Option<(i64, i32)> {
    let year = digits(text.get(..4)?)?;
    let month = digits(text.get(5..7)?)?;
    let day = digits(text.get(8..10)?)?;
    let hour = digits(text.get(11..13)?)?;
    let minute = digits(text.get(14..16)?)?;
    let second = digits(text.get(17..19)?)?;
    let separators = [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")];
    let well_formed = separators.iter().all(|&(at, separator)| text.as_bytes()[at] == separator[0])
        && matches!(text.as_bytes()[10], b'T' | b't')
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !well_formed {
        return None;
    }
    let rest = &text[19..];
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let nanos = match &rest[..zone_at] {
        "" => 0,
        decimals => nanoseconds(decimals.strip_prefix('.').filter(|decimals| !decimals.is_empty())?)?,
    };
    let seconds = days_from_civil(year, month, day) * DAY + hour * 3600 + minute * 60 + second
        - zone(&rest[zone_at..])?;
    TIMESTAMP_SECONDS.contains(&seconds).then_some((seconds, nanos))
}

/// Writes RFC 3339 in UTC; `None` outside of the years 1 to 9999.
pub(super) fn format_timestamp(seconds: i64, nanos: i32) -> Option<String> {
    if !TIMESTAMP_SECONDS.contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY));
    let rest = seconds.rem_euclid(DAY);
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        fraction(nanos.unsigned_abs())
    ))
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn nanoseconds(decimals: &str) -> Option<i32> {
    if decimals.is_empty() {
        return Some(0);
    }
    let scale = 10i64.pow(9u32.checked_sub(u32::try_from(decimals.len()).ok()?)?);
    i32::try_from(digits(decimals)? * scale).ok()
}

fn fraction(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        nanos if nanos % 1_000_000 == 0 => format!(".{:03}", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!(".{:06}", nanos / 1_000),
        nanos => format!(".{nanos:09}"),
    }
}

/// Seconds east of UTC.
fn zone(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counted in years that start in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::{format_duration, format_timestamp, parse_duration, parse_timestamp};

    #[test]
    fn durations_round_trip() {
        for (text, parts) in [
            ("0s", (0, 0)),
            ("5s", (5, 0)),
            ("0.250s", (0, 250_000_000)),
            ("1.000001s", (1, 1_000)),
            ("-0.500s", (0, -500_000_000)),
            ("-3.000000001s", (-3, -1)),
            ("315576000000s", (315_576_000_000, 0)),
        ] {
            assert_eq!(parse_duration(text), Ok(parts), "{text}");
            assert_eq!(format_duration(parts.0, parts.1), text);
        }
        assert_eq!(parse_duration("0.25s"), Ok((0, 250_000_000)));
    }

    #[test]
    fn malformed_durations_are_refused() {
        for text in
            ["", "s", "5", "5m", "5ss", "1.0000000001s", "1e3s", "--1s", "+1s", "315576000001s", " 1s", ".5s"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn timestamps_round_trip() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2026-11-21T09:00:00Z", 1_795_251_600),
            ("0001-01-01T00:00:00Z", -62_135_596_800),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
            ("1969-12-31T23:59:59Z", -1),
        ] {
            assert_eq!(parse_timestamp(text), Some((seconds, 0)), "{text}");
            assert_eq!(format_timestamp(seconds, 0).as_deref(), Some(text));
        }
        assert_eq!(parse_timestamp("1970-01-01T01:00:00.5+01:00"), Some((0, 500_000_000)));
        assert_eq!(format_timestamp(0, 500_000_000).as_deref(), Some("1970-01-01T00:00:00.500Z"));
    }

    #[test]
    fn malformed_timestamps_are_refused() {
        for text in [
            "",
            "1970-01-01",
            "1970-13-01T00:00:00Z",
            "1970-02-30T00:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+1:00",
            "197é-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }
}
