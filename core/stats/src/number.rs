//! Numbers as Envoy's C++ prints them.

/// `%g`-like: this many significant digits, no zeros at the end, exponent when it is below -4 or at least `digits`.
pub(crate) fn general(number: f64, digits: usize) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if number == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{number:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", without_zeros(mantissa), exponent.abs());
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    without_zeros(&format!("{number:.decimals$}")).to_owned()
}

/// As many digits as it takes to tell the number from others; no exponent.
pub(crate) fn shortest(number: f64) -> String {
    if number.is_nan() { "nan".to_owned() } else { number.to_string() }
}

fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::{general, shortest};

    #[test]
    fn six_digits_as_an_output_stream() {
        let printed = [5.05, 93.25, 1250.0, 0.5, 1_800_000.0, 600_000.0, 0.0, 1.0 / 3.0, 0.00001, f64::NAN]
            .map(|number| general(number, 6));
        assert_eq!(
            printed,
            ["5.05", "93.25", "1250", "0.5", "1.8e+06", "600000", "0", "0.333333", "1e-05", "nan"]
        );
    }

    #[test]
    fn shortest_numbers_are_exact() {
        let printed = [1.05, 0.0, 409.0, 1.0 + 1.0 / 34.0, 1_800_000.0, f64::NAN].map(shortest);
        assert_eq!(printed, ["1.05", "0", "409", "1.0294117647058822", "1800000", "nan"]);
    }

    #[test]
    fn thirty_two_digits_show_the_binary_number() {
        assert_eq!(general(499.2, 32), "499.1999999999999886313162278384");
        assert_eq!(general(3_600_000.0, 32), "3600000");
        assert_eq!(general(0.5, 32), "0.5");
    }
}
