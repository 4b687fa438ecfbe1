//! Compares two servers: what could keep traffic from moving from one to the other and back.
//!
//! Lives on the movers' thread. Writes only reserved keys (`__crossfade:*`), which it removes. A finding blocks nothing by itself:
//! the workflow's gates read its severity. docs/OPERATING.md lists the names; a waiver refers to them, so they stay.

mod access;
mod acl;
mod permissions;
mod scripting;
#[cfg(test)]
mod server_tests;
mod settings;
mod text;

use self::settings::Settings;
use self::text::{finding, list, missing};
use super::clock::now_ms;
use super::facts::{EndpointFacts, check_endpoint};
use crate::contract::{Finding, Severity, WriteProbe};
use crate::error::JobError;
use base::model::{Endpoint, FeedKind, limits};
use follow::redis::client::RedisClient;
use wire::resp::value::Value;

/// Compares two servers: version, commands missing on the target, modules, maxmemory and eviction policy, cluster mode, clients' passwords and
/// ACL users, settings that clients notice, functions and scripts, clock skew, DUMP payload acceptance both ways, same server on both ends (run_id).
///
/// # Errors
/// As [`check_endpoint`].
pub async fn compatibility(source: &Endpoint, target: &Endpoint, writes: WriteProbe) -> Result<Vec<Finding>, JobError> {
    let (from, to) = (check_endpoint(source).await?, check_endpoint(target).await?);
    let mut findings = judge(&from, &to);
    if writes == WriteProbe::Allowed {
        findings.extend(keys_on_target(&to));
        findings.extend(payloads(source, target, [&from, &to]).await?);
    }
    findings.extend(access::access(source, target).await?);
    let (theirs, ours) = (Settings::read(source).await?, Settings::read(target).await?);
    findings.extend(settings::judge(&settings::Pair { source: (&from, &theirs), target: (&to, &ours) }));
    findings.extend(scripting::functions(source, target).await?);
    Ok(findings)
}

/// What each server refuses of the other's payloads. On one and the same server, or on one that takes no writes, such a test says nothing.
async fn payloads(source: &Endpoint, target: &Endpoint, facts: [&EndpointFacts; 2]) -> Result<Vec<Finding>, JobError> {
    let mut findings = Vec::new();
    if facts[0].run_id == facts[1].run_id || facts.iter().any(|side| side.role != "master") {
        return Ok(findings);
    }
    for (side, producer, other, consumer) in
        [("source", source, "target", target), ("target", target, "source", source)]
    {
        match refused_payloads(producer, consumer).await? {
            Ok(refused) => findings.extend(payload_finding(&format!("restore-refused-by-{other}"), consumer, &refused)),
            Err(error) => {
                let detail = format!("the {side} refused a write to a reserved key: {error}");
                findings.push(before_copy(finding(&format!("{side}-refuses-writes"), Severity::Critical, detail)));
            }
        }
    }
    Ok(findings)
}

fn before_copy(finding: Finding) -> Finding {
    Finding { before_copy: true, ..finding }
}

/// The findings two sets of facts imply. Pure.
fn judge(source: &EndpointFacts, target: &EndpointFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.run_id == target.run_id {
        let detail = "source and target are one and the same server (same run_id): give the target another address";
        findings.push(finding("same-server", Severity::Critical, detail));
    }
    versions(source, target, &mut findings);
    commands_and_modules(source, target, &mut findings);
    memory(source, target, &mut findings);
    standing(source, target, &mut findings);
    findings.extend(scripting::cached_scripts(source));
    findings.extend(scripting::field_ttls(source, target));
    let skew_ms = source.clock_skew_ms.abs_diff(target.clock_skew_ms);
    if skew_ms * 2 > limits::TTL_GRACE_DEFAULT_MS {
        let detail = format!(
            "the servers' clocks differ by {skew_ms} ms: synchronise them (NTP) or raise ttl_grace_ms above {}",
            skew_ms * 2
        );
        findings.push(finding("clock-skew", Severity::Critical, detail));
    }
    findings
}

