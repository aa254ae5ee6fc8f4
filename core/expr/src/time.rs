//! Points in time as text, in UTC or in the time zone of the machine.

use std::cell::Cell;
use std::io::Write;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tz::TimeZone;

/// A compiled time format: a subset of `strftime` with Envoy's additions (`%3f`, `%f`, `%E3S`, `%E*S`, `%s`).
#[derive(Clone, Debug)]
pub struct TimeFormat {
    items: Box<[Item]>,
    is_iso: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    /// What comes next has no padding.
    Unpadded,
    /// What comes next has large letters.
    Capitals,
    /// Week of the year by ISO 8601.
    Week,
    /// The year of that week.
    WeekYear {
        short: bool,
    },
    /// Weeks that began since the year did, on a weekday (0 is Sunday).
    WeekSince {
        weekday: u32,
    },
    SmallAmPm,
    Byte(u8),
    Year,
    ShortYear,
    Century,
    Month,
    MonthName {
        short: bool,
    },
    Day {
        pad: u8,
    },
    DayOfYear,
    WeekdayName {
        short: bool,
    },
    WeekdayNumber {
        monday_first: bool,
    },
    Hour24 {
        pad: u8,
    },
    Hour12 {
        pad: u8,
    },
    AmPm,
    Minute,
    Second,
    /// Fraction of the second in this many digits.
    Fraction(u8),
    /// Fraction with its dot and without zeros at its end; nothing when it is zero.
    ShortFraction,
    EpochSeconds,
    Offset {
        colon: bool,
    },
    ZoneName,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Envoy's default.
const ISO: &str = "%Y-%m-%dT%H:%M:%E3SZ";

/// Envoy's default for local times.
const LOCAL_ISO: &str = "%Y-%m-%dT%H:%M:%E3S%z";

/// Where on earth a time is told.
#[derive(Clone, Copy)]
struct Zone<'a> {
    /// Seconds east of Greenwich.
    offset: i32,
    name: &'a str,
}

const UTC: Zone<'static> = Zone { offset: 0, name: "UTC" };

/// The time zone of `TZ`, or of the machine; none where it is UTC or cannot be read.
fn local_zone() -> Option<&'static TimeZone> {
    static ZONE: OnceLock<Option<TimeZone>> = OnceLock::new();
    let read = || match std::env::var("TZ") {
        Ok(name) if !name.is_empty() => TimeZone::from_posix_tz(&name).ok(),
        _ => TimeZone::local().ok(),
    };
    ZONE.get_or_init(read).as_ref()
}

/// The first second that is not in a year of four digits.
const YEAR_10000: i64 = 253_402_300_800;

thread_local! {
    /// The last second that was printed in Envoy's default format, up to the dot.
    static LAST_SECOND: Cell<(i64, [u8; 20])> = const { Cell::new((-1, [0; 20])) };
}

