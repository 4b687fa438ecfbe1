//! What a server holds for clients beside keys: function libraries and cached scripts; and time to live of hash fields, which is in keys.
//!
//! On the movers' thread; reads only.

use super::text::{finding, list, missing};
use crate::contract::{Finding, Severity};
use crate::error::JobError;
use crate::redis::facts::EndpointFacts;
use base::model::{Endpoint, FeedKind};
use follow::redis::client::RedisClient;
use wire::resp::value::Value;

/// Function libraries are not keys: nothing copies them, and FCALL would fail after the flip.
///
/// # Errors
/// [`JobError`] when a server is lost.
pub(super) async fn functions(source: &Endpoint, target: &Endpoint) -> Result<Option<Finding>, JobError> {
    let (theirs, ours) = (libraries(source).await?, libraries(target).await?);
    Ok(judge_functions(&theirs, &ours))
}

enum Libraries {
    Named(Vec<String>),
    /// This kind of server has no functions.
    NoSuchCommand,
    /// This user may not ask.
    Refused(String),
}

async fn libraries(endpoint: &Endpoint) -> Result<Libraries, JobError> {
    let reply = RedisClient::connect(endpoint).await?.call(&[b"FUNCTION", b"LIST"]).await?;
    let Some(listed) = reply.items() else {
        let error = reply.error().unwrap_or_else(|| reply.brief());
        let unknown = error.to_lowercase().contains("unknown");
        return Ok(if unknown { Libraries::NoSuchCommand } else { Libraries::Refused(error) });
    };
    let name = |library: &Value| {
        let name = library.items()?.get(1)?.bytes()?;
        Some(String::from_utf8_lossy(name).into_owned())
    };
    Ok(Libraries::Named(listed.iter().filter_map(name).collect()))
}

fn judge_functions(source: &Libraries, target: &Libraries) -> Option<Finding> {
    let not_compared = |side: &str, error: &str| {
        let detail = format!(
            "the {side} refuses FUNCTION LIST ({error}), so whether the target lacks a function library is not known: grant +function|list, or compare by hand"
        );
        Some(finding("functions-not-compared", Severity::Warning, detail))
    };
    let libraries = match source {
        Libraries::Named(libraries) if libraries.is_empty() => return None,
        Libraries::Named(libraries) => libraries,
        Libraries::NoSuchCommand => return None,
        Libraries::Refused(error) => return not_compared("source", error),
    };
    let (lacked, fix) = match target {
        Libraries::Named(there) => (missing(libraries, there), "load them there (FUNCTION DUMP and FUNCTION RESTORE)"),
        Libraries::NoSuchCommand => (
            libraries.iter().map(String::as_str).collect(),
            "the target has no FUNCTION at all: choose a server that has (Redis 7.0 or later, Valkey), or move their callers to EVAL",
        ),
        Libraries::Refused(error) => return not_compared("target", error),
    };
    let detail = format!("the target lacks function libraries {}: {fix}", list(&lacked));
    // A replication feed brings them: they are in the snapshot and in the stream.
    let of_the_lane = |finding| Finding { feed: Some(FeedKind::Lane), ..finding };
    (!lacked.is_empty()).then(|| of_the_lane(finding("functions-missing-on-target", Severity::Critical, detail)))
}

/// Cached scripts are not keys either, and a server does not list them.
pub(super) fn cached_scripts(source: &EndpointFacts) -> Option<Finding> {
    let count = source.usage.cached_scripts;
    let detail = format!(
        "the source has {count} cached scripts, and the target may lack them: EVALSHA may give NOSCRIPT after the flip. Clients that then send EVAL, as most libraries do, notice nothing; for others, SCRIPT LOAD the scripts on the target"
    );
    (count > 0).then(|| finding("script-cache-not-copied", Severity::Warning, detail))
}

/// A server without HPEXPIRE cannot hold a field that expires: it would stay there for ever.
pub(super) fn field_ttls(source: &EndpointFacts, target: &EndpointFacts) -> Option<Finding> {
    let hashes = source.usage.hashes_with_field_ttl;
    let able = target.commands.binary_search_by(|name| name.as_str().cmp("hpexpire")).is_ok();
    let detail = format!(
        "{hashes} hashes of the source have fields that expire, and the target ({} {}) has no HPEXPIRE: there the fields would stay for ever: choose a target with it (Redis 7.4, Valkey 9 or later), or do without (HPERSIST)",
        target.server, target.version
    );
    (hashes > 0 && !able).then(|| finding("field-ttls-lost-on-target", Severity::Critical, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::facts::Usage;

    #[test]
    fn functions_are_compared_by_name_where_both_servers_tell() {
        use Libraries::{Named, NoSuchCommand, Refused};
        let named = |names: &[&str]| Named(names.iter().map(|name| (*name).to_owned()).collect());
        let refused = || Refused("NOPERM".to_owned());
        let table = [
            (named(&[]), named(&[]), None),
            (named(&["a"]), named(&["a", "b"]), None),
            (named(&["a"]), named(&["b"]), Some("functions-missing-on-target")),
            (named(&["a"]), NoSuchCommand, Some("functions-missing-on-target")),
            (named(&[]), NoSuchCommand, None),
            (named(&[]), refused(), None),
            (NoSuchCommand, named(&["a"]), None),
            (refused(), named(&["a"]), Some("functions-not-compared")),
            (named(&["a"]), refused(), Some("functions-not-compared")),
        ];
        for (nth, (source, target, expected)) in table.iter().enumerate() {
            let found = judge_functions(source, target);
            assert_eq!(found.as_ref().map(|finding| finding.name.as_str()), *expected, "row {nth}: {found:?}");
        }
    }

    #[test]
    fn field_deadlines_and_cached_scripts_count_only_if_there_are_any() {
        let with = |cached_scripts, hashes_with_field_ttl, commands: &[&str]| EndpointFacts {
            usage: Usage { cached_scripts, hashes_with_field_ttl, ..Usage::default() },
            commands: commands.iter().map(|name| (*name).to_owned()).collect(),
            ..EndpointFacts::default()
        };
        let (old, new) = (with(0, 0, &["get", "set"]), with(0, 0, &["get", "hpexpire", "set"]));
        assert_eq!(field_ttls(&with(0, 2, &[]), &old).unwrap().severity, Severity::Critical);
        assert_eq!(field_ttls(&with(0, 2, &[]), &new), None);
        assert_eq!(field_ttls(&new, &old), None);
        assert_eq!(cached_scripts(&with(1, 0, &[])).unwrap().severity, Severity::Warning);
        assert_eq!(cached_scripts(&old), None);
    }
}
