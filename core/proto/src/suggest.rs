//! "Did you mean": the nearest name to a misspelt one.

/// The candidate that is at most a third of its letters away from `name`, if any.
pub(crate) fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = letters(name);
    candidates
        .map(|candidate| (distance(&wanted, &letters(candidate)), candidate))
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(distance, candidate)| distance <= 1 + candidate.len() / 4)
        .map(|(_, candidate)| candidate)
}

fn letters(name: &str) -> Vec<u8> {
    name.bytes().filter(|&letter| letter != b'_').map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Levenshtein's distance.
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (position, letter) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = position + 1;
        for (column, other) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        let names = || ["name", "connect_timeout", "lb_policy"].into_iter();
        assert_eq!(closest("nmae", names()), Some("name"));
        assert_eq!(closest("connectTimeOut", names()), Some("connect_timeout"));
        assert_eq!(closest("lb-policy", names()), Some("lb_policy"));
        assert_eq!(closest("transport_socket", names()), None);
    }
}