/// Appends a time in Envoy's default format; nearly all of one thread's lines are of the same second as the line before.
fn append_iso(seconds: i64, nanos: u32, out: &mut Vec<u8>) {
    let (mut second, mut text) = LAST_SECOND.get();
    if second != seconds {
        let civil = Civil::from_epoch(seconds, 0);
        second = seconds;
        text = *b"0000-00-00T00:00:00.";
        let fields = [
            (0, 4, civil.year as u32),
            (5, 2, civil.month),
            (8, 2, civil.day),
            (11, 2, civil.second_of_day / 3600),
            (14, 2, civil.second_of_day / 60 % 60),
            (17, 2, civil.second_of_day % 60),
        ];
        for (at, width, mut number) in fields {
            for digit in text[at..at + width].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        LAST_SECOND.set((second, text));
    }
    let millis = nanos / 1_000_000;
    let digit = |number: u32| b'0' + (number % 10) as u8;
    let mut line = *b"....................000Z";
    line[..20].copy_from_slice(&text);
    line[20..23].copy_from_slice(&[digit(millis / 100), digit(millis / 10), digit(millis)]);
    out.extend_from_slice(&line);
}

impl Default for TimeFormat {
    fn default() -> Self {
        Self::parse(ISO)
    }
}

impl TimeFormat {
    /// Compiles a format; what is not a known conversion is printed as it is.
    pub fn parse(text: &str) -> Self {
        let text = if text.is_empty() { ISO } else { text };
        let mut items = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            let taken = if first == b'%' { conversion(tail, &mut items) } else { None };
            match taken {
                Some(taken) => rest = &tail[taken..],
                None => {
                    items.push(Item::Byte(first));
                    rest = tail;
                }
            }
        }
        Self { items: items.into(), is_iso: text == ISO }
    }

    /// Appends the time; always true, so that it can end an expression.
    pub fn append(&self, at: SystemTime, out: &mut Vec<u8>) -> bool {
        let (seconds, nanos) = match at.duration_since(UNIX_EPOCH) {
            Ok(after) => (after.as_secs() as i64, after.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                let borrow = i64::from(before.subsec_nanos() > 0);
                let nanos = (1_000_000_000 - before.subsec_nanos()) % 1_000_000_000;
                (-(before.as_secs() as i64) - borrow, nanos)
            }
        };
        if self.is_iso && (0..YEAR_10000).contains(&seconds) {
            append_iso(seconds, nanos, out);
        } else {
            self.append_in(UTC, seconds, nanos, out);
        }
        true
    }

    /// Compiles a format for local times.
    pub(crate) fn parse_local(text: &str) -> Self {
        Self::parse(if text.is_empty() { LOCAL_ISO } else { text })
    }

    /// Appends the time as clocks show it at the place of the machine; always true.
    pub(crate) fn append_local(&self, at: SystemTime, out: &mut Vec<u8>) -> bool {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs() as i64;
        let local = local_zone().and_then(|zone| zone.find_local_time_type(seconds).ok());
        let zone =
            local.map_or(UTC, |kind| Zone { offset: kind.ut_offset(), name: kind.time_zone_designation() });
        self.append_in(zone, seconds, since.subsec_nanos(), out);
        true
    }

    fn append_in(&self, zone: Zone<'_>, seconds: i64, nanos: u32, out: &mut Vec<u8>) {
        let civil = Civil::from_epoch(seconds + i64::from(zone.offset), nanos);
        let mut flag = None;
        for item in &self.items {
            let start = out.len();
            match item {
                Item::Unpadded | Item::Capitals => {
                    flag = Some(item);
                    continue;
                }
                Item::Offset { colon } => append_offset(zone.offset, *colon, out),
                Item::ZoneName => out.extend_from_slice(zone.name.as_bytes()),
                Item::EpochSeconds => {
                    // Writing to a Vec cannot fail.
                    let _ = write!(out, "{seconds}");
                }
                item => civil.append(*item, out),
            }
            match flag.take() {
                Some(Item::Unpadded) => {
                    let text = &out[start..];
                    let padding = text.iter().take_while(|&&byte| byte == b'0' || byte == b' ').count();
                    out.drain(start..start + padding.min(text.len() - 1));
                }
                Some(_) => out[start..].make_ascii_uppercase(),
                None => {}
            }
        }
    }
}

