//! Gates: what must be true before a step, each with what was measured and what is asked for.
//!
//! A gate that cannot be evaluated is unmet and says why.

use super::evidence::{Evidence, PolicyWord, Verification, Workload};
use super::feeds::chosen_feed;
use super::lower::is_dual;
use super::phase::Phase;
use super::record::MigrationRecord;
use base::model::{ApprovalScope, ConflictPolicy, ShadowFrom, Side, Timestamp, limits};
use movers::{Check, Finding, Severity, ShadowFacts};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    pub name: &'static str,
    pub measured: String,
    pub threshold: String,
    pub met: bool,
    /// Gates of the change of authority that stand in for this one; met as far as all of them are asked for there.
    pub defers_to: &'static [&'static str],
}

impl Gate {
    /// Whether a person meets it.
    #[must_use]
    pub fn is_approval(&self) -> bool {
        ApprovalScope::ALL.iter().any(|scope| approval_name(*scope) == self.name)
    }
}

fn gate(name: &'static str, met: bool, measured: impl Into<String>, threshold: impl Into<String>) -> Gate {
    Gate { name, measured: measured.into(), threshold: threshold.into(), met, defers_to: &[] }
}

fn unknown(name: &'static str, why: &str, threshold: impl Into<String>) -> Gate {
    gate(name, false, format!("unknown: {why}"), threshold)
}

fn check_gate(name: &'static str, check: &Check, threshold: &str) -> Gate {
    match check {
        Check::Passed(text) => gate(name, true, text, threshold),
        Check::Failed(text) => gate(name, false, text, threshold),
        Check::Unknown(why) => unknown(name, why, threshold),
    }
}

/// The rows that are not met.
#[must_use]
pub fn unmet(gates: Vec<Gate>) -> Vec<Gate> {
    gates.into_iter().filter(|gate| !gate.met).collect()
}

/// The gates of the next step of this migration, as shown to an operator: leaving the phase, or the flip that is due in it.
#[must_use]
pub fn gates_now(record: &MigrationRecord, evidence: &Evidence, now: Timestamp) -> Vec<Gate> {
    if record.is_over() {
        return Vec::new();
    }
    match (record.phase, record.authority.side) {
        (Phase::Migrate, Side::Source) | (Phase::Rollback, Side::Target) => flip_gates(record, evidence, now),
        (Phase::Rollback, Side::Source) => retry_gates(record, evidence, now, Phase::Compare),
        (phase, _) => leave_gates(record, evidence, now, phase),
    }
}

/// The gates between `from` and the phase after it.
#[must_use]
pub(super) fn leave_gates(record: &MigrationRecord, evidence: &Evidence, now: Timestamp, from: Phase) -> Vec<Gate> {
    let mut gates = match from {
        Phase::PreTest => pre_test_gates(evidence),
        Phase::Analyze => analyze_gates(record, evidence),
        Phase::Compare => compare_gates(record, evidence, now),
        Phase::Test => test_gates(record, evidence, now),
        Phase::Migrate => commit_gates(record, evidence, now),
        Phase::Rollback => return retry_gates(record, evidence, now, Phase::Compare),
        Phase::Commit => return Vec::new(),
    };
    gates.extend(policy_gate(evidence));
    gates
}

/// The rollback policy's word on the last window, where there is one.
fn policy_gate(evidence: &Evidence) -> Option<Gate> {
    const THRESHOLD: &str = "the rollback policy does not hold";
    const NAME: &str = "rollback_policy";
    match &evidence.rollback_policy {
        PolicyWord::NoPolicy => None,
        PolicyWord::Unknown(why) => Some(unknown(NAME, why, THRESHOLD)),
        PolicyWord::GoesOn => Some(gate(NAME, true, "continue", THRESHOLD)),
        PolicyWord::Holds(why) => Some(gate(NAME, false, format!("holds: {why}"), THRESHOLD)),
    }
}

