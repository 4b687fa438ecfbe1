//! Findings between real servers: Redis on the path, and Valkey where `scripts/install-test-servers.sh` has put it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::compatibility;
use crate::contract::{Finding, Severity, WriteProbe};
use crate::redis::tests::Server;
use base::model::{Credentials, Endpoint, Secret};
use follow::redis::client::RedisClient;

fn redis() -> PathBuf {
    PathBuf::from("redis-server")
}

fn valkey() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/valkey-server");
    let path = std::env::var_os("CROSSFADE_VALKEY_SERVER").map_or(tools, PathBuf::from);
    if !path.exists() {
        eprintln!("*** SKIPPED with Valkey: {} is not there (scripts/install-test-servers.sh)", path.display());
    }
    path.exists().then_some(path)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute") })
}

/// A source and a target, as installed until a test changes them.
struct Rig {
    source: Server,
    target: Server,
}

impl Rig {
    fn start(name: &str, source: &Path, target: &Path) -> Self {
        Self {
            source: Server::start_binary(source, &format!("findings-{name}-a"), &[]),
            target: Server::start_binary(target, &format!("findings-{name}-b"), &[]),
        }
    }

    async fn run(server: &Server, lines: &[&str]) {
        let mut client = RedisClient::connect(&server.endpoint("setup")).await.unwrap();
        for line in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            client.must(&words).await.unwrap();
        }
    }

    async fn findings(&self) -> Vec<Finding> {
        compare(&self.source.endpoint("source"), &self.target.endpoint("target")).await
    }
}

async fn compare(source: &Endpoint, target: &Endpoint) -> Vec<Finding> {
    compatibility(source, target, WriteProbe::Allowed).await.unwrap()
}

fn logged_in(endpoint: Endpoint, user: Option<&str>, password: &str) -> Endpoint {
    let credentials = Credentials { user: user.map(Into::into), password: Secret::new(password.as_bytes()) };
    Endpoint { credentials: Some(credentials), ..endpoint }
}

fn named<'a>(findings: &'a [Finding], name: &str) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.name == name)
}

fn critical(findings: &[Finding]) -> Vec<&str> {
    findings.iter().filter(|finding| finding.severity == Severity::Critical).map(|finding| &*finding.name).collect()
}

#[test]
fn servers_as_they_are_installed_have_no_critical_finding_in_any_pairing() {
    let kinds: Vec<PathBuf> = [Some(redis()), valkey()].into_iter().flatten().collect();
    for (n, source) in kinds.iter().enumerate() {
        for (m, target) in kinds.iter().enumerate() {
            let rig = Rig::start(&format!("plain-{n}{m}"), source, target);
            let findings = block_on(rig.findings());
            assert!(critical(&findings).is_empty(), "{source:?} to {target:?}: {findings:?}");
            let not_compared: Vec<_> = findings.iter().filter(|f| f.name.ends_with("not-compared")).collect();
            assert!(not_compared.is_empty(), "{not_compared:?}");
            let settings: Vec<_> = findings.iter().filter(|f| f.name.starts_with("setting-")).collect();
            assert!(settings.is_empty(), "{settings:?}");
        }
    }
}

#[test]
fn passwords_that_clients_lose_are_found_both_ways_and_never_shown() {
    let rig = Rig::start("password", &redis(), &redis());
    let (source, target) = (rig.source.endpoint("source"), rig.target.endpoint("target"));
    block_on(async {
        Rig::run(&rig.target, &["CONFIG SET requirepass hunter2"]).await;
        let target_locked = logged_in(target, None, "hunter2");
        let mut all = compare(&source, &target_locked).await;
        assert_eq!(critical(&all), ["target-needs-password"]);
        let back = compare(&target_locked, &source).await;
        assert_eq!(critical(&back), ["target-has-no-password"]);

        Rig::run(&rig.source, &["CONFIG SET requirepass hunter3"]).await;
        let source = logged_in(source, None, "hunter3");
        let differ = compare(&source, &target_locked).await;
        assert_eq!(critical(&differ), ["acl-passwords-differ"]);
        assert!(named(&differ, "acl-passwords-differ").unwrap().detail.contains("log in as default"));
        all.extend(back);
        all.extend(differ);
        assert!(all.iter().all(|finding| !finding.detail.contains("hunter")), "{all:?}");

        let mut client = RedisClient::connect(&source).await.unwrap();
        client.must(&[b"CONFIG", b"SET", b"requirepass", b"hunter2"]).await.unwrap();
        let source = logged_in(source, None, "hunter2");
        assert_eq!(compare(&source, &target_locked).await.iter().find(|f| f.severity == Severity::Critical), None);
    });
}