/// Reads what follows a `%`; gives the number of bytes read.
fn conversion(tail: &[u8], items: &mut Vec<Item>) -> Option<usize> {
    match tail {
        [b'E', digit @ b'0'..=b'9', b'S', ..] => {
            items.push(Item::Second);
            if *digit > b'0' {
                items.extend([Item::Byte(b'.'), Item::Fraction(digit - b'0')]);
            }
            return Some(3);
        }
        [b'E', b'*', b'S', ..] => {
            items.extend([Item::Second, Item::ShortFraction]);
            return Some(3);
        }
        [b'E' | b':', b'z', ..] => {
            items.push(Item::Offset { colon: true });
            return Some(2);
        }
        // The seconds of an offset, of which no zone of today has any.
        [b'E', b'*', b'z', ..] | [b':', b':', b'z', ..] => {
            items.push(Item::Offset { colon: true });
            items.extend(b":00".map(Item::Byte));
            return Some(3);
        }
        [b'E', b'4', b'Y', ..] => {
            items.push(Item::Year);
            return Some(3);
        }
        [b'E', b'T', ..] => {
            items.push(Item::Byte(b'T'));
            return Some(2);
        }
        [b'-', number @ (b'd' | b'e' | b'H' | b'I' | b'j' | b'k' | b'l' | b'm' | b'M' | b'S' | b'y'), ..] => {
            items.push(Item::Unpadded);
            return conversion(&[*number], items).map(|taken| taken + 1);
        }
        [b'^', name @ (b'a' | b'A' | b'b' | b'B' | b'h' | b'p'), ..] => {
            items.push(Item::Capitals);
            return conversion(&[*name], items).map(|taken| taken + 1);
        }
        [digit @ b'1'..=b'9', b'f', ..] => {
            items.push(Item::Fraction(digit - b'0'));
            return Some(2);
        }
        _ => {}
    }
    let item = match *tail.first()? {
        b'Y' => Item::Year,
        b'y' => Item::ShortYear,
        b'C' => Item::Century,
        b'm' => Item::Month,
        b'B' => Item::MonthName { short: false },
        b'b' | b'h' => Item::MonthName { short: true },
        b'd' => Item::Day { pad: b'0' },
        b'e' => Item::Day { pad: b' ' },
        b'j' => Item::DayOfYear,
        b'A' => Item::WeekdayName { short: false },
        b'a' => Item::WeekdayName { short: true },
        b'u' => Item::WeekdayNumber { monday_first: true },
        b'w' => Item::WeekdayNumber { monday_first: false },
        b'H' => Item::Hour24 { pad: b'0' },
        b'k' => Item::Hour24 { pad: b' ' },
        b'I' => Item::Hour12 { pad: b'0' },
        b'l' => Item::Hour12 { pad: b' ' },
        b'p' => Item::AmPm,
        b'P' => Item::SmallAmPm,
        b'G' => Item::WeekYear { short: false },
        b'g' => Item::WeekYear { short: true },
        b'V' => Item::Week,
        b'U' => Item::WeekSince { weekday: 0 },
        b'W' => Item::WeekSince { weekday: 1 },
        b'M' => Item::Minute,
        b'S' => Item::Second,
        b'f' => Item::Fraction(9),
        b's' => Item::EpochSeconds,
        b'z' => Item::Offset { colon: false },
        b'Z' => Item::ZoneName,
        b'n' => Item::Byte(b'\n'),
        b't' => Item::Byte(b'\t'),
        b'%' => Item::Byte(b'%'),
        compound => return compound_conversion(compound, items),
    };
    items.push(item);
    Some(1)
}

fn compound_conversion(letter: u8, items: &mut Vec<Item>) -> Option<usize> {
    let expanded = match letter {
        b'T' | b'X' => "%H:%M:%S",
        b'R' => "%H:%M",
        b'r' => "%I:%M:%S %p",
        b'D' | b'x' => "%m/%d/%y",
        b'F' => "%Y-%m-%d",
        b'c' => "%a %b %e %H:%M:%S %Y",
        _ => return None,
    };
    items.extend(TimeFormat::parse(expanded).items);
    Some(1)
}

/// A moment by the calendar.
pub(crate) struct Civil {
    pub(crate) nanos: u32,
    pub(crate) year: i64,
    pub(crate) month: u32,
    pub(crate) day: u32,
    pub(crate) day_of_year: u32,
    pub(crate) weekday: u32,
    pub(crate) second_of_day: u32,
}

