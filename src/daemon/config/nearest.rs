//! The known name that somebody probably meant.

/// The candidate that differs least from `name`, if it differs by few enough letters to be what was meant.
pub(super) fn nearest<T: AsRef<str>>(name: &str, candidates: impl IntoIterator<Item = T>) -> Option<T> {
    // Nobody means a name three times as long as any we have; and the distance below is quadratic.
    let count = name.chars().count();
    if count > 80 {
        return None;
    }
    let (distance, candidate) = candidates
        .into_iter()
        .map(|candidate| (distance(&name.to_lowercase(), &candidate.as_ref().to_lowercase()), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + count / 4).then_some(candidate)
}

/// Letters to insert, delete or replace to make `b` of `a` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn only_a_similar_name_is_suggested() {
        let names = ["groups", "adversaries", "deadline_ms"];
        assert_eq!(nearest("group", names), Some("groups"));
        assert_eq!(nearest("adversarys", names), Some("adversaries"));
        assert_eq!(nearest("Deadline", names), Some("deadline_ms"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest(&"x".repeat(1000), names), None);
    }
}