#[test]
fn users_that_the_target_would_refuse_or_restrict_are_named_by_kind() {
    let kinds: Vec<(PathBuf, &str)> =
        [Some((redis(), "redis")), valkey().map(|path| (path, "valkey"))].into_iter().flatten().collect();
    for (target, name) in kinds {
        let rig = Rig::start(&format!("users-{name}"), &redis(), &target);
        block_on(async {
            let source = [
                "ACL SETUSER gone on >a ~* &* +@all",
                "ACL SETUSER off on >a ~* &* +@all",
                "ACL SETUSER other on >a ~* &* +@all",
                "ACL SETUSER rotated on >a >b ~* &* +@all",
                "ACL SETUSER reader on >a ~* &* +@all",
                "ACL SETUSER worded on >a ~* &* -@all +get",
                "ACL SETUSER keys on >a ~app:* &* +@all",
                "ACL SETUSER same on >a ~app:* &* -@all +@read -get (%R~b +set)",
                "ACL SETUSER unused off >a ~* &* +@all",
            ];
            let target = [
                "ACL SETUSER off off >a ~* &* +@all",
                "ACL SETUSER other on >b ~* &* +@all",
                "ACL SETUSER rotated on >b ~* &* +@all",
                "ACL SETUSER reader on >a ~* &* +@all -set -config|set",
                "ACL SETUSER worded on >a ~* &* -@all +@string",
                "ACL SETUSER keys on >a ~app:1:* &* +@all",
                "ACL SETUSER same on >a ~app:* &* -@all +@read -get (%R~b +set)",
            ];
            Rig::run(&rig.source, &source).await;
            Rig::run(&rig.target, &target).await;
            let findings = rig.findings().await;
            let detail =
                |name: &str| named(&findings, name).unwrap_or_else(|| panic!("{name}: {findings:?}")).detail.clone();
            assert!(detail("acl-users-missing-on-target").contains("ACL users gone: clients"), "{findings:?}");
            assert!(detail("acl-users-off-on-target").contains("log in as off would"), "{findings:?}");
            assert!(detail("acl-passwords-differ").contains("log in as other would"), "{findings:?}");
            assert!(detail("acl-passwords-missing-on-target").contains("passwords of rotated:"), "{findings:?}");
            let restricted = detail("acl-users-restricted-on-target");
            assert!(restricted.contains("reader (commands ") && restricted.contains("config set"), "{restricted}");
            assert!(restricted.contains("keys (keys app:*)"), "{restricted}");
            for equal in ["worded", "same", "unused", "default"] {
                assert!(!restricted.contains(equal), "{equal}: {restricted}");
            }
            let mut expected = vec![
                "acl-users-not-carried",
                "acl-users-missing-on-target",
                "acl-users-off-on-target",
                "acl-passwords-differ",
                "acl-users-restricted-on-target",
            ];
            let mut found = critical(&findings);
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected);
        });
    }
}

#[test]
fn what_may_not_be_read_is_a_warning_that_says_what_to_grant() {
    let rig = Rig::start("noperm", &redis(), &redis());
    block_on(async {
        let own = "ACL SETUSER link on >a ~* &* +@all -acl -config -function";
        Rig::run(&rig.source, &[own, "CONFIG SET requirepass x"]).await;
        Rig::run(&rig.target, &[own]).await;
        let source = logged_in(rig.source.endpoint("source"), Some("link"), "a");
        let target = logged_in(rig.target.endpoint("target"), Some("link"), "a");
        let findings = compare(&source, &target).await;
        for (name, grant) in [
            ("acl-not-compared", "+acl|list"),
            ("settings-not-compared", "+config|get"),
            ("functions-not-compared", "+function|list"),
        ] {
            let finding = named(&findings, name).unwrap_or_else(|| panic!("{name}: {findings:?}"));
            assert!(finding.severity == Severity::Warning && finding.detail.contains(grant), "{finding:?}");
        }
        // Whether a password is needed shows without any permission.
        assert_eq!(critical(&findings), ["target-has-no-password"]);

        // With ACL LIST and without ACL DRYRUN, rules that differ are a question, not an answer.
        let lists = "ACL SETUSER link +acl|list +config|get";
        let mut client = RedisClient::connect(&logged_in(rig.source.endpoint("source"), None, "x")).await.unwrap();
        for line in [lists, "ACL SETUSER app on >a ~* &* -@all +get", "ACL SETUSER link +function|list"] {
            client.must(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>()).await.unwrap();
        }
        Rig::run(&rig.target, &[lists, "ACL SETUSER app on >a ~* &* -@all +set"]).await;
        let findings = compare(&source, &target).await;
        let asked = named(&findings, "acl-rules-not-compared").unwrap_or_else(|| panic!("{findings:?}"));
        assert!(asked.detail.contains("app") && asked.detail.contains("+acl|dryrun"), "{asked:?}");
        assert!(named(&findings, "acl-users-restricted-on-target").is_none(), "{findings:?}");
    });
}

