//! A shadow that answers late, between real servers.

use std::time::Duration;

use super::applier::Feed;
use super::spec::FeedSpec;
use super::tests::{PATIENCE, run, say, with_each};
use tokio::time::timeout;

/// The shadow stands still from before a key's deadline until behind the grace; at the authority the key lives on. That the shadow was late is known
/// only when it answers: what was on its way to it then was sent without asking whether the shadow had the key.
#[test]
fn what_the_shadow_executed_late_is_copied_again() {
    const GRACE_MS: i64 = 1000;
    const DEADLINE_MS: u64 = 1000;
    with_each("late", async |pair| {
        let feed = Feed::new(FeedSpec { grace_ms: GRACE_MS, ..pair.spec() });
        let running = run(&feed);
        pair.in_step(&feed).await;
        // What the shadow lost before is gone at the source too: only then is it trusted. Nothing rings for time that passes.
        let trusted = async {
            let since = || feed.status().exact_since.map(|since| since.elapsed());
            while since().is_none_or(|since| since < Duration::from_millis(2 * GRACE_MS as u64)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, trusted).await.expect("deadlines become exact");
        let mut source = pair.source().await;
        let calm: Vec<String> = (0..20).map(|n| format!("RPUSH calm:{n} a")).collect();
        let calm: Vec<&str> = calm.iter().map(String::as_str).collect();
        say(&mut source, &calm).await;
        say(&mut source, &["RPUSH list a", &format!("PEXPIRE list {DEADLINE_MS}")]).await;
        pair.up_to_now(&feed).await;
        let doubted = feed.status().doubted;
        pair.shadow.signal("STOP");
        // In a transaction, so that all of it is on its way together.
        let block = [&["MULTI", "RPUSH list b", "PEXPIRE list 60000"][..], &calm, &["EXEC"]].concat();
        say(&mut source, &block).await;
        // Its own deadline has to pass while it stands still.
        tokio::time::sleep(Duration::from_millis(DEADLINE_MS + 2 * GRACE_MS as u64)).await;
        pair.shadow.signal("CONT");
        pair.up_to_now(&feed).await;
        timeout(PATIENCE, feed.undoubted()).await.expect("everything is copied again");
        let list = pair.shadow().await.must(&[b"LRANGE", b"list", b"0", b"-1"]).await.expect("LRANGE");
        assert_eq!(list.items().map(<[_]>::len), Some(2), "{}: {list:?}", pair.name);
        // What never had a deadline cannot have been lost. The list may be named by more than one of its commands.
        let doubted = feed.status().doubted - doubted;
        assert!((1..=4).contains(&doubted), "{}: {doubted} doubts about 21 keys", pair.name);
        running.abort();
    });
}
