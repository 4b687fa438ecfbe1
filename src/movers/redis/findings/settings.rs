//! Settings that clients notice and that differ between source and target, each with what would be noticed and the fix.
//!
//! On the movers' thread; reads only. `judge` is pure. Settings that only cost memory or time (encodings, lazy freeing) are left out.

use std::collections::{BTreeSet, HashMap};

use super::text::finding;
use crate::contract::{Finding, Severity};
use crate::error::JobError;
use crate::redis::facts::EndpointFacts;
use base::model::Endpoint;
use follow::redis::client::RedisClient;
use wire::resp::value::{Value, encode_request_into};

/// One server's values of the settings in [`RULES`] and of `databases`, as `CONFIG GET` gives them.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    values: HashMap<&'static str, String>,
    /// Why nothing was read.
    refusal: Option<String>,
}

impl Settings {
    /// # Errors
    /// [`JobError`] when the server is lost.
    pub async fn read(endpoint: &Endpoint) -> Result<Self, JobError> {
        let mut client = RedisClient::connect(endpoint).await?;
        let names: Vec<&'static str> = RULES.iter().map(|rule| rule.setting).chain(["databases"]).collect();
        let mut requests = Vec::new();
        for name in &names {
            encode_request_into(&mut requests, &[b"CONFIG", b"GET", name.as_bytes()]);
        }
        let replies = client.pipeline(&requests, names.len()).await?;
        let mut settings = Self::default();
        for (name, reply) in names.iter().zip(&replies) {
            if let Some(error) = reply.error() {
                settings.refusal = Some(error);
            }
            let value = reply.items().and_then(|pair| pair.get(1)).and_then(Value::bytes);
            if let Some(value) = value {
                settings.values.insert(name, String::from_utf8_lossy(value).into_owned());
            }
        }
        Ok(settings)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

/// Two servers, with their settings.
pub(super) struct Pair<'a> {
    pub source: (&'a EndpointFacts, &'a Settings),
    pub target: (&'a EndpointFacts, &'a Settings),
}

/// How bad it is, and what somebody would notice.
type Judgement = Option<(Severity, &'static str)>;

struct Rule {
    setting: &'static str,
    /// The values differ: source's, target's.
    judge: fn(&Pair, &str, &str) -> Judgement,
    fix: Fix,
}

enum Fix {
    /// `CONFIG SET` to the source's value, now.
    Same,
    /// `CONFIG SET` to the source's value once the target needs no protection from it.
    AfterCommit,
    /// None that has replicas on the source may be set on a target that has none yet.
    UntilReplicas,
}

const RULES: &[Rule] = &[
    Rule { setting: "notify-keyspace-events", judge: notifications, fix: Fix::Same },
    Rule {
        setting: "proto-max-bulk-len",
        judge: |_, from, to| {
            smaller(from, to, false)
                .map(|()| (Severity::Critical, "larger values would be refused and the client disconnected"))
        },
        fix: Fix::Same,
    },
    Rule {
        setting: "client-query-buffer-limit",
        judge: |_, from, to| {
            smaller(from, to, false).map(|()| (Severity::Warning, "clients with larger requests would be disconnected"))
        },
        fix: Fix::Same,
    },
    Rule { setting: "client-output-buffer-limit", judge: output_buffers, fix: Fix::Same },
    Rule { setting: "maxclients", judge: max_clients, fix: Fix::Same },
    Rule {
        setting: "maxmemory-clients",
        judge: |_, from, to| {
            (to != "0")
                .then_some((Severity::Warning, "clients would be disconnected to save memory, at another limit"))
                .filter(|_| from == "0" || smaller(from, to, true).is_some())
        },
        fix: Fix::Same,
    },
    Rule {
        setting: "timeout",
        judge: |_, from, to| {
            Some(match smaller(from, to, true) {
                Some(()) => (Severity::Warning, "idle clients would be disconnected sooner"),
                None => (Severity::Info, "idle clients would be kept longer"),
            })
        },
        fix: Fix::Same,
    },
    Rule {
        setting: "busy-reply-threshold",
        judge: |_, from, to| {
            smaller(from, to, true)
                .map(|()| (Severity::Warning, "during scripts that are fine today, other clients would get BUSY"))
        },
        fix: Fix::Same,
    },
    Rule { setting: "maxmemory", judge: max_memory, fix: Fix::Same },
    Rule { setting: "maxmemory-policy", judge: eviction, fix: Fix::AfterCommit },
    Rule {
        setting: "appendonly",
        judge: |_, from, _| {
            (from == "yes")
                .then_some((Severity::Warning, "writes of the last minutes could be lost when the server stops"))
        },
        fix: Fix::Same,
    },
    Rule { setting: "appendfsync", judge: append_sync, fix: Fix::Same },
    Rule {
        setting: "save",
        judge: |_, _, to| {
            Some(if to.is_empty() {
                (Severity::Warning, "no snapshot would be written to disk")
            } else {
                (Severity::Info, "snapshots would be written at other times")
            })
        },
        fix: Fix::Same,
    },
    Rule { setting: "min-replicas-to-write", judge: min_replicas, fix: Fix::UntilReplicas },
];

/// Databases, and every setting that differs where a client would notice.
pub(super) fn judge(pair: &Pair) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (from, to) = (pair.source.1, pair.target.1);
    for (side, settings) in [("source", from), ("target", to)] {
        if let Some(refusal) = &settings.refusal {
            let detail = format!(
                "the {side} refuses CONFIG GET ({refusal}), so the settings that clients notice were not compared: grant +config|get, or compare them by hand (docs/OPERATING.md lists them)"
            );
            findings.push(finding("settings-not-compared", Severity::Warning, detail));
            break;
        }
    }
    findings.extend(databases(from.number("databases"), to.number("databases")));
    for rule in RULES {
        let (Some(theirs), Some(ours)) = (from.get(rule.setting), to.get(rule.setting)) else { continue };
        // How many replicas a write needs matters even if it is as many as on the source.
        if theirs == ours && rule.setting != "min-replicas-to-write" {
            continue;
        }
        if let Some((severity, consequence)) = (rule.judge)(pair, theirs, ours) {
            findings.push(rule.finding(severity, consequence, theirs, ours));
        }
    }
    findings
}

impl Rule {
    fn finding(&self, severity: Severity, consequence: &str, source: &str, target: &str) -> Finding {
        let setting = self.setting;
        let fix = match self.fix {
            Fix::Same => format!("CONFIG SET {setting} \"{source}\" on the target"),
            Fix::AfterCommit => format!("CONFIG SET {setting} \"{source}\" on the target after the commit, not before"),
            Fix::UntilReplicas => format!("CONFIG SET {setting} 0 on the target, or attach its replicas"),
        };
        let detail =
            format!("{setting} is \"{source}\" on the source and \"{target}\" on the target: {consequence}: {fix}");
        finding(&format!("setting-{setting}"), severity, detail)
    }
}

/// A database the target does not have cannot be shadowed. A server that will not say how many it has is not judged.
fn databases(source: Option<u64>, target: Option<u64>) -> Option<Finding> {
    let (from, to) = (source?, target?);
    let detail =
        format!("the target has {to} databases and the source {from}: raise `databases` on the target and restart it");
    (to < from).then(|| finding("fewer-databases-on-target", Severity::Critical, detail))
}

/// Whether the target's number is the smaller one; with `zero_is_none`, 0 stands for no limit.
fn smaller(source: &str, target: &str, zero_is_none: bool) -> Option<()> {
    let limit = |text: &str| match text.parse::<u64>().ok()? {
        0 if zero_is_none => Some(u64::MAX),
        number => Some(number),
    };
    (limit(target)? < limit(source)?).then_some(())
}

/// The classes of event, without the letter that stands for several. `None` when keys' events are sent neither way: then none are.
fn events(flags: &str) -> BTreeSet<char> {
    if !flags.contains(['K', 'E']) {
        return BTreeSet::new();
    }
    flags.chars().flat_map(|flag| if flag == 'A' { "g$lshzxetd".chars().collect() } else { vec![flag] }).collect()
}

fn notifications(_: &Pair, source: &str, target: &str) -> Judgement {
    let (from, to) = (events(source), events(target));
    if from == to {
        None
    } else if from.is_subset(&to) {
        Some((Severity::Info, "more events would be sent than now"))
    } else {
        Some((Severity::Critical, "subscribers to keyspace events would get fewer of them, or none, after the flip"))
    }
}

/// "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"; the class of replicas is no client's.
fn output_buffers(_: &Pair, source: &str, target: &str) -> Judgement {
    let limits = |text: &str| -> Vec<(String, Vec<String>)> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let classes = words.chunks_exact(4).map(|class| (class[0].clone(), class[1..].to_vec()));
        classes.filter(|(class, _)| class == "normal" || class == "pubsub").collect()
    };
    (limits(source) != limits(target)).then_some((
        Severity::Warning,
        "clients that read large replies or many messages would be disconnected at another limit",
    ))
}