#[test]
fn settings_that_clients_notice_are_found_with_the_command_that_fixes_them() {
    let rig = Rig::start("settings", &redis(), &redis());
    block_on(async {
        let changes = [
            ("notify-keyspace-events", "KEA", "", Severity::Critical),
            ("proto-max-bulk-len", "536870912", "2097152", Severity::Critical),
            ("min-replicas-to-write", "0", "1", Severity::Critical),
            ("timeout", "0", "5", Severity::Warning),
            ("maxclients", "1000", "900", Severity::Warning),
            ("busy-reply-threshold", "5000", "50", Severity::Warning),
            ("appendonly", "yes", "no", Severity::Warning),
            ("save", "3600 1", "", Severity::Warning),
            ("maxmemory-policy", "allkeys-lru", "noeviction", Severity::Info),
        ];
        let mut clients = vec![];
        for server in [&rig.source, &rig.target] {
            clients.push(RedisClient::connect(&server.endpoint("setup")).await.unwrap());
        }
        for (setting, source, target, _) in changes {
            for (client, value) in clients.iter_mut().zip([source, target]) {
                client.must(&[b"CONFIG", b"SET", setting.as_bytes(), value.as_bytes()]).await.unwrap();
            }
        }
        let findings = rig.findings().await;
        for (setting, _, _, severity) in changes {
            let finding =
                named(&findings, &format!("setting-{setting}")).unwrap_or_else(|| panic!("{setting}: {findings:?}"));
            assert_eq!(finding.severity, severity, "{finding:?}");
        }
        // The fix as the finding gives it makes it go away.
        let detail = &named(&findings, "setting-notify-keyspace-events").unwrap().detail;
        let (_, fix) = detail.rsplit_once("CONFIG SET ").unwrap();
        let value = fix.split('"').nth(1).unwrap();
        clients[1].must(&[b"CONFIG", b"SET", b"notify-keyspace-events", value.as_bytes()]).await.unwrap();
        assert!(named(&rig.findings().await, "setting-notify-keyspace-events").is_none());
    });
}

#[test]
fn functions_scripts_and_field_deadlines_that_do_not_follow_are_found() {
    let library = b"#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    let rig = Rig::start("scripts", &redis(), &redis());
    block_on(async {
        let mut client = RedisClient::connect(&rig.source.endpoint("setup")).await.unwrap();
        client.must(&[b"FUNCTION", b"LOAD", library]).await.unwrap();
        client.must(&[b"SCRIPT", b"LOAD", b"return 1"]).await.unwrap();
        let findings = rig.findings().await;
        assert_eq!(critical(&findings), ["functions-missing-on-target"]);
        assert_eq!(named(&findings, "script-cache-not-copied").unwrap().severity, Severity::Warning);
    });
    let Some(valkey) = valkey() else { return };
    let rig = Rig::start("fields", &valkey, &redis());
    block_on(async {
        Rig::run(&rig.source, &["HSET h f v g w"]).await;
        assert!(named(&rig.findings().await, "field-ttls-lost-on-target").is_none());
        Rig::run(&rig.source, &["HEXPIRE h 1000 FIELDS 1 f"]).await;
        assert_eq!(critical(&rig.findings().await), ["field-ttls-lost-on-target"]);
        let (old, new) = (rig.target.endpoint("source"), rig.source.endpoint("target"));
        assert!(named(&compare(&old, &new).await, "field-ttls-lost-on-target").is_none());
    });
}