fn versions(source: &EndpointFacts, target: &EndpointFacts, findings: &mut Vec<Finding>) {
    for (side, facts) in [("source", source), ("target", target)] {
        if facts.commands.binary_search(&"pexpiretime".to_owned()).is_err() {
            let detail = format!(
                "the {side} ({} {}) has no PEXPIRETIME: Crossfade needs Redis 7.0 or later on both sides",
                facts.server, facts.version
            );
            findings.push(finding(&format!("{side}-too-old"), Severity::Critical, detail));
        }
    }
    if (&source.server, &source.version) != (&target.server, &target.version) {
        let detail = format!("{} {} to {} {}", source.server, source.version, target.server, target.version);
        findings.push(finding("different-versions", Severity::Info, detail));
    }
}

fn commands_and_modules(source: &EndpointFacts, target: &EndpointFacts, findings: &mut Vec<Finding>) {
    let commands = missing(&source.commands, &target.commands);
    if !commands.is_empty() {
        let detail = format!("the target lacks {} commands of the source: {}", commands.len(), list(&commands));
        findings.push(finding("commands-missing-on-target", Severity::Warning, detail));
    }
    let mut modules = missing(&source.modules, &target.modules);
    // Valkey's own Lua engine, which it lists as a module; other servers have theirs built in.
    modules.retain(|module| !(source.server == "valkey" && *module == "lua"));
    if !modules.is_empty() {
        let detail = format!("the target lacks modules: {}: load them, or waive when no key uses them", list(&modules));
        findings.push(finding("modules-missing-on-target", Severity::Critical, detail));
    }
    if !source.acl_users.is_empty() {
        let detail = format!(
            "while the lane keeps two servers in step, writes of users other than `default` are refused ({} exist here): move their clients to the default user, or waive when none of them writes",
            list(&source.acl_users)
        );
        let lane_only = finding("acl-users-not-carried", Severity::Critical, detail);
        findings.push(Finding { feed: Some(FeedKind::Lane), ..lane_only });
    }
}

fn memory(source: &EndpointFacts, target: &EndpointFacts, findings: &mut Vec<Finding>) {
    if target.maxmemory_bytes != 0 && target.maxmemory_bytes < source.used_memory_bytes {
        let detail = format!(
            "the target's maxmemory is {} bytes and the source uses {}: raise maxmemory",
            target.maxmemory_bytes, source.used_memory_bytes
        );
        findings.push(finding("target-memory-too-small", Severity::Critical, detail));
    }
    for (side, facts) in [("source", source), ("target", target)] {
        if facts.maxmemory_bytes != 0 && facts.maxmemory_policy != "noeviction" {
            let detail = format!(
                "the {side} may evict keys ({}): each eviction becomes a divergence: CONFIG SET maxmemory-policy noeviction on the {side} until the commit",
                facts.maxmemory_policy
            );
            findings.push(finding(&format!("{side}-evicts"), Severity::Warning, detail));
        }
    }
}

fn keys_on_target(target: &EndpointFacts) -> Option<Finding> {
    let keys: u64 = target.databases.iter().map(|(_, keys, _)| keys).sum();
    let detail = format!("the target holds {keys} keys: the migration's conflict_policy says what becomes of them");
    (keys > 0).then(|| before_copy(finding("target-not-empty", Severity::Info, detail)))
}

fn standing(source: &EndpointFacts, target: &EndpointFacts, findings: &mut Vec<Finding>) {
    for (side, facts) in [("source", source), ("target", target)] {
        if facts.role != "master" {
            let detail = format!("the {side} is a {}: name its primary instead", facts.role);
            findings.push(finding(&format!("{side}-is-replica"), Severity::Critical, detail));
        }
        if facts.cluster_enabled {
            let detail = format!("the {side} runs in cluster mode, which is not supported yet");
            findings.push(finding(&format!("{side}-is-cluster"), Severity::Critical, detail));
        }
    }
}

/// One small key of each type, written on the producer.
const SAMPLES: &[(&str, &[&[u8]])] = &[
    ("string", &[b"SET", b"", b"value"]),
    ("list", &[b"RPUSH", b"", b"a", b"b"]),
    ("set", &[b"SADD", b"", b"a", b"b"]),
    ("intset", &[b"SADD", b"", b"1", b"2"]),
    ("hash", &[b"HSET", b"", b"field", b"value"]),
    ("zset", &[b"ZADD", b"", b"1.5", b"member"]),
    ("stream", &[b"XADD", b"", b"1-1", b"field", b"value"]),
];

