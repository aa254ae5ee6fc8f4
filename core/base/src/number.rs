//! Numbers that users write into headers.

/// A number as C's `strtod` reads it, with white space around: decimal, hexadecimal (`0x1.8p4`), `inf` or `nan`. What is too large
/// is infinite.
pub fn parse_double(text: &str) -> Option<f64> {
    let text = text.trim_ascii();
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if digits.starts_with(['-', '+']) {
        return None;
    }
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => parse_hexadecimal(hexadecimal).map(|number| sign * number),
        None => digits.parse::<f64>().ok().map(|number| sign * number),
    }
}

fn parse_hexadecimal(text: &str) -> Option<f64> {
    let (digits, exponent) = text.split_once(['p', 'P']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut number = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        number = number * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let places = i32::try_from(fraction.len()).ok()?;
    Some(number * 2f64.powi(exponent.saturating_sub(places.saturating_mul(4))))
}

#[cfg(test)]
mod tests {
    use super::parse_double;

    #[test]
    fn numbers_are_read_as_strtod_reads_them() {
        let numbers = [
            (" 7 ", 7.0),
            ("+1.5", 1.5),
            ("-.5", -0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("0x10", 16.0),
            ("-0X1.8", -1.5),
            ("0x1p4", 16.0),
            ("1e400", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
        ];
        for (text, number) in numbers {
            assert_eq!(parse_double(text), Some(number), "{text}");
        }
        assert!(parse_double("nan").is_some_and(f64::is_nan));
        for text in ["", "abc", "1,5", "1 2", "--1", "+-1", "0x", "0xg", "1e", "1_0"] {
            assert_eq!(parse_double(text), None, "{text}");
        }
    }
}
