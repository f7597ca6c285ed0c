//! The known word that a mistyped one was meant to be.

/// The candidate nearest to `word`, if any is near enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    let limit = (word.chars().count() / 3).clamp(1, 4);
    let (distance, candidate) = candidates.into_iter().map(|c| (distance(&word, c), c)).min_by_key(|(d, _)| *d)?;
    (distance <= limit).then_some(candidate)
}

/// How many single-letter edits (insert, remove, replace, swap of neighbours) make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().replace('_', "-").chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, x) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&last, j) + usize::from(x != *y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            if let Some(k) = j.checked_sub(1)
                && previous == Some(*y)
                && b.get(k) == Some(&x)
            {
                best = best.min(at(&before_last, k) + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
        previous = Some(x);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_a_different_word_finds_none() {
        let known = ["privileged", "host-network", "allow", "log-drivers"];
        for (word, expected) in [
            ("privilegd", Some("privileged")),
            ("Privileged", Some("privileged")),
            ("host_network", Some("host-network")),
            ("alow", Some("allow")),
            ("allwo", Some("allow")),
            ("log-driver", Some("log-drivers")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