fn max_clients(pair: &Pair, source: &str, target: &str) -> Judgement {
    smaller(source, target, false)?;
    let in_use = pair.source.0.usage.connected_clients;
    Some(if target.parse().is_ok_and(|most: u64| most < in_use) {
        (Severity::Critical, "there are more clients than that now")
    } else {
        (Severity::Warning, "fewer clients can connect")
    })
}

/// A target that cannot hold what there is now has a finding of its own.
fn max_memory(pair: &Pair, source: &str, target: &str) -> Judgement {
    smaller(source, target, true)?;
    let fits = pair.target.0.maxmemory_bytes >= pair.source.0.used_memory_bytes;
    fits.then_some((Severity::Warning, "the data has less room to grow before writes are refused or keys evicted"))
}

fn eviction(pair: &Pair, source: &str, target: &str) -> Judgement {
    // That the target evicts while it is kept in step has a finding of its own.
    let limited = pair.target.0.maxmemory_bytes != 0;
    Some(match (source, target, limited) {
        ("noeviction", _, true) => (Severity::Warning, "keys would be evicted that are kept now"),
        (_, "noeviction", true) => (Severity::Warning, "a full target refuses writes (OOM) where the source evicts"),
        (_, _, true) => (Severity::Warning, "other keys would be evicted than now"),
        (_, _, false) => (Severity::Info, "without effect as long as the target has no maxmemory"),
    })
}

