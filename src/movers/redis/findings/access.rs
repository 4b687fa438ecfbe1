//! Which clients the target would refuse after a flip: passwords and ACL users of both servers.
//!
//! Clients' passwords are not known here; servers show their SHA-256, which is compared and never shown. The credentials in an endpoint's url
//! are Crossfade's own. On the movers' thread; reads only.

use super::acl::User;
use super::permissions::{Refused, refused_commands};
use super::text::{cut, finding, list, missing};
use crate::contract::{Finding, Severity};
use crate::error::JobError;
use base::model::Endpoint;
use follow::redis::client::RedisClient;
use wire::resp::value::Value;

/// How a user is given to the target as it is on the source; the hash goes with it, so nobody needs to know the password.
const COPY_USER: &str = "take the user's line from ACL LIST on the source and give it, without the first word, to ACL SETUSER on the target, then ACL SAVE or CONFIG REWRITE";

/// Compares who can log in to both servers, with what, and what they may do there.
///
/// # Errors
/// [`JobError`] when a server is lost.
pub(super) async fn access(source: &Endpoint, target: &Endpoint) -> Result<Vec<Finding>, JobError> {
    let (from, to) = (Access::read(source).await?, Access::read(target).await?);
    let (Ok(theirs), Ok(ours)) = (&from.users, &to.users) else {
        return Ok(without_lists(&from, &to));
    };
    let own = source.credentials.as_ref().and_then(|login| login.user.clone());
    let logins = Logins::compare(theirs, ours);
    let refused = refused_commands(source, target, &logins.on_both).await?;
    Ok(logins.judge(&refused, own.as_deref()))
}

/// What one server tells about its users.
struct Access {
    /// Or the refusal of `ACL LIST`.
    users: Result<Vec<User>, String>,
    fallback: Fallback,
}

/// Read where `ACL LIST` is refused.
#[derive(Default)]
struct Fallback {
    names: Option<Vec<String>>,
    /// Whether a client is served without a password.
    open: Option<bool>,
    requirepass: Option<Vec<u8>>,
}

impl Access {
    async fn read(endpoint: &Endpoint) -> Result<Self, JobError> {
        let mut client = RedisClient::connect(endpoint).await?;
        let reply = client.call(&[b"ACL", b"LIST"]).await?;
        let users: Result<Vec<User>, String> = match reply.items() {
            Some(lines) => Ok(lines.iter().filter_map(text).filter_map(|line| User::parse(&line)).collect()),
            None => Err(format!("the {} refuses ACL LIST: {}", endpoint.name, reply.error().unwrap_or(reply.brief()))),
        };
        let names = client.call(&[b"ACL", b"USERS"]).await?;
        let password = client.call(&[b"CONFIG", b"GET", b"requirepass"]).await?;
        let open = match &users {
            Ok(users) => default_of(users).map(|user| user.on && user.nopass),
            Err(_) => serves_anyone(endpoint).await,
        };
        let fallback = Fallback {
            names: names.items().map(|names| names.iter().filter_map(text).collect()),
            open,
            requirepass: password.items().and_then(|pair| pair.get(1)?.bytes().map(<[u8]>::to_vec)),
        };
        Ok(Self { users, fallback })
    }
}

