//! Large requests outside dual operation: handed on as they arrive, on a connection of their own, instead of being gathered first.

use super::client::Client;
use super::path::{Step, Wait};
use super::shared::Shared;
use super::upstream::Awaited;
use crate::contract::Ask;
use wire::resp::command::{self, Class};
use wire::resp::frame::RequestProgress;
use wire::resp::{Args, ReplyFeed, ReplyStep};

impl Client {
    /// Begins to hand a request on. `None`: this one must be gathered (in dual operation, inside a MULTI block, or because a policy may
    /// refuse it).
    pub(super) fn begin_large(&mut self, shared: &mut Shared, start: &[u8]) -> Option<Step> {
        if shared.is_dual()
            || shared.has_policy()
            || self.transaction.is_some()
            || self.pushes.is_open()
            || !start.starts_with(b"*")
        {
            return None;
        }
        let command = command::lookup(Args::new(start).next()?);
        let plain =
            matches!(command.class, Class::Read | Class::Write | Class::Server | Class::Library | Class::Unknown);
        if !plain || command.blocking {
            return None;
        }
        if let Err(step) = self.pin(shared) {
            return Some(step);
        }
        self.input.progress = RequestProgress::default();
        self.input.large = Some(ReplyFeed::default());
        if command.class != Class::Read {
            self.withhold(shared);
        }
        shared.count(command);
        Some(Step::Done)
    }

    /// Hands on what has arrived of a large request; a request has the grammar of a reply, so the same feed finds its end.
    pub(super) fn continue_large(&mut self, shared: &mut Shared, bytes: &[u8]) -> usize {
        let (Some(pinned), Some(feed)) = (self.pinned, self.input.large.as_mut()) else { return bytes.len() };
        let Some(upstream) = shared.upstreams.get_mut(pinned) else { return bytes.len() };
        if upstream.is_full() {
            upstream.stalled.push(self.key);
            self.wait = Wait::Upstream(pinned);
            return 0;
        }
        let used = match feed.feed(bytes) {
            ReplyStep::Complete { consumed, .. } => {
                self.input.large = None;
                self.outstanding += 1;
                let muted = self.session.mute_this();
                upstream.awaited.push_back(if muted { Awaited::Mute(self.key) } else { Awaited::Forward(self.key) });
                consumed
            }
            ReplyStep::Partial => bytes.len(),
            ReplyStep::Invalid(_) => {
                // The start of the request is already on its way, so neither connection can be used any more.
                shared.counters.protocol_errors += 1;
                self.closing = true;
                shared.asks.push(Ask::CloseClient(self.key));
                return bytes.len();
            }
        };
        upstream.output.extend_from_slice(&bytes[..used]);
        shared.upstreams.has_output(pinned);
        used
    }
}