fn append_sync(pair: &Pair, source: &str, target: &str) -> Judgement {
    let both = [pair.source.1, pair.target.1].iter().all(|settings| settings.get("appendonly") == Some("yes"));
    let strength = |value: &str| ["no", "everysec", "always"].iter().position(|known| *known == value);
    (both && strength(target) < strength(source))
        .then_some((Severity::Warning, "acknowledged writes could be lost that are safe now when the machine stops"))
}

fn min_replicas(pair: &Pair, source: &str, target: &str) -> Judgement {
    if target.parse().is_ok_and(|needed: u64| needed > pair.target.0.usage.good_replicas) {
        return Some((
            Severity::Critical,
            "the target has fewer replicas than that, so it refuses every write (NOREPLICAS)",
        ));
    }
    smaller(source, target, false).map(|()| {
        (Severity::Warning, "writes would be acknowledged with fewer replicas than now; set it when they are attached")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::facts::Usage;

    const DEFAULTS: &[(&str, &str)] = &[
        ("notify-keyspace-events", ""),
        ("proto-max-bulk-len", "536870912"),
        ("client-query-buffer-limit", "1073741824"),
        ("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
        ("maxclients", "10000"),
        ("maxmemory-clients", "0"),
        ("timeout", "0"),
        ("busy-reply-threshold", "5000"),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("save", "3600 1"),
        ("min-replicas-to-write", "0"),
        ("databases", "16"),
    ];

    fn settings(changes: &[(&'static str, &str)]) -> Settings {
        let all = DEFAULTS.iter().copied().chain(changes.iter().copied());
        Settings { values: all.map(|(name, value)| (name, value.to_owned())).collect(), refusal: None }
    }

    fn found(source: &[(&'static str, &str)], target: &[(&'static str, &str)]) -> Vec<Finding> {
        let facts = |changes: &Settings| EndpointFacts {
            maxmemory_bytes: changes.number("maxmemory").unwrap(),
            used_memory_bytes: 1000,
            usage: Usage { connected_clients: 50, good_replicas: 1, ..Usage::default() },
            ..EndpointFacts::default()
        };
        let (from, to) = (settings(source), settings(target));
        judge(&Pair { source: (&facts(&from), &from), target: (&facts(&to), &to) })
    }

    #[test]
    fn every_setting_is_judged_by_what_clients_would_notice() {
        use Severity::{Critical, Info, Warning};
        let table: &[(&str, &str, &str, Option<Severity>)] = &[
            ("notify-keyspace-events", "AKE", "", Some(Critical)),
            ("notify-keyspace-events", "Kx", "KE$", Some(Critical)),
            ("notify-keyspace-events", "KEg$lshzxetd", "AKE", None),
            ("notify-keyspace-events", "Kx", "AKE", Some(Info)),
            ("notify-keyspace-events", "x", "", None),
            ("proto-max-bulk-len", "536870912", "1048576", Some(Critical)),
            ("proto-max-bulk-len", "1048576", "536870912", None),
            ("client-query-buffer-limit", "1073741824", "1048576", Some(Warning)),
            (
                "client-output-buffer-limit",
                "normal 0 0 0 slave 1 1 1 pubsub 5 5 5",
                "normal 0 0 0 slave 9 9 9 pubsub 5 5 5",
                None,
            ),
            (
                "client-output-buffer-limit",
                "normal 0 0 0 slave 1 1 1 pubsub 5 5 5",
                "normal 0 0 0 slave 1 1 1 pubsub 4 4 4",
                Some(Warning),
            ),
            ("maxclients", "10000", "49", Some(Critical)),
            ("maxclients", "10000", "51", Some(Warning)),
            ("maxclients", "51", "10000", None),
            ("maxmemory-clients", "0", "5%", Some(Warning)),
            ("maxmemory-clients", "10", "5", Some(Warning)),
            ("maxmemory-clients", "5", "0", None),
            ("timeout", "0", "60", Some(Warning)),
            ("timeout", "60", "30", Some(Warning)),
            ("timeout", "60", "0", Some(Info)),
            ("busy-reply-threshold", "5000", "100", Some(Warning)),
            ("busy-reply-threshold", "5000", "0", None),
            ("maxmemory", "0", "2000", Some(Warning)),
            ("maxmemory", "4000", "2000", Some(Warning)),
            ("maxmemory", "2000", "0", None),
            // Less than is in use: `target-memory-too-small` says so.
            ("maxmemory", "0", "999", None),
            ("maxmemory-policy", "allkeys-lru", "noeviction", Some(Info)),
            ("appendonly", "yes", "no", Some(Warning)),
            ("appendonly", "no", "yes", None),
            ("save", "3600 1", "", Some(Warning)),
            ("save", "3600 1", "60 1", Some(Info)),
            ("min-replicas-to-write", "0", "2", Some(Critical)),
            ("min-replicas-to-write", "2", "2", Some(Critical)),
            ("min-replicas-to-write", "1", "1", None),
            ("min-replicas-to-write", "1", "0", Some(Warning)),
        ];
        for (setting, source, target, expected) in table {
            let findings = found(&[(setting, source)], &[(setting, target)]);
            let severities: Vec<Severity> = findings.iter().map(|finding| finding.severity).collect();
            assert_eq!(severities, Vec::from_iter(*expected), "{setting}: {source} against {target}: {findings:?}");
            for finding in findings {
                assert_eq!(finding.name, format!("setting-{setting}"));
                assert!(finding.detail.contains(&format!("CONFIG SET {setting} ")), "{finding:?}");
            }
        }
    }

    #[test]
    fn settings_that_belong_together_are_judged_together() {
        let on = ("appendonly", "yes");
        let findings = found(&[on, ("appendfsync", "always")], &[on, ("appendfsync", "everysec")]);
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Warning));
        assert_eq!(found(&[("appendfsync", "always")], &[("appendfsync", "no")]), vec![]);
        let room = ("maxmemory", "100000");
        for (source, target) in
            [("allkeys-lru", "noeviction"), ("noeviction", "allkeys-lru"), ("allkeys-lru", "volatile-ttl")]
        {
            let findings = found(&[room, ("maxmemory-policy", source)], &[room, ("maxmemory-policy", target)]);
            assert_eq!((findings.len(), findings[0].severity), (1, Severity::Warning), "{findings:?}");
            assert!(findings[0].detail.contains("after the commit"), "{findings:?}");
        }
        assert_eq!(found(&[], &[("databases", "8")])[0].name, "fewer-databases-on-target");
    }

    #[test]
    fn a_server_that_tells_nothing_is_said_once_and_judged_not_at_all() {
        let silent = Settings { refusal: Some("NOPERM".to_owned()), ..Settings::default() };
        let facts = EndpointFacts::default();
        for (from, to) in [(&silent, &silent), (&silent, &settings(&[])), (&settings(&[]), &silent)] {
            let findings = judge(&Pair { source: (&facts, from), target: (&facts, to) });
            assert_eq!((findings.len(), findings[0].name.as_str()), (1, "settings-not-compared"), "{findings:?}");
        }
    }
}