fn text(value: &Value) -> Option<String> {
    value.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn default_of(users: &[User]) -> Option<&User> {
    users.iter().find(|user| user.name == "default")
}

/// Asked by a connection that does not log in; `None` when the answer says neither.
async fn serves_anyone(endpoint: &Endpoint) -> Option<bool> {
    match RedisClient::connect(&Endpoint { credentials: None, ..endpoint.clone() }).await {
        Ok(_) => Some(true),
        Err(error) => error.to_string().contains("NOAUTH").then_some(false),
    }
}

/// What can be said when a server does not list its users.
fn without_lists(from: &Access, to: &Access) -> Vec<Finding> {
    let (source, target) = (&from.fallback, &to.fallback);
    let refusals: Vec<&str> =
        [from, to].iter().filter_map(|side| side.users.as_ref().err().map(String::as_str)).collect();
    let detail = format!(
        "passwords and permissions of ACL users could not be compared ({}): grant +acl|list, +acl|users, +acl|dryrun and +config|get to the users in the endpoints' urls, or compare the users by hand and waive",
        refusals.join("; ")
    );
    let mut findings = vec![finding("acl-not-compared", Severity::Warning, detail)];
    match (source.open, target.open) {
        (Some(true), Some(false)) => findings.push(needs_password()),
        (Some(false), Some(true)) => findings.push(takes_no_password()),
        _ => {}
    }
    let passwords = (&source.requirepass, &target.requirepass);
    if let (Some(from), Some(to)) = passwords
        && !from.is_empty()
        && !to.is_empty()
        && from != to
    {
        findings.push(passwords_differ(&["default"]));
    }
    if let (Some(from), Some(to)) = (&source.names, &target.names) {
        findings.extend(users_missing(&missing(from, to)));
    }
    findings
}

/// Users by what would happen to clients that log in as they.
#[derive(Default)]
struct Logins<'a> {
    missing: Vec<&'a str>,
    off: Vec<&'a str>,
    /// None of the source's passwords is one there.
    differ: Vec<&'a str>,
    /// Some of the source's passwords are none there.
    fewer: Vec<&'a str>,
    /// Any password will do on the target, and not on the source.
    opened: Vec<&'a str>,
    needs_password: bool,
    takes_no_password: bool,
    /// Can log in on both; as on the source, as on the target.
    on_both: Vec<(&'a User, &'a User)>,
}

impl<'a> Logins<'a> {
    fn compare(source: &'a [User], target: &'a [User]) -> Self {
        let mut found = Self::default();
        for user in source.iter().filter(|user| user.can_log_in()) {
            let name = user.name.as_str();
            let Some(there) = target.iter().find(|there| there.name == user.name) else {
                found.missing.push(name);
                continue;
            };
            let is_default = name == "default";
            if !there.on {
                if is_default && user.nopass {
                    found.needs_password = true;
                } else {
                    found.off.push(name);
                }
                continue;
            }
            found.on_both.push((user, there));
            match (user.nopass, there.nopass) {
                (true, true) => {}
                (true, false) if is_default => found.needs_password = true,
                (true, false) => found.differ.push(name),
                (false, true) if is_default => found.takes_no_password = true,
                (false, true) => found.opened.push(name),
                (false, false) if user.hashes.is_disjoint(&there.hashes) => found.differ.push(name),
                (false, false) if !user.hashes.is_subset(&there.hashes) => found.fewer.push(name),
                (false, false) => {}
            }
        }
        found
    }

    /// `own` is the user as which Crossfade logs in to the source: no client's, unless somebody shares it.
    fn judge(mut self, refused: &Refused, own: Option<&str>) -> Vec<Finding> {
        let mut restricted = self.restricted(refused);
        let mut own_differs = Vec::new();
        if let Some(own) = own.filter(|own| *own != "default") {
            for (users, what) in [
                (&mut self.missing, "is absent"),
                (&mut self.off, "is off"),
                (&mut self.differ, "has another password"),
                (&mut self.fewer, "lacks one of its passwords"),
            ] {
                if let Some(at) = users.iter().position(|user| *user == own) {
                    users.remove(at);
                    own_differs.push(what);
                }
            }
            if let Some(at) = restricted.iter().position(|(user, _)| *user == own) {
                restricted.remove(at);
                own_differs.push("may do less");
            }
        }
        let mut findings = Vec::new();
        findings.extend(self.needs_password.then(needs_password));
        findings.extend(self.takes_no_password.then(takes_no_password));
        findings.extend(users_missing(&self.missing));
        findings.extend(users_off(&self.off));
        if !self.differ.is_empty() {
            findings.push(passwords_differ(&self.differ));
        }
        findings.extend(users_restricted(&restricted));
        findings.extend(passwords_fewer(&self.fewer));
        findings.extend(users_opened(&self.opened));
        findings.extend(rules_not_compared(refused));
        if let (Some(own), false) = (own, own_differs.is_empty()) {
            let detail = format!(
                "{own}, as which Crossfade logs in to the source, {} on the target: of no consequence unless clients log in as {own} too; then {COPY_USER}",
                own_differs.join(" and ")
            );
            findings.push(finding("acl-link-user-differs", Severity::Warning, detail));
        }
        findings
    }