/// The gates of a retry from `rollback` to `to`: everything that would have had to be met on the way there.
#[must_use]
pub(super) fn retry_gates(record: &MigrationRecord, evidence: &Evidence, now: Timestamp, to: Phase) -> Vec<Gate> {
    let on_source = record.authority.side == Side::Source;
    let mut gates = vec![gate("traffic_on_source", on_source, record.authority.side.as_str(), "source")];
    gates.extend(policy_gate(evidence));
    match to {
        Phase::Test => gates.extend(compare_gates(record, evidence, now)),
        Phase::Migrate => {
            gates.extend(compare_gates(record, evidence, now));
            gates.extend(test_gates(record, evidence, now));
        }
        Phase::PreTest | Phase::Analyze | Phase::Compare | Phase::Rollback | Phase::Commit => {}
    }
    gates
}

fn pre_test_gates(evidence: &Evidence) -> Vec<Gate> {
    vec![
        check_gate("source_reachable", &evidence.source_reachable, "answers, and is a server of the endpoint's kind"),
        check_gate("target_reachable", &evidence.target_reachable, "answers, and is a server of the endpoint's kind"),
        check_gate("target_exercised", &evidence.target_exercised, "every smoke check on reserved keys passes"),
    ]
}

fn analyze_gates(record: &MigrationRecord, evidence: &Evidence) -> Vec<Gate> {
    let thresholds = &record.decisions.thresholds;
    let observed = |of: fn(&Workload) -> u64| evidence.workload.as_ref().map(of).map_err(String::as_str);
    let mut gates = vec![
        at_least("commands_observed", observed(|seen| seen.commands), thresholds.analyze_min_commands, "commands"),
        at_least("time_observed", observed(|seen| seen.seconds), thresholds.analyze_min_seconds, "seconds"),
        compatibility_gate(record, evidence),
    ];
    if record.dual_since.is_none() && record.decisions.shadow_from == ShadowFrom::Compare {
        gates.push(conflict_gate(record, evidence));
        gates.push(feed_gate(record, evidence));
    }
    gates
}

fn at_least(name: &'static str, measured: Result<u64, &str>, min: u64, unit: &str) -> Gate {
    let threshold = format!("at least {min} {unit}");
    match measured {
        Ok(measured) => gate(name, measured >= min, format!("{measured} {unit}"), threshold),
        Err(why) => unknown(name, why, threshold),
    }
}

fn compatibility_gate(record: &MigrationRecord, evidence: &Evidence) -> Gate {
    const NAME: &str = "compatibility";
    const THRESHOLD: &str = "no critical finding that is not waived";
    let findings = match &evidence.findings {
        Ok(_) if record.phase == Phase::Migrate && evidence.findings_at < Some(record.phase_since) => {
            return unknown(NAME, "the servers have not been compared since this phase began", THRESHOLD);
        }
        Ok(findings) => findings,
        Err(why) => return unknown(NAME, why, THRESHOLD),
    };
    let waived = |name: &str| record.waivers.iter().any(|waiver| waiver.finding == name);
    let feed = record.feed.or_else(|| chosen_feed(record, evidence).ok().map(|(kind, _)| kind));
    let concerns = |finding: &Finding| finding.feed.is_none() || feed.is_none() || finding.feed == feed;
    let open: Vec<_> = findings
        .iter()
        .filter(|finding| concerns(finding))
        .filter(|finding| finding.severity == Severity::Critical && !waived(&finding.name))
        .map(|finding| finding.name.as_str())
        .collect();
    if open.is_empty() {
        gate(NAME, true, format!("{} findings, none critical and open", findings.len()), THRESHOLD)
    } else {
        let fix =
            format!("each says its fix; or `migration waive {} --finding NAME --by NAME --reason WHY`", record.id);
        gate(NAME, false, format!("critical: {} ({fix})", open.join(", ")), THRESHOLD)
    }
}

