//! What can keep two servers in step with the policies that are chosen: some decide on what only the lane shows them. Pure.

use crate::workflow::{MigrationRecord, feed_in_use};
use base::model::{Decisions, FeedKind, PolicySetting, PolicySettings, PolicySlot};
use movers::Feeds;

/// What the servers offer, less what would pass by a policy that is chosen or cannot do what was decided. The settings: the migration's, then the
/// interlay's.
pub(super) fn offered(
    servers: &Result<Feeds, String>,
    decisions: &Decisions,
    chosen: [&PolicySettings; 2],
) -> Result<Feeds, String> {
    let mut feeds = servers.clone()?;
    if decisions.leaves_keys_out() && feeds.usable.contains(&FeedKind::Lane) {
        feeds.usable.retain(|kind| *kind != FeedKind::Lane);
        let why = format!("it moves every key, and conflict_policy {} leaves some out", decisions.conflict_policy);
        feeds.refused.push((FeedKind::Lane, why));
    }
    if let Some(why) = needs_the_lane(chosen)
        && feeds.usable.contains(&FeedKind::Replication)
    {
        feeds.usable.retain(|kind| *kind != FeedKind::Replication);
        feeds.refused.push((FeedKind::Replication, why));
    }
    Ok(feeds)
}

/// The policy that only the lane asks; `None`: there is none.
fn needs_the_lane([migration, interlay]: [&PolicySettings; 2]) -> Option<String> {
    let shipped = PolicySettings::shipped();
    let in_force = |slot| PolicySettings::in_force(&[migration, interlay, &shipped], slot);
    let told = |slot: PolicySlot, setting: &PolicySetting, on_what: &str| {
        format!("the {slot} policy {} decides on each {on_what}, which only the lane asks it", setting.filter)
    };
    let records = in_force(PolicySlot::Records).map(|setting| told(PolicySlot::Records, setting, "value"));
    let compare = in_force(PolicySlot::Compare)
        .filter(|setting| PolicySettings::in_force(&[&shipped], PolicySlot::Compare) != Some(setting))
        .map(|setting| told(PolicySlot::Compare, setting, "difference"));
    records.or(compare)
}

/// The policy that is in force and not asked, because of what keeps both sides in step now. The configuration may bring one at a start.
pub(super) fn passed_by(record: &MigrationRecord, interlay: &PolicySettings) -> Option<String> {
    match feed_in_use(record)? {
        FeedKind::Lane => None,
        FeedKind::Replication => needs_the_lane([&record.policies, interlay]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::model::{ConflictPolicy, FilterName, PolicyChoice};

    fn filter(name: &str, config: &str) -> Option<PolicyChoice> {
        let setting = PolicySetting::of(FilterName::new(name).unwrap());
        Some(PolicyChoice::Filter(PolicySetting { config: config.to_owned(), ..setting }))
    }

    #[test]
    fn a_policy_that_decides_on_values_or_differences_leaves_only_the_lane() {
        let servers = Ok(Feeds { usable: vec![FeedKind::Replication, FeedKind::Lane], refused: Vec::new() });
        let none = PolicySettings::default;
        let with = |slot, choice| {
            let mut settings = none();
            settings.set(slot, choice);
            settings
        };
        let (records, compare) = (PolicySlot::Records, PolicySlot::Compare);
        let mask = || with(records, filter("mask", "{}"));
        let tolerant = || with(compare, filter("builtin:compare-semantic", "{\"x\":1}"));
        let nobody = |slot| with(slot, Some(PolicyChoice::Nobody));
        let cases = [
            (none(), none(), None),
            (none(), with(compare, filter("builtin:compare-semantic", "{}")), None),
            (nobody(compare), none(), None),
            (with(PolicySlot::Mirror, filter("mine", "{}")), none(), None),
            (mask(), none(), Some("the records policy mask decides on each value, which only the lane asks it")),
            (none(), mask(), Some("the records policy mask")),
            (nobody(records), mask(), None),
            (tolerant(), none(), Some("the compare policy builtin:compare-semantic decides on each difference")),
            (none(), with(compare, filter("mine", "{}")), Some("the compare policy mine")),
        ];
        for (migration, interlay, expected) in cases {
            let feeds = offered(&servers, &Decisions::default(), [&migration, &interlay]).unwrap();
            let refused = feeds.refused.first().map(|(kind, why)| (*kind, why.as_str()));
            match expected {
                None => assert_eq!(Ok(&feeds), servers.as_ref(), "{migration:?} {interlay:?}"),
                Some(words) => {
                    assert_eq!(feeds.usable, [FeedKind::Lane]);
                    let (kind, why) = refused.expect("a reason");
                    assert!(kind == FeedKind::Replication && why.contains(words), "{why}");
                }
            }
        }
        let skip = Decisions { conflict_policy: ConflictPolicy::Skip, ..Decisions::default() };
        let feeds = offered(&servers, &skip, [&none(), &none()]).unwrap();
        assert_eq!(feeds.usable, [FeedKind::Replication]);
        let feeds = offered(&servers, &skip, [&mask(), &none()]).unwrap();
        assert!(feeds.usable.is_empty() && feeds.refused.len() == 2, "{feeds:?}");
        let unknown = Err("not measured yet".to_owned());
        assert_eq!(offered(&unknown, &Decisions::default(), [&mask(), &none()]), unknown);
        let refused =
            Ok(Feeds { usable: vec![FeedKind::Lane], refused: vec![(FeedKind::Replication, "old".to_owned())] });
        assert_eq!(
            offered(&refused, &Decisions::default(), [&mask(), &none()]),
            refused,
            "the servers' own reason stays"
        );
    }
}
