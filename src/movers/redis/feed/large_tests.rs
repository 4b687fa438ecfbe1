//! Values too large for one reply are compared piece by piece while they are written, and what differs in any of their pieces is named.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::compare::FeedReader;
use super::tests::{Pair, run, say, with_each};
use crate::contract::VerifySpec;
use crate::redis::probes::Prober;
use crate::redis::verify::{Compared, SidesSpec, verify};
use base::model::InterlayName;

/// More than [`base::model::limits::VERIFY_PIECES_FROM_BYTES`] each.
const FILL: &str = "for i=1,ARGV[1] do
    local long = string.rep('x', 200)..i
    redis.call('HSET','hash','field:'..i,i,'long:'..i,long)
    redis.call('RPUSH','list',long)
    redis.call('SADD','set',long)
    redis.call('ZADD','zset',i,long)
    redis.call('XADD','stream',i..'-1','n',long)
end
redis.call('SET','string',string.rep('0123456789',ARGV[1]*40))
redis.call('SET','small','1')
return 1";

async fn compared(pair: &Pair, prober: &Prober) -> Compared {
    let spec = SidesSpec {
        authority: pair.source.endpoint("old"),
        shadow: pair.shadow.endpoint("new"),
        compare: VerifySpec { ttl_tolerance_ms: 0, sample_per_ten_thousand: 10_000 },
        excluded: Rc::default(),
    };
    verify(spec, prober.clone(), Arc::default()).await.expect("compared")
}

#[test]
fn large_values_are_compared_in_pieces_while_they_are_written() {
    with_each("large", async |pair| {
        let (mut source, mut shadow) = (pair.source().await, pair.shadow().await);
        source.must(&[b"EVAL", FILL.as_bytes(), b"0", b"25000"]).await.expect("filled");
        let feed = pair.feed();
        let running = run(&feed);
        pair.in_step(&feed).await;
        let prober = Prober::Feed(InterlayName::new("orders").expect("a name"), Rc::new(FeedReader::new(feed.clone())));

        let (stop, written) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0u64)));
        let (stopped, counted) = (Rc::clone(&stop), Rc::clone(&written));
        let mut writer = pair.source().await;
        let writing = tokio::task::spawn_local(async move {
            while !stopped.get() {
                counted.set(counted.get() + 1);
                let n = counted.get();
                let lines = [
                    format!("HSET hash new:{n} v"),
                    format!("HINCRBY hash field:{} 1", n * 7 % 10_000 + 1),
                    format!("HDEL hash field:{}", 24_000 - n),
                    format!("RPUSH list element:new:{n}"),
                    "LPOP list".to_owned(),
                    format!("SADD set new:{n}"),
                    format!("ZINCRBY zset 1 new:{}", n % 100),
                    format!("XADD stream * n {n}"),
                    format!("SETRANGE string {} {n}", n * 997 % 9_000_000),
                ];
                say(&mut writer, &lines.each_ref().map(String::as_str)).await;
            }
        });
        let found = compared(pair, &prober).await;
        assert_eq!((&found.divergent[..], found.inconclusive, found.keys), (&[][..], 0, 7), "{}", pair.name);
        assert!(written.get() > 100, "{}: {} rounds of writes during the comparison", pair.name, written.get());

        // Written by a stranger on the shadow, somewhere in the middle and not touched by the writers.
        say(
            &mut shadow,
            &[
                "HSET hash field:12000 other",
                "LSET list 15000 other",
                "SADD set only-there",
                "ZADD zset 1 only-there",
                "XDEL stream 12500-1",
                "SETRANGE string 9999990 x",
            ],
        )
        .await;
        let found = compared(pair, &prober).await;
        stop.set(true);
        writing.await.expect("the writer ends");
        let mut named: Vec<(String, &str)> =
            found.divergent.iter().map(|one| (String::from_utf8_lossy(&one.key).into_owned(), one.class)).collect();
        named.sort();
        let expected = ["hash", "list", "set", "stream", "string", "zset"].map(|key| (key.to_owned(), "value"));
        assert_eq!(named, expected, "{}: {:?}", pair.name, found);
        let of = |key: &[u8]| found.divergent.iter().find(|one| one.key == key).expect("named");
        assert!(of(b"hash").target.contains("other"), "{:?}", of(b"hash"));
        assert!(of(b"string").target.contains("from byte 99999"), "{:?}", of(b"string"));
        running.abort();
    });
}