    /// Users that may do less on the target, each with what it would miss.
    fn restricted(&self, refused: &Refused) -> Vec<(&'a str, String)> {
        let mut found = Vec::new();
        for (user, there) in &self.on_both {
            let mut lost = user.reaches_beyond(there);
            if let Some((_, commands)) = refused.commands.iter().find(|(name, _)| *name == user.name) {
                lost.insert(0, some_of(commands));
            }
            if !lost.is_empty() {
                found.push((user.name.as_str(), lost.join(", ")));
            }
        }
        found
    }
}

/// "commands get, set and 3 more"
fn some_of(commands: &[String]) -> String {
    let shown = commands.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    match commands.len() {
        0..=3 => format!("commands {shown}"),
        n => format!("commands {shown} and {} more", n - 3),
    }
}

fn needs_password() -> Finding {
    let detail = "the source serves clients that give no password, and the target does not: after the flip each of them would get NOAUTH: CONFIG SET requirepass \"\" on the target (which is ACL SETUSER default on nopass), or give all clients the target's password first and set it on the source too";
    finding("target-needs-password", Severity::Critical, detail)
}

fn takes_no_password() -> Finding {
    let detail = "the source asks for a password, and the target's default user has none: after the flip clients that send AUTH with only a password would get \"AUTH <password> called without any password configured\": set the source's password on the target (CONFIG SET requirepass)";
    finding("target-has-no-password", Severity::Critical, detail)
}

fn passwords_differ(users: &[&str]) -> Finding {
    let default = if users.contains(&"default") { " (for default: CONFIG SET requirepass)" } else { "" };
    let detail = format!(
        "clients that log in as {} would be refused by the target after the flip: none of the source's passwords is valid there: {COPY_USER}{default}",
        list(users)
    );
    finding("acl-passwords-differ", Severity::Critical, detail)
}

fn users_missing(users: &[&str]) -> Option<Finding> {
    let detail = format!(
        "the target lacks ACL users {}: clients that log in as these would be refused by the target after the flip: {COPY_USER}",
        list(users)
    );
    (!users.is_empty()).then(|| finding("acl-users-missing-on-target", Severity::Critical, detail))
}

fn users_off(users: &[&str]) -> Option<Finding> {
    let detail = format!(
        "clients that log in as {} would be refused by the target after the flip: off there: ACL SETUSER NAME on",
        list(users)
    );
    (!users.is_empty()).then(|| finding("acl-users-off-on-target", Severity::Critical, detail))
}

fn users_restricted(users: &[(&str, String)]) -> Option<Finding> {
    let named: Vec<String> = users.iter().map(|(user, lost)| format!("{} ({lost})", cut(user))).collect();
    let shown = named.iter().take(6).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = if named.len() > 6 { format!(" and {} more", named.len() - 6) } else { String::new() };
    let detail = format!(
        "users may do less on the target than on the source, and their clients would get NOPERM after the flip: {shown}{more}: {COPY_USER}; waive when no client needs it"
    );
    (!users.is_empty()).then(|| finding("acl-users-restricted-on-target", Severity::Critical, detail))
}

fn passwords_fewer(users: &[&str]) -> Option<Finding> {
    let detail = format!(
        "the target lacks some of the source's passwords of {}: clients that use one of those would be refused after the flip: {COPY_USER}",
        list(users)
    );
    (!users.is_empty()).then(|| finding("acl-passwords-missing-on-target", Severity::Warning, detail))
}

fn users_opened(users: &[&str]) -> Option<Finding> {
    let detail = format!(
        "the target takes any password of {}, and the source does not: ACL SETUSER NAME resetpass, then the source's password",
        list(users)
    );
    (!users.is_empty()).then(|| finding("acl-users-open-on-target", Severity::Warning, detail))
}