/// Before the first copy: what the target may already hold. What the mover finds at the beginning of the copy is judged again there.
fn conflict_gate(record: &MigrationRecord, evidence: &Evidence) -> Gate {
    const NAME: &str = "target_keys";
    const KEPT_MAX: u64 = limits::FEED_KEPT_KEYS_MAX as u64;
    let policy = record.decisions.conflict_policy;
    let (max, threshold) = match policy {
        ConflictPolicy::Replace => (
            u64::MAX,
            "any (conflict_policy replace: the target becomes an exact copy, keys only it has are removed)".to_owned(),
        ),
        ConflictPolicy::Skip => (
            KEPT_MAX,
            format!("at most {KEPT_MAX} keys (conflict_policy skip: the target keeps them, and they are not moved)"),
        ),
        ConflictPolicy::Exclude => (
            u64::MAX,
            "only keys that match `exclude` (conflict_policy exclude; judged key by key when the first copy begins)"
                .to_owned(),
        ),
        ConflictPolicy::Fail | ConflictPolicy::Merge => (
            0,
            format!(
                "0 keys (conflict_policy {policy}; empty the target, or create the migration with conflict_policy replace, \
                 which makes the target an exact copy of the source and removes keys only the target has)"
            ),
        ),
    };
    match &evidence.target_keys {
        Ok(keys) => gate(NAME, *keys <= max, format!("the target holds {keys} keys"), threshold),
        Err(why) => unknown(NAME, why, threshold),
    }
}

/// Before the first copy: what is to keep the target in step.
pub(super) fn feed_gate(record: &MigrationRecord, evidence: &Evidence) -> Gate {
    const NAME: &str = "feed";
    const THRESHOLD: &str = "what keeps the target in step is known and offered";
    if let Err(why) = &evidence.feeds {
        return unknown(NAME, why, THRESHOLD);
    }
    match chosen_feed(record, evidence) {
        Ok((feed, why)) => gate(NAME, true, format!("{feed}: {why}"), THRESHOLD),
        Err(why) => gate(NAME, false, why, THRESHOLD),
    }
}

fn compare_gates(record: &MigrationRecord, evidence: &Evidence, now: Timestamp) -> Vec<Gate> {
    const LATER: &[&str] = &["nothing_uncopied", "reads_compared", "inconclusive", "divergences", "dirty"];
    if !is_dual(record) {
        return vec![deferred(record, evidence, now, "comparison", LATER)];
    }
    let mut gates = vec![pass_gate(evidence), reads_gate(record, evidence), inconclusive_gate(record, evidence)];
    gates.push(divergence_gate(evidence));
    gates.push(dirty_gate(evidence, record.decisions.thresholds.dirty_before_fence_max));
    gates
}

/// With `shadow_from = migrate` nothing is mirrored yet, so these gates guard the change of authority instead. Met only if every one
/// of them is among the gates that the change of authority of this very record will ask for.
fn deferred(
    record: &MigrationRecord,
    evidence: &Evidence,
    now: Timestamp,
    name: &'static str,
    defers_to: &'static [&'static str],
) -> Gate {
    let at_the_flip = MigrationRecord { phase: Phase::Migrate, ..record.clone() };
    let later = flip_gates(&at_the_flip, evidence, now);
    let absent: Vec<_> =
        defers_to.iter().filter(|name| !later.iter().any(|gate| gate.name == **name)).copied().collect();
    let measured = if absent.is_empty() {
        format!("judged before the change of authority by: {}", defers_to.join(", "))
    } else {
        format!("the change of authority does not ask for: {}", absent.join(", "))
    };
    let threshold =
        "all judged before the change of authority (shadow_from = migrate keeps the target untouched until migrate)";
    Gate { defers_to, ..gate(name, absent.is_empty(), measured, threshold) }
}

fn shadow_gate(
    evidence: &Evidence,
    name: &'static str,
    threshold: &str,
    judge: impl Fn(&ShadowFacts) -> (bool, String),
) -> Gate {
    match &evidence.shadow {
        Ok(facts) => {
            let (met, measured) = judge(facts);
            gate(name, met, measured, threshold)
        }
        Err(why) => unknown(name, why, threshold),
    }
}

