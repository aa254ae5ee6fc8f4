//! Durations and timestamps of expressions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::functions::Part;
use crate::time::{Civil, TimeFormat};

const SECOND: i128 = 1_000_000_000;

/// Reads a duration as Go writes it: `1h30m`, `1.5s`, `-2ms`; `0` needs no unit.
pub(crate) fn parse_duration(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, tail) = rest.split_at(number);
        let (unit, tail) = unit_of(tail)?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        if !whole.is_empty() {
            total = total.checked_add(whole.parse::<i64>().ok().map(i128::from)?.checked_mul(unit)?)?;
        }
        let mut place = unit;
        for digit in fraction.bytes() {
            place /= 10;
            total += i128::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?) * place;
        }
        rest = tail;
    }
    Some(if negative { -total } else { total })
}

fn unit_of(text: &str) -> Option<(i128, &str)> {
    let units = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", SECOND),
        ("m", 60 * SECOND),
        ("h", 3600 * SECOND),
    ];
    units.iter().find_map(|(name, nanos)| Some((*nanos, text.strip_prefix(name)?)))
}

/// Prints a duration in the largest units that fit: `24h`, `1h30m`, `1.5s`, `274.746us`.
pub(crate) fn duration_text(nanos: i128) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let fraction = |value: u128, unit: u128, name: &str| {
        let rest = value % unit;
        let digits = unit.ilog10() as usize;
        let mut text = format!("{}.{rest:0digits$}", value / unit);
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
        text + name
    };
    let body = match nanos {
        0..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(nanos, 1_000, "us"),
        1_000_000..1_000_000_000 => fraction(nanos, 1_000_000, "ms"),
        _ => {
            let seconds = nanos / 1_000_000_000;
            let part =
                |count: u128, name: &str| if count > 0 { format!("{count}{name}") } else { String::new() };
            let rest = nanos % 60_000_000_000;
            let seconds_text = if rest > 0 { fraction(rest, 1_000_000_000, "s") } else { String::new() };
            part(seconds / 3600, "h") + &part(seconds / 60 % 60, "m") + &seconds_text
        }
    };
    format!("{sign}{body}")
}

/// Reads a timestamp of RFC 3339.
pub(crate) fn parse_timestamp(text: &str) -> Option<i128> {
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten()
    };
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, byte)| bytes.get(*at) != Some(byte)) {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanos = 0i128;
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit())?;
        let mut place = SECOND;
        for digit in fraction[..end].bytes() {
            place /= 10;
            nanos += i128::from(digit - b'0') * place;
        }
        rest = &fraction[end..];
    }
    let offset = if rest == "Z" { 0 } else { parse_offset(rest)? };
    let seconds = days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(i128::from(seconds) * SECOND + nanos)
}

/// Days from 1970 to a date.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that a leap day is the last one.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let from_march = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + from_march - 719_468
}

/// Reads `+02:00`, also without its sign; gives seconds.
pub(crate) fn parse_offset(text: &str) -> Option<i64> {
    if matches!(text, "UTC" | "") {
        return Some(0);
    }
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<i64>().ok())
            .flatten()
    };
    Some(sign * (number(hours)? * 3600 + number(minutes)? * 60))
}

/// Appends a timestamp with its offset.
pub(crate) fn append_timestamp(nanos: i128, out: &mut Vec<u8>) {
    TimeFormat::parse("%Y-%m-%dT%H:%M:%E*S%Ez").append(system_time(nanos), out);
}

/// Appends a timestamp of Universal Time down to its seconds.
pub(crate) fn append_seconds(nanos: i128, out: &mut Vec<u8>) {
    TimeFormat::parse("%Y-%m-%dT%H:%M:%S").append(system_time(nanos), out);
}

fn system_time(nanos: i128) -> SystemTime {
    let at = |nanos: u128| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    match u128::try_from(nanos) {
        Ok(after) => UNIX_EPOCH + at(after),
        Err(_) => UNIX_EPOCH - at(nanos.unsigned_abs()),
    }
}

/// A part of a timestamp, `offset` seconds east of Greenwich.
pub(crate) fn timestamp_part(nanos: i128, offset: i64, part: Part) -> i64 {
    let local = nanos + i128::from(offset) * SECOND;
    let seconds = i64::try_from(local.div_euclid(SECOND)).unwrap_or_default();
    let civil = Civil::from_epoch(seconds, local.rem_euclid(SECOND) as u32);
    match part {
        Part::FullYear => civil.year,
        Part::Month => i64::from(civil.month) - 1,
        Part::Date => i64::from(civil.day),
        Part::DayOfMonth => i64::from(civil.day) - 1,
        Part::DayOfWeek => i64::from(civil.weekday),
        Part::DayOfYear => i64::from(civil.day_of_year) - 1,
        Part::Hours => i64::from(civil.second_of_day / 3600),
        Part::Minutes => i64::from(civil.second_of_day / 60 % 60),
        Part::Seconds => i64::from(civil.second_of_day % 60),
        Part::Milliseconds => i64::from(civil.nanos / 1_000_000),
    }
}

/// A duration in whole units; its milliseconds are those of the last second.
pub(crate) fn duration_part(nanos: i128, part: Part) -> Option<i64> {
    let whole = |unit: i128| i64::try_from(nanos / unit).ok();
    match part {
        Part::Hours => whole(3600 * SECOND),
        Part::Minutes => whole(60 * SECOND),
        Part::Seconds => whole(SECOND),
        Part::Milliseconds => i64::try_from(nanos % SECOND / 1_000_000).ok(),
        _ => None,
    }
}
