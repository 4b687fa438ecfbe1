//! Fills the shadow from a snapshot of the authority. Lives on the movers' thread.

use tokio::sync::mpsc;

use super::applier::Shared;
use super::batch::Doubt;
use super::dialect::Dialect;
use super::history::HistoryWriter;
use super::source_load::Meter;
use super::spec::{FeedError, FeedEvent, FeedStatus};
use crate::contract::Excluded;
use crate::error::JobError;
use crate::redis::facts::{check_endpoint, read_info};
use base::model::{Endpoint, limits};
use follow::redis::client::RedisClient;
use follow::redis::follower::{FollowSpec, Following, FullSync, full_sync};
use follow::redis::position::Position;

impl Shared {
    /// Empties the shadow and fills it from a snapshot.
    pub(super) async fn fill(
        &self,
        follow: &FollowSpec,
        dialect: &Dialect,
        client: &mut RedisClient,
        key: &[u8],
        events: &mpsc::Sender<FeedEvent>,
    ) -> Result<(Following, Position), FeedError> {
        self.settle_conflicts(client, key).await?;
        let keys = self.may_be_replaced(client, key).await?;
        let before = self.status();
        let again = before.history_done;
        self.note(|status| {
            *status = FeedStatus {
                full_syncs: before.full_syncs + 1,
                commands: before.commands,
                doubted: before.doubted,
                excluded: Excluded { kept: 0, ..before.excluded },
                ..FeedStatus::default()
            };
        });
        self.doubts.borrow_mut().clear();
        self.absent.borrow_mut().clear();
        self.made_anew.borrow_mut().clear();
        self.unsettled.borrow_mut().clear();
        let why = if again { "the authority no longer has what followed" } else { "the shadow has no position yet" };
        let _ = events.send(FeedEvent::Filling { why: why.to_owned(), keys }).await;
        let mut sync = full_sync(follow).await?;
        // Without a position a crash from here on begins anew.
        self.make_room(client, key).await?;
        let kept = self.exclusions().kept();
        self.note(|status| status.excluded.kept = kept);
        let meter = Meter::new(self.spec.source_p99_ms);
        let doubts = tokio::select! {
            biased;
            written = self.write_history(&mut sync, dialect, client, &meter) => written?,
            never = self.measure_source(&meter) => match never {},
        };
        self.note(|status| status.source.throttled_to = None);
        self.losses.borrow_mut().clear();
        self.lose(doubts);
        let position = sync.history.at();
        self.end_first_copy(client, key, &position).await?;
        self.note(|status| status.history_done = true);
        let _ = events.send(FeedEvent::Filled).await;
        Ok((sync.into_following(), position))
    }

    /// Gives what the shadow cannot hold.
    async fn write_history(
        &self,
        sync: &mut FullSync,
        dialect: &Dialect,
        client: &mut RedisClient,
        meter: &Meter,
    ) -> Result<Vec<Doubt>, FeedError> {
        let before = self.status().excluded.keys;
        let mut writer = HistoryWriter::new(dialect).without(self.exclusions());
        let mut paced = 0;
        while sync.history.more().await? {
            while let Some(item) = sync.history.item()? {
                writer.take(item);
                if writer.is_full() {
                    writer.pass_on(client).await?;
                    meter.pace(writer.written().bytes - paced).await;
                    paced = writer.written().bytes;
                }
            }
            let written = writer.written();
            let waiting_bytes = sync.waiting_bytes();
            self.note(|status| {
                (status.history_keys, status.history_bytes) = (written.keys, written.bytes);
                status.waiting_bytes = waiting_bytes;
                status.excluded.keys = before + written.excluded;
            });
        }
        writer.flush(client).await?;
        Ok(writer.take_doubts())
    }

    /// Remembers what the shadow cannot hold as the authority does.
    pub(super) fn lose(&self, more: impl IntoIterator<Item = Doubt>) {
        let mut losses = self.losses.borrow_mut();
        let mut count = 0;
        for loss in more {
            // What is not kept by name counts each time it is seen.
            let is_new =
                if losses.len() < limits::FEED_LOSSES_MAX { losses.insert(loss) } else { !losses.contains(&loss) };
            count += u64::from(is_new);
        }
        drop(losses);
        self.note(|status| status.losses += count);
    }

    /// A server writes its snapshot for the version that is announced, and breaks it off at a hash with fields that expire where that version has
    /// none. It is then asked for its own form; what the shadow cannot read of that is written by type.
    pub(super) async fn for_history(&self, follow: FollowSpec, dialect: &Dialect) -> Result<FollowSpec, FeedError> {
        if dialect.commands.iter().any(|name| name == "hpexpireat") {
            return Ok(follow);
        }
        let authority = check_endpoint(&self.spec.authority).await?;
        let version = if authority.usage.hashes_with_field_ttl > 0 { authority.version } else { follow.version };
        Ok(FollowSpec { version, ..follow })
    }

    /// An authority that has lost its data must not take the shadow's along. Gives the keys the authority holds.
    async fn may_be_replaced(&self, shadow: &mut RedisClient, key: &[u8]) -> Result<u64, FeedError> {
        let has_position = shadow.must(&[b"EXISTS", key]).await?.integer() == Some(1);
        let proven = self.spec.guarded || has_position || self.status().history_done;
        let exclusions = self.exclusions();
        let (authority_keys, shadow_keys) = if exclusions.is_empty() || !proven {
            let shadow_keys = keys(shadow).await? - u64::from(has_position);
            (keys_of(&self.spec.authority).await?, shadow_keys)
        } else {
            let authority_keys = self.count_moved(&self.spec.authority, &exclusions).await?;
            (authority_keys, self.count_moved(&self.spec.shadow, &exclusions).await?)
        };
        // A working set may halve while a link is down; more than that is taken for a loss, and a person is asked.
        if proven && authority_keys < shadow_keys / 2 {
            return Err(FeedError::Shrunk {
                authority: format!("endpoint {}", self.spec.authority.name),
                authority_keys,
                shadow: shadow.who().to_owned(),
                shadow_keys,
            });
        }
        Ok(authority_keys)
    }
}

async fn keys_of(endpoint: &Endpoint) -> Result<u64, JobError> {
    keys(&mut RedisClient::connect(endpoint).await?).await
}

async fn keys(client: &mut RedisClient) -> Result<u64, JobError> {
    Ok(read_info(client).await?.databases().iter().map(|(_, keys, _)| keys).sum())
}