/// Types whose DUMP on `producer` is refused by RESTORE on `consumer`, each with the refusal; or why `producer` took no write.
async fn refused_payloads(
    producer: &Endpoint,
    consumer: &Endpoint,
) -> Result<Result<Vec<(String, String)>, String>, JobError> {
    let (mut from, mut to) = (RedisClient::connect(producer).await?, RedisClient::connect(consumer).await?);
    let mut refused = Vec::new();
    for (name, write) in SAMPLES {
        let key = format!("__crossfade:payload:{}:{}:{name}", std::process::id(), now_ms());
        let command: Vec<&[u8]> =
            write.iter().map(|part| if part.is_empty() { key.as_bytes() } else { *part }).collect();
        if let Some(error) = from.call(&command).await?.error() {
            return Ok(Err(error));
        }
        // Should this process die now, the key ends by itself.
        from.must(&[b"PEXPIRE", key.as_bytes(), b"60000"]).await?;
        let payload = from.call(&[b"DUMP", key.as_bytes()]).await;
        from.must(&[b"DEL", key.as_bytes()]).await?;
        let outcome = match payload?.bytes() {
            Some(payload) => to.call(&[b"RESTORE", key.as_bytes(), b"60000", payload]).await?,
            None => Value::Error(b"ERR DUMP gave nothing".to_vec()),
        };
        match outcome.error() {
            Some(error) => refused.push(((*name).to_owned(), error)),
            None => drop(to.must(&[b"DEL", key.as_bytes()]).await?),
        }
    }
    Ok(Ok(refused))
}

fn payload_finding(name: &str, consumer: &Endpoint, refused: &[(String, String)]) -> Option<Finding> {
    let (_, reason) = refused.first()?;
    let types: Vec<&str> = refused.iter().map(|(name, _)| name.as_str()).collect();
    let detail = format!(
        "endpoint {} refuses dumped payloads of {} as they are ({reason}): a rewritten footer or typed copies are used instead",
        consumer.name,
        list(&types)
    );
    Some(before_copy(finding(name, Severity::Info, detail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(run_id: &str) -> EndpointFacts {
        EndpointFacts {
            server: "redis".into(),
            version: "7.0.15".into(),
            run_id: run_id.into(),
            role: "master".into(),
            maxmemory_policy: "noeviction".into(),
            commands: vec!["get".into(), "pexpiretime".into()],
            ..EndpointFacts::default()
        }
    }

    #[test]
    fn equal_servers_have_no_findings_and_each_difference_has_its_own() {
        assert_eq!(judge(&facts("a"), &facts("b")), vec![]);
        type Change = fn(&mut EndpointFacts);
        let table: &[(&str, Severity, Change)] = &[
            ("same-server", Severity::Critical, |target| target.run_id = "a".into()),
            ("different-versions", Severity::Info, |target| target.version = "7.2.0".into()),
            ("target-too-old", Severity::Critical, |target| target.commands = vec!["get".into()]),
            ("commands-missing-on-target", Severity::Warning, |target| target.commands = vec!["pexpiretime".into()]),
            ("target-memory-too-small", Severity::Critical, |target| target.maxmemory_bytes = 1),
            ("target-is-replica", Severity::Critical, |target| target.role = "slave".into()),
            ("target-is-cluster", Severity::Critical, |target| target.cluster_enabled = true),
            ("target-not-empty", Severity::Info, |target| target.databases = vec![(0, 1, 0)]),
            ("clock-skew", Severity::Critical, |target| target.clock_skew_ms = -600),
            ("target-evicts", Severity::Warning, |target| {
                target.maxmemory_bytes = 1 << 40;
                target.maxmemory_policy = "allkeys-lru".into();
            }),
        ];
        let source = EndpointFacts { used_memory_bytes: 100, ..facts("a") };
        for (name, severity, change) in table {
            let mut target = facts("b");
            change(&mut target);
            let mut found = judge(&source, &target);
            found.extend(keys_on_target(&target));
            assert!(found.iter().any(|f| f.name == *name && f.severity == *severity), "{name}: {found:?}");
        }
        let with_users = EndpointFacts { acl_users: vec!["app".into()], modules: vec!["search".into()], ..facts("a") };
        let names: Vec<String> = judge(&with_users, &facts("b")).into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["modules-missing-on-target", "acl-users-not-carried"]);
        let with_lua = EndpointFacts { server: "valkey".into(), modules: vec!["lua".into()], ..facts("a") };
        let found = judge(&with_lua, &facts("b"));
        assert!(found.iter().all(|finding| finding.name == "different-versions"), "{found:?}");
    }
}