impl Civil {
    /// The date of a moment, by counting days in eras of 400 years that begin on 1 March.
    pub(crate) fn from_epoch(epoch: i64, nanos: u32) -> Self {
        let days = epoch.div_euclid(86_400);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * from_march + 2) / 153;
        let day = (from_march - (153 * march_month + 2) / 5 + 1) as u32;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 } as u32;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
        Self {
            nanos,
            year,
            month,
            day,
            day_of_year: before + day + u32::from(leap && month > 2),
            weekday: (days + 4).rem_euclid(7) as u32,
            second_of_day: epoch.rem_euclid(86_400) as u32,
        }
    }

    /// The year and number of the week by ISO 8601: a week belongs to the year that has its Thursday.
    fn iso_week(&self) -> (i64, u32) {
        let since_monday = (self.weekday + 6) % 7;
        let week = (self.day_of_year + 9 - since_monday) / 7;
        let is_leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        // A year has 53 weeks when it begins on a Thursday, or on a Wednesday and is a leap year.
        let weeks_of = |year: i64, first_weekday: u32| {
            if first_weekday == 4 || (first_weekday == 3 && is_leap(year)) { 53 } else { 52 }
        };
        let first_weekday = (self.weekday + 7 * 53 - (self.day_of_year - 1)) % 7;
        if week == 0 {
            let days_before = if is_leap(self.year - 1) { 366 } else { 365 };
            let first_before = (first_weekday + 7 * 53 - days_before) % 7;
            return (self.year - 1, weeks_of(self.year - 1, first_before));
        }
        if week > weeks_of(self.year, first_weekday) { (self.year + 1, 1) } else { (self.year, week) }
    }

    fn append(&self, item: Item, out: &mut Vec<u8>) {
        let hour = self.second_of_day / 3600;
        let hour12 = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        match item {
            Item::Byte(byte) => out.push(byte),
            Item::Year if (0..10_000).contains(&self.year) => digits(self.year as u32, 4, b'0', out),
            Item::Year => {
                let _ = write!(out, "{}", self.year);
            }
            Item::ShortYear => digits(self.year.rem_euclid(100) as u32, 2, b'0', out),
            Item::Century => digits(self.year.div_euclid(100) as u32, 2, b'0', out),
            Item::Month => digits(self.month, 2, b'0', out),
            Item::MonthName { short } => name(MONTHS[self.month as usize - 1], short, out),
            Item::Day { pad } => digits(self.day, 2, pad, out),
            Item::DayOfYear => digits(self.day_of_year, 3, b'0', out),
            Item::WeekdayName { short } => name(DAYS[self.weekday as usize], short, out),
            Item::WeekdayNumber { monday_first } => {
                let day = if monday_first && self.weekday == 0 { 7 } else { self.weekday };
                digits(day, 1, b'0', out);
            }
            Item::Hour24 { pad } => digits(hour, 2, pad, out),
            Item::Hour12 { pad } => digits(hour12, 2, pad, out),
            Item::Week => digits(self.iso_week().1, 2, b'0', out),
            Item::WeekYear { short: true } => digits(self.iso_week().0.rem_euclid(100) as u32, 2, b'0', out),
            Item::WeekYear { short: false } => {
                let _ = write!(out, "{}", self.iso_week().0);
            }
            Item::WeekSince { weekday } => {
                let since = (self.weekday + 7 - weekday) % 7;
                digits((self.day_of_year + 6 - since) / 7, 2, b'0', out);
            }
            Item::SmallAmPm => out.extend_from_slice(if hour < 12 { b"am" } else { b"pm" }),
            Item::AmPm => out.extend_from_slice(if hour < 12 { b"AM" } else { b"PM" }),
            Item::Minute => digits(self.second_of_day / 60 % 60, 2, b'0', out),
            Item::Second => digits(self.second_of_day % 60, 2, b'0', out),
            Item::Fraction(width) => {
                digits(self.nanos / 10u32.pow(9 - u32::from(width)), usize::from(width), b'0', out);
            }
            Item::ShortFraction if self.nanos == 0 => {}
            Item::ShortFraction => {
                out.push(b'.');
                digits(self.nanos, 9, b'0', out);
                while out.last() == Some(&b'0') {
                    out.pop();
                }
            }
            // These depend on the zone and not on the calendar, or are about what follows.
            Item::EpochSeconds | Item::Offset { .. } | Item::ZoneName | Item::Unpadded | Item::Capitals => {}
        }
    }
}

fn append_offset(seconds: i32, colon: bool, out: &mut Vec<u8>) {
    let minutes = seconds.unsigned_abs() / 60;
    out.push(if seconds < 0 { b'-' } else { b'+' });
    digits(minutes / 60, 2, b'0', out);
    if colon {
        out.push(b':');
    }
    digits(minutes % 60, 2, b'0', out);
}

fn name(name: &str, short: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if short { &name.as_bytes()[..3] } else { name.as_bytes() });
}

/// Writes a number right-aligned in a field; `width` is at most 9. Inlined, as the width is nearly always known.
#[inline(always)]
fn digits(mut number: u32, width: usize, pad: u8, out: &mut Vec<u8>) {
    let mut field = [pad; 9];
    let field = &mut field[..width];
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 && pad == b' ' {
            break;
        }
    }
    out.extend_from_slice(field);
}