fn pass_gate(evidence: &Evidence) -> Gate {
    const THRESHOLD: &str = "every key named and copied";
    match &evidence.pass_done {
        Ok(()) => shadow_gate(evidence, "nothing_uncopied", THRESHOLD, |facts| {
            let uncopied = facts.behind.uncopied;
            (!uncopied, if uncopied { "uncopied keys remain" } else { "nothing uncopied" }.to_owned())
        }),
        Err(how_far) => gate("nothing_uncopied", false, how_far, THRESHOLD),
    }
}

/// A comparison of every key under the present authority that has found nothing.
fn clean_comparison<'a>(record: &MigrationRecord, evidence: &'a Evidence) -> Option<&'a Verification> {
    evidence.verification.as_ref().filter(|seen| seen.is_clean() && seen.epoch == record.authority.epoch)
}

/// Keys of a clean full comparison count as reads do: an application that only writes has no others.
fn reads_gate(record: &MigrationRecord, evidence: &Evidence) -> Gate {
    let min = record.decisions.thresholds.compare_min_reads;
    let clean = clean_comparison(record, evidence);
    let threshold = format!("at least {min} reads, or a clean comparison of every key");
    shadow_gate(evidence, "reads_compared", &threshold, |facts| {
        let reads = facts.reads.compared;
        let more = clean.map_or_else(String::new, |seen| format!(", and every key: {}", seen.keys));
        (reads >= min || clean.is_some(), format!("{reads} reads{more}"))
    })
}

/// Reads whose two answers were not of one moment prove nothing; when they are many, neither do the others. A clean full comparison proves
/// more than any reads: without it, those of a time when the shadow was away would count until as many others have come.
fn inconclusive_gate(record: &MigrationRecord, evidence: &Evidence) -> Gate {
    const SHARE: u64 = limits::READS_INCONCLUSIVE_PER_HUNDRED_MAX;
    const TRIED: u64 = limits::READS_INCONCLUSIVE_MIN_TRIED;
    let threshold = format!("at most {SHARE} in 100, once {TRIED} were tried, or a clean comparison of every key");
    let clean = clean_comparison(record, evidence);
    shadow_gate(evidence, "inconclusive", &threshold, |facts| {
        let inconclusive = facts.reads.inconclusive;
        let tried = facts.reads.compared.saturating_add(inconclusive);
        let few = tried < TRIED || inconclusive.saturating_mul(100) <= tried.saturating_mul(SHARE);
        (few || clean.is_some(), format!("{inconclusive} of {tried} reads"))
    })
}

fn divergence_gate(evidence: &Evidence) -> Gate {
    const THRESHOLD: &str = "0 unresolved";
    match &evidence.divergences {
        Ok(open) => gate("divergences", *open == 0, format!("{open} unresolved"), THRESHOLD),
        Err(why) => unknown("divergences", why, THRESHOLD),
    }
}

fn dirty_gate(evidence: &Evidence, max: u64) -> Gate {
    shadow_gate(evidence, "dirty", &format!("at most {max} keys"), |facts| {
        (facts.behind.dirty <= max, format!("{} keys", facts.behind.dirty))
    })
}

fn test_gates(record: &MigrationRecord, evidence: &Evidence, now: Timestamp) -> Vec<Gate> {
    let mut gates = vec![smoke_gate(record)];
    if is_dual(record) {
        gates.push(rehearsal_gate(record));
    } else {
        gates.push(deferred(record, evidence, now, "rollback_rehearsal", &["rollback_rehearsal"]));
        if record.dual_since.is_none() {
            gates.push(conflict_gate(record, evidence));
            gates.push(feed_gate(record, evidence));
        }
    }
    if record.decisions.manual_approval {
        gates.push(approval_gate(record, ApprovalScope::Migrate));
    }
    gates
}

fn smoke_gate(record: &MigrationRecord) -> Gate {
    const THRESHOLD: &str = "every check passed";
    match &record.smoke {
        None => unknown("smoke_checks", "not run yet", THRESHOLD),
        Some(smoke) if smoke.failed.is_empty() => {
            gate("smoke_checks", true, format!("{} checks passed", smoke.checks), THRESHOLD)
        }
        Some(smoke) => gate("smoke_checks", false, format!("failed: {}", smoke.failed.join("; ")), THRESHOLD),
    }
}

