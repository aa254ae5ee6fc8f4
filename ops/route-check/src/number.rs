//! Numbers as C++ streams print them.

/// Six significant digits at most, without zeros at the end: `7.44863`, `66.6667`, `100`.
pub(crate) fn six_digits(number: f64) -> String {
    let before_point = if number.abs() < 1.0 { 1 } else { number.abs().log10().floor() as usize + 1 };
    let text = format!("{number:.*}", 6usize.saturating_sub(before_point));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::six_digits;

    #[test]
    fn percentages_have_six_digits() {
        for (number, text) in [
            (100.0, "100"),
            (0.0, "0"),
            (200.0 / 3.0, "66.6667"),
            (7.448_634_2, "7.44863"),
            (50.0, "50"),
            (12.5, "12.5"),
            (133.333_333, "133.333"),
        ] {
            assert_eq!(six_digits(number), text);
        }
    }
}