fn rules_not_compared(refused: &Refused) -> Option<Finding> {
    let detail = format!(
        "the rules of {} differ as text, and whether the target allows them less was not found out: {}; or compare ACL LIST by hand",
        list(&refused.unasked),
        refused.why
    );
    (!refused.unasked.is_empty()).then(|| finding("acl-rules-not-compared", Severity::Warning, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(lines: &[&str]) -> Vec<User> {
        lines.iter().map(|line| User::parse(&format!("user {line}")).unwrap()).collect()
    }

    fn found(source: &[&str], target: &[&str], own: Option<&str>) -> Vec<(String, Severity)> {
        let (source, target) = (users(source), users(target));
        let findings = Logins::compare(&source, &target).judge(&Refused::default(), own);
        findings.into_iter().map(|finding| (finding.name, finding.severity)).collect()
    }

    /// The rest of a user that may do everything.
    const ALL: &str = "~* &* +@all";

    #[test]
    fn every_kind_of_log_in_that_ends_with_the_flip_is_named() {
        use Severity::{Critical, Warning};
        type Row<'a> = (&'a str, &'a str, Option<(&'a str, Severity)>);
        let table: &[Row] = &[
            ("default on nopass", "default on nopass", None),
            ("default on nopass", "default on #11", Some(("target-needs-password", Critical))),
            ("default on nopass", "default off nopass", Some(("target-needs-password", Critical))),
            ("default on #11", "default on nopass", Some(("target-has-no-password", Critical))),
            ("default on #11", "default on #22", Some(("acl-passwords-differ", Critical))),
            ("default on #11", "default off #11", Some(("acl-users-off-on-target", Critical))),
            // Nobody logs in as a user who is off or has no password, so nobody is refused.
            ("default off nopass", "default on #11", None),
            ("app off #11", "other on #11", None),
            ("app on", "other on #11", None),
            ("app on #11", "other on #11", Some(("acl-users-missing-on-target", Critical))),
            ("app on #11", "app off #11", Some(("acl-users-off-on-target", Critical))),
            ("app on #11", "app on #22", Some(("acl-passwords-differ", Critical))),
            ("app on nopass", "app on #22", Some(("acl-passwords-differ", Critical))),
            ("app on #11", "app on", Some(("acl-passwords-differ", Critical))),
            ("app on #11 #22", "app on #22 #33", Some(("acl-passwords-missing-on-target", Warning))),
            ("app on #11", "app on #11 #22", None),
            ("app on #11", "app on nopass", Some(("acl-users-open-on-target", Warning))),
        ];
        for (source, target, expected) in table {
            let (from, to) = (format!("{source} {ALL}"), format!("{target} {ALL}"));
            let expected: Vec<_> = expected.iter().map(|(name, severity)| ((*name).to_owned(), *severity)).collect();
            assert_eq!(found(&[&from], &[&to], None), expected, "{source} against {target}");
        }
        let restricted = vec![("acl-users-restricted-on-target".to_owned(), Critical)];
        assert_eq!(found(&["app on #11 ~* +@all"], &["app on #11 ~a:* +@all"], None), restricted);
    }

    #[test]
    fn the_user_of_the_link_is_not_taken_for_a_clients() {
        let expected = vec![("acl-link-user-differs".to_owned(), Severity::Warning)];
        for target in ["other on #11 ~* +@all", "link off #11 ~* +@all", "link on #22 ~* +@all", "link on #11 ~a +@all"]
        {
            assert_eq!(found(&["link on #11 ~* +@all"], &[target], Some("link")), expected, "{target}");
        }
        assert_eq!(
            found(&["default on #11 ~* +@all"], &["default on #22 ~* +@all"], Some("default")),
            [("acl-passwords-differ".to_owned(), Severity::Critical)]
        );
    }

    #[test]
    fn one_finding_names_all_users_of_its_kind_within_bounds() {
        let lines: Vec<String> = (0..5000).map(|n| format!("user{n} on #{n:064x} ~* +@all")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let source = users(&lines);
        let findings = Logins::compare(&source, &[]).judge(&Refused::default(), None);
        assert_eq!(findings.len(), 1);
        let detail = &findings[0].detail;
        assert!(
            detail.contains("user0, user1,") && detail.contains("and 4988 more") && detail.len() < 1000,
            "{detail}"
        );
        assert!(!detail.contains("0000"), "no hash is shown: {detail}");
    }
}