fn rehearsal_gate(record: &MigrationRecord) -> Gate {
    let budget_ms = record.decisions.thresholds.fence_budget_ms;
    let threshold = format!("a pause of at most {budget_ms} ms");
    match &record.rehearsal {
        None => unknown("rollback_rehearsal", "not run yet", threshold),
        Some(rehearsal) => {
            let met = rehearsal.pause_us <= budget_ms.saturating_mul(1000);
            gate("rollback_rehearsal", met, format!("{} us", rehearsal.pause_us), threshold)
        }
    }
}

fn approval_name(scope: ApprovalScope) -> &'static str {
    match scope {
        ApprovalScope::Migrate => "approval_to_migrate",
        ApprovalScope::Flip => "approval_to_flip",
        ApprovalScope::Commit => "approval_to_commit",
    }
}

fn approval_gate(record: &MigrationRecord, scope: ApprovalScope) -> Gate {
    let name = approval_name(scope);
    let threshold = format!("given in run {}", record.run);
    match record.approvals.iter().rev().find(|approval| approval.scope == scope && approval.run == record.run) {
        Some(approval) => gate(name, true, format!("given by {}", approval.by), threshold),
        None => {
            let command = format!("migration approve {} --scope {scope} --by NAME --reason WHY", record.id);
            gate(name, false, format!("not given: `{command}`"), threshold)
        }
    }
}

fn connected_gate(evidence: &Evidence) -> Gate {
    shadow_gate(evidence, "both_sides_connected", "both", |facts| {
        let word = |up: bool| if up { "connected" } else { "lost" };
        let (authority, shadow) = (facts.authority_connected, facts.shadow_connected);
        (authority && shadow, format!("authority {}, shadow {}", word(authority), word(shadow)))
    })
}

/// How far behind the shadow may be for clients to be held: the other half of their time is for what comes after.
#[must_use]
pub fn lag_us_max(record: &MigrationRecord) -> u64 {
    record.decisions.thresholds.fence_budget_ms.saturating_mul(1000) / 2
}

/// A shadow that does not answer would let every hold expire, and clients would wait for nothing.
fn lag_gate(record: &MigrationRecord, evidence: &Evidence) -> Gate {
    let max = lag_us_max(record);
    shadow_gate(evidence, "lag", &format!("at most {max} us (half of fence_budget_ms)"), |facts| {
        (facts.behind.lag_us <= max, format!("{} us", facts.behind.lag_us))
    })
}

/// The name of [`unseen_gate`].
pub const UNDECLARED_WRITES: &str = "undeclared_writes";

/// What must be true before clients are held for a change of authority: forward in `migrate`, back in `rollback`.
#[must_use]
pub fn flip_gates(record: &MigrationRecord, evidence: &Evidence, now: Timestamp) -> Vec<Gate> {
    let thresholds = &record.decisions.thresholds;
    let mut gates = vec![pass_gate(evidence), dirty_gate(evidence, thresholds.dirty_before_fence_max)];
    gates.push(connected_gate(evidence));
    gates.push(lag_gate(record, evidence));
    if record.phase == Phase::Rollback {
        // The way back waits for nothing but what makes it lossless.
        gates.extend(unseen_gate(record, evidence));
        return gates;
    }
    // Users and settings may have changed since `analyze`.
    gates.push(compatibility_gate(record, evidence));
    gates.extend(policy_gate(evidence));
    gates.extend(evidence.own_gates.iter().map(|own| check_gate(own.name, &own.check, own.threshold)));
    gates.push(verification_gate(record, evidence, now));
    gates.extend(unseen_gate(record, evidence));
    gates.push(divergence_gate(evidence));
    if record.decisions.shadow_from == ShadowFrom::Migrate {
        gates.push(reads_gate(record, evidence));
        gates.push(inconclusive_gate(record, evidence));
        gates.push(rehearsal_gate(record));
    }
    if record.decisions.hold_before_flip {
        gates.push(approval_gate(record, ApprovalScope::Flip));
    }
    gates
}

