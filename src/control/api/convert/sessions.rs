//! Converts pauses, sessions, analysis and facts of PostgreSQL servers into the API's types. Makes no decisions.

use super::findings::finding;
use crate::api::types as api;
use crate::reconcile::views::{self, PauseState, Totals};

pub fn paused(from: &views::PauseView) -> api::Paused {
    api::Paused {
        interlay: from.interlay.clone(),
        paused: true,
        drained_in_us: from.drained_in_us,
        paused_at: from.paused_at.0,
        resumes_at: from.resumes_at.0,
    }
}

pub fn resumed(from: &views::ResumeView) -> api::Resumed {
    api::Resumed {
        interlay: from.interlay.clone(),
        paused: false,
        held_clients: from.held_clients,
        longest_hold_us: from.longest_hold_us,
        paused_for_us: from.paused_for_us,
    }
}

pub fn pause(from: PauseState) -> Option<api::Pause> {
    let plain = |state: &str| {
        Some(api::Pause { state: state.to_owned(), paused_at: None, resumes_at: None, drained_in_us: None })
    };
    match from {
        PauseState::Running => None,
        PauseState::Pausing => plain("closing"),
        PauseState::Resuming => plain("opening"),
        PauseState::Paused(paused) => Some(api::Pause {
            state: "paused".to_owned(),
            paused_at: Some(paused.since.0),
            resumes_at: Some(paused.until.0),
            drained_in_us: Some(paused.drained_in_us),
        }),
    }
}

pub fn session(from: &views::SessionInfo) -> api::Session {
    api::Session {
        id: from.id,
        user: from.user.clone(),
        database: from.database.clone(),
        application: from.application.clone(),
        peer: from.peer.map(|peer| peer.to_string()),
        state: from.state.as_str().to_owned(),
        age_ms: from.age_us / 1000,
        keeps: from.keeps.iter().map(|class| (*class).to_owned()).collect(),
    }
}

pub fn sessions(from: &views::SessionsView) -> api::Sessions {
    api::Sessions {
        interlay: from.interlay.clone(),
        total: from.total,
        busy: from.busy,
        cores_missing: from.cores_missing,
        sessions: from.sessions.iter().map(session).collect(),
    }
}

/// From 0 to 1, with four digits.
fn share(part: u128, whole: u128) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 10_000.0).round() / 10_000.0 }
}

pub fn analysis(from: &views::AnalysisView) -> api::Analysis {
    let of_all = |totals: &Totals| share(totals.count.into(), from.all.count.into());
    let kind = |kind: &views::KindView| api::StatementKind {
        kind: kind.kind.to_owned(),
        count: kind.totals.count,
        share: of_all(&kind.totals),
        failed: kind.totals.failed,
    };
    let fingerprint = |one: &views::FingerprintView| api::Fingerprint {
        fingerprint: format!("{:016x}", one.number),
        kind: one.kind.to_owned(),
        text: one.text.clone(),
        count: one.totals.count,
        share: of_all(&one.totals),
        time_share: share(one.totals.time_us, from.all.time_us),
        failed: one.totals.failed,
        latency_us: api::Latency {
            mean: one.latency_mean_us,
            p50: one.latency_p50_us,
            p99: one.latency_p99_us,
            max: one.latency_max_us,
        },
        first_seen: one.first_seen.0,
        last_seen: one.last_seen.0,
    };
    let state = |one: &views::SessionStateView| api::SessionState {
        state: one.state.to_owned(),
        sessions: one.sessions,
        movable: one.movable,
        meaning: one.meaning.to_owned(),
    };
    let (findings, findings_problem) = match &from.findings {
        None => (None, None),
        Some(Ok(findings)) => (Some(findings.iter().map(|one| finding(one, false)).collect()), None),
        Some(Err(why)) => (None, Some(why.clone())),
    };
    api::Analysis {
        interlay: from.interlay.clone(),
        at: from.at.0,
        statements: from.all.count,
        failed: from.all.failed,
        samples: from.samples,
        samples_dropped: from.samples_dropped,
        kinds: from.kinds.iter().map(kind).collect(),
        fingerprints: from.fingerprints.iter().map(fingerprint).collect(),
        fingerprints_known: from.fingerprints_known,
        others: api::OtherStatements {
            fingerprints: from.others_fingerprints,
            count: from.others.count,
            share: of_all(&from.others),
            failed: from.others.failed,
        },
        session_states: from.session_states.iter().map(state).collect(),
        target: from.target.clone(),
        findings,
        findings_problem,
    }
}

pub fn postgres_facts(from: &views::PostgresFacts) -> api::PostgresFacts {
    api::PostgresFacts {
        version: from.version.clone(),
        version_number: from.version_number,
        database: from.database.clone(),
        database_bytes: from.database_bytes,
        encoding: from.encoding.clone(),
        collate: from.collate.clone(),
        ctype: from.ctype.clone(),
        locale_provider: from.locale_provider.clone(),
        collation_version: from.collation_version.clone(),
        user: from.user.clone(),
        superuser: from.superuser,
        createdb: from.createdb,
        createrole: from.createrole,
        replication: from.replication,
        in_recovery: from.in_recovery,
        tls: from.tls,
        client_connections: from.client_connections,
        max_connections: from.max_connections(),
        wal_level: from.setting("wal_level").to_owned(),
        settings: from.settings.clone(),
        extensions: from.extensions.clone(),
        login_roles: from.login_roles.clone(),
        tables: from.tables,
        tables_without_identity: from.tables_without_identity,
        unlogged_tables: from.unlogged_tables,
        sequences: from.sequences,
        large_objects: from.large_objects,
        ping_us: from.ping_us,
        clock_skew_ms: from.clock_skew_ms,
    }
}

/// Whether clients are held now.
pub fn gate_is_closed(from: &views::InterlayView) -> bool {
    match from.pause {
        PauseState::Running | PauseState::Resuming => false,
        PauseState::Pausing | PauseState::Paused(_) => true,
    }
}

/// The sessions that made a pause fail, for its problem document.
pub fn listed(sessions: &[views::SessionInfo]) -> Vec<api::Session> {
    sessions.iter().take(views::limits::SESSIONS_LISTED_MAX).map(session).collect()
}
