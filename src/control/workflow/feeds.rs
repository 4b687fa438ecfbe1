//! What is to keep the target in step: the feed that was asked for, or the best there is.

use super::evidence::Evidence;
use super::record::MigrationRecord;
use base::model::{FeedKind, WriteConsistency};
use movers::Feeds;

/// The feed this migration uses when dual operation begins now, and why that one.
///
/// # Errors
/// Why none can be used, or why that is not known.
pub fn chosen_feed(record: &MigrationRecord, evidence: &Evidence) -> Result<(FeedKind, String), String> {
    let feeds = evidence.feeds.as_ref().map_err(Clone::clone)?;
    let confirming = record.decisions.write_consistency == WriteConsistency::Both;
    match record.decisions.feed.kind() {
        None => best(feeds).and_then(|(kind, why)| {
            if confirming && !kind.confirms_writes() {
                return Err(format!("write_consistency both needs another feed than {kind}: {why}"));
            }
            Ok((kind, why))
        }),
        Some(asked) if feeds.usable.contains(&asked) => Ok((asked, "asked for, and both servers offer it".to_owned())),
        Some(asked) => {
            let refused = feeds.refused.iter().find(|(kind, _)| *kind == asked);
            Err(refused.map_or_else(|| format!("these servers do not offer {asked}"), |(_, why)| why.clone()))
        }
    }
}

fn best(feeds: &Feeds) -> Result<(FeedKind, String), String> {
    let told = |(kind, why): &(FeedKind, String)| format!("{kind} is refused: {why}");
    let Some(first) = feeds.usable.first() else {
        let all: Vec<_> = feeds.refused.iter().map(told).collect();
        return Err(if all.is_empty() { "these servers offer nothing".to_owned() } else { all.join("; ") });
    };
    // Kinds are declared in order of preference.
    let better: Vec<_> = FeedKind::ALL
        .iter()
        .take_while(|kind| *kind != first)
        .filter_map(|kind| feeds.refused.iter().find(|(refused, _)| refused == kind))
        .map(told)
        .collect();
    let why = if better.is_empty() { "the best that both servers offer".to_owned() } else { better.join("; ") };
    Ok((*first, why))
}