/// A comparison of every key, begun in this phase and epoch, clean, and clean for the soak time.
fn verification_gate(record: &MigrationRecord, evidence: &Evidence, now: Timestamp) -> Gate {
    const NAME: &str = "verification";
    let soak = record.decisions.thresholds.soak_seconds;
    let threshold = if soak == 0 {
        "a full comparison, 0 divergent, 0 inconclusive".to_owned()
    } else {
        format!("full comparisons, 0 divergent, 0 inconclusive, for {soak} seconds")
    };
    let Some(seen) = &evidence.verification else {
        return unknown(NAME, "no full comparison has ended yet", threshold);
    };
    let since = if record.authority.side == Side::Target {
        record.flips.last().map_or(record.phase_since, |flip| flip.at)
    } else {
        record.phase_since
    };
    if seen.epoch != record.authority.epoch || seen.started_at < since {
        return unknown(NAME, "the last full comparison is older than this step", threshold);
    }
    let counts = format!("{} keys, {} divergent, {} inconclusive", seen.keys, seen.divergent, seen.inconclusive);
    if !seen.is_clean() {
        return gate(NAME, false, counts, threshold);
    }
    let clean_ms = evidence.clean_since.map_or(0, |at| now.0.saturating_sub(at.0.max(since.0)));
    let soaked = clean_ms >= soak.saturating_mul(1000);
    let measured = if soak == 0 { counts } else { format!("{counts}, clean for {} seconds", clean_ms / 1000) };
    gate(NAME, soaked, measured, threshold)
}

/// What a script wrote that the feed could not see would be missing after a change of authority. There is no such gate while nothing of the kind
/// has run.
fn unseen_gate(record: &MigrationRecord, evidence: &Evidence) -> Option<Gate> {
    const WAIVER: &str = "undeclared-writes";
    let facts = evidence.shadow.as_ref().ok()?;
    let strayed = evidence.strayed && facts.unseen_last_at_ms > 0;
    let at_ms = if strayed { facts.unseen_last_at_ms } else { facts.unseen_at_ms };
    if at_ms == 0 {
        return None;
    }
    let since = if strayed { "the last script ran" } else { "each script ran for the first time" };
    let threshold = format!("a clean comparison of every key, begun after {since}, or a waiver of {WAIVER}");
    if let Some(waiver) = record.waivers.iter().find(|waiver| waiver.finding == WAIVER) {
        return Some(gate(UNDECLARED_WRITES, true, format!("waived by {}", waiver.by), threshold));
    }
    let seen = evidence.verification.as_ref().filter(|seen| seen.is_clean() && seen.started_at.0 > at_ms);
    let measured = match (seen.is_some(), strayed) {
        (true, true) => "no script has run since every key was compared",
        (true, false) => "every script was seen to keep to the keys it declares",
        (false, true) => {
            "comparisons found differences where scripts run, which may write keys that they do not declare: stop them for a comparison, or move by the feed replication"
        }
        (false, false) => "a script that no comparison has seen yet may have written keys that it does not declare",
    };
    Some(gate(UNDECLARED_WRITES, seen.is_some(), measured, threshold))
}

fn commit_gates(record: &MigrationRecord, evidence: &Evidence, now: Timestamp) -> Vec<Gate> {
    let on_target = record.authority.side == Side::Target;
    let mut gates = vec![
        gate("traffic_on_target", on_target, record.authority.side.as_str(), "target"),
        pass_gate(evidence),
        dirty_gate(evidence, record.decisions.thresholds.dirty_before_fence_max),
        connected_gate(evidence),
        verification_gate(record, evidence, now),
        divergence_gate(evidence),
    ];
    if record.decisions.manual_approval {
        gates.push(approval_gate(record, ApprovalScope::Commit));
    }
    gates
}
