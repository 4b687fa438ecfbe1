//! What a process that dies knew of keys that may differ, between real servers.

use super::applier::Feed;
use super::tests::{run, say, with_each};

/// A key that the shadow lost before a batch that was about it, and which nobody copied again before the process died: see the unit tests for what of
/// the stream is looked at again.
#[test]
fn a_key_in_doubt_outlives_the_process_that_doubted() {
    with_each("unsettled", async |pair| {
        let mut source = pair.source().await;
        say(&mut source, &["RPUSH early a", "SELECT 3", "RPUSH late a"]).await;
        let feed = Feed::new(pair.spec());
        let running = run(&feed);
        pair.in_step(&feed).await;
        say(&mut source, &["RPUSH late b"]).await;
        pair.up_to_now(&feed).await;
        running.abort();
        let mut shadow = pair.shadow().await;
        say(&mut shadow, &["SELECT 3", "DEL late", "RPUSH late b"]).await;
        let feed = Feed::new(pair.spec());
        let running = run(&feed);
        pair.in_step(&feed).await;
        feed.undoubted().await;
        pair.assert_equal().await;
        assert_eq!((feed.status().full_syncs, feed.status().doubted), (0, 1), "{}", pair.name);
        running.abort();
    });
}
