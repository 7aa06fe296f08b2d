//! "Did you mean": the nearest of the names that would have been right.

/// Up to this many valid names are listed in full.
const LISTED: usize = 12;

/// Returns the candidate that `written` was most likely meant to be.
///
/// Near means a Jaro-Winkler similarity of 0.8 or at most two edits, and case
/// never counts.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = written.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let other = candidate.to_lowercase();
        let similarity = strsim::jaro_winkler(&folded, &other);
        let few_edits = other.len() > 2 && strsim::levenshtein(&folded, &other) <= 2;
        if similarity < 0.8 && !few_edits {
            continue;
        }
        if best.is_none_or(|(score, _)| similarity > score) {
            best = Some((similarity, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Returns advice about a wrong name: the nearest one, and all when they are few.
pub fn did_you_mean(written: &str, candidates: &[&str]) -> Option<String> {
    let near = nearest(written, candidates.iter().copied());
    let listed = (1..=LISTED).contains(&candidates.len());
    match (near, listed) {
        (Some(near), _) => Some(format!("did you mean `{near}`?")),
        (None, true) => Some(format!("expected one of: {}", candidates.join(", "))),
        (None, false) => None,
    }
}
