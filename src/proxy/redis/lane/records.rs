//! The records policy: what of each value is copied to the shadow. While there is one, every value passes it, also after a write:
//! the shadow then holds what the policy makes of the authority's values, and nothing that the policy has not seen.
//!
//! Only from the source to the target: in the other direction it would overwrite originals with what was made of them.

use super::authority_queue::Copied;
use super::keys::KeyRef;
use super::state::Lane;
use base::model::{Side, limits};
use bus::LaneEvent;
use policy::{RecordSeat, RecordVerdict, abi};
use wire::resp::copy::{self, DataType};
use wire::resp::effect::{bulk, bulks, is_nil};
use wire::resp::encode;

/// A value as a record shows it.
struct Shown<'a> {
    kind: abi::RecordType,
    encoding: abi::Encoding,
    deadline: i64,
    value: &'a [u8],
}

impl Lane {
    /// Whether copies to the shadow pass a policy now.
    pub(super) fn judges_records(&self) -> bool {
        self.records.identity.is_some() && self.links.authority == Side::Source
    }

    /// The policy cannot answer now: whatever was read for it would be read again.
    pub(super) fn waits_for_records_policy(&self) -> bool {
        self.judges_records() && self.policies.borrow().record.as_ref().is_none_or(RecordSeat::is_spent)
    }

    /// A DUMP under a records policy: its first byte tells the type. What can be read by its type is; the rest can only be kept or
    /// left out.
    pub(super) fn judge_dump(&mut self, copied: &Copied, deadline: i64, payload: &[u8]) {
        let kind = copy::data_type(payload).unwrap_or(DataType::Other(0));
        let record = match kind {
            DataType::String | DataType::List | DataType::Set | DataType::SortedSet | DataType::Hash => {
                return self.copy_by_type(copied, kind);
            }
            DataType::Stream => abi::RecordType::Stream,
            DataType::Other(_) => abi::RecordType::Other,
        };
        let shown = Shown { kind: record, encoding: abi::Encoding::Opaque, deadline, value: payload };
        match self.judge(&copied.key, &shown) {
            None => self.not_copied(copied),
            Some(RecordVerdict::Drop) => self.leave_out(copied),
            Some(RecordVerdict::Replace(_)) => {
                tracing::warn!("a records policy replaced a value it may only keep or drop; its key is not copied");
                self.not_copied(copied);
            }
            Some(RecordVerdict::Keep) => {
                self.keys.set_altered(&copied.key, false);
                self.copy_dump(copied, payload, deadline);
            }
        }
    }

    /// A value read by its type.
    pub(super) fn judge_typed(&mut self, copied: &Copied, kind: DataType, deadline: i64, reply: &[u8]) {
        let key = &copied.key;
        if is_absent(reply) {
            // Gone since its type was learnt: there is nothing to ask a policy about.
            self.keys.set_altered(key, false);
            return self.delete_on_shadow(copied, -1);
        }
        let Some((record, encoding, value)) = shown(kind, reply) else {
            return self.copy_from_the_start(copied);
        };
        let replaceable = encoding != abi::Encoding::Opaque;
        match self.judge(key, &Shown { kind: record, encoding, deadline, value: &value }) {
            None => self.not_copied(copied),
            Some(RecordVerdict::Drop) => self.leave_out(copied),
            Some(RecordVerdict::Keep) => {
                self.keys.set_altered(key, false);
                self.copy_typed(copied, kind, deadline, reply);
            }
            Some(RecordVerdict::Replace(value)) => match replaceable.then(|| as_reply(kind, &value)).flatten() {
                Some(replaced) => {
                    self.keys.set_altered(key, true);
                    self.copy_typed(copied, kind, deadline, &replaced);
                }
                None => {
                    tracing::warn!(
                        "a records policy's replacement is not in the record's encoding; its key is not copied"
                    );
                    self.not_copied(copied);
                }
            },
        }
    }

    fn judge(&mut self, key: &KeyRef, shown: &Shown<'_>) -> Option<RecordVerdict> {
        let database = key.database.to_string();
        let left = u64::try_from(shown.deadline - self.now.wall_ms).unwrap_or(0);
        let record = abi::host::Record {
            protocol: abi::Protocol::Redis,
            record_type: shown.kind,
            encoding: shown.encoding,
            purpose: abi::Purpose::Backfill,
            ttl_ms: (shown.deadline > 0).then_some(left),
            database: database.as_bytes(),
            namespace: b"",
            key: &key.name,
            value_length: shown.value.len() as u64,
            value: shown.value,
        };
        let mut policies = self.policies.borrow_mut();
        policies.record.as_mut()?.look(&record, self.now.wall_ms)
    }

    /// The shadow does not get this key, and loses it if it has it.
    fn leave_out(&mut self, copied: &Copied) {
        self.keys.set_altered(&copied.key, true);
        self.delete_on_shadow(copied, -1);
    }

    /// The policy has no answer: the key stays dirty, so that nothing moves on without it, and is tried again.
    fn not_copied(&mut self, copied: &Copied) {
        if self.now.mono_us >= self.records.next_report_us {
            self.records.next_report_us = self.now.mono_us + limits::RECORD_REFUSAL_TOLD_US;
            let key = &copied.key;
            self.out.tell(LaneEvent::RecordNotCopied { database: key.database, key: (&*key.name).into() });
        }
        self.copy_failed(copied);
    }
}

/// What a typed read (RESP2) answers for a key that is not there.
fn is_absent(reply: &[u8]) -> bool {
    is_nil(reply) || reply == b"*0\r\n"
}

/// Type, encoding and bytes of a value as its typed read (RESP2) shows it. `None`: it is of another type meanwhile, or gone.
fn shown(kind: DataType, reply: &[u8]) -> Option<(abi::RecordType, abi::Encoding, Vec<u8>)> {
    let record = match kind {
        DataType::String => return Some((abi::RecordType::Text, abi::Encoding::Raw, bulk(reply)?.to_vec())),
        DataType::List => abi::RecordType::List,
        DataType::Set => abi::RecordType::Set,
        DataType::SortedSet => abi::RecordType::SortedSet,
        DataType::Hash => abi::RecordType::Map,
        // All there is to know of it, and no form in which it could be given back changed.
        DataType::Stream => {
            let whole = reply.starts_with(b"*").then(|| reply.to_vec())?;
            return Some((abi::RecordType::Stream, abi::Encoding::Opaque, whole));
        }
        DataType::Other(_) => return None,
    };
    let mut items = Vec::with_capacity(reply.len());
    for item in bulks(reply)? {
        items.extend_from_slice(&u32::try_from(item.len()).ok()?.to_le_bytes());
        items.extend_from_slice(item);
    }
    Some((record, abi::Encoding::Items, items))
}

/// A replacement as the reply a typed read would have given.
fn as_reply(kind: DataType, value: &[u8]) -> Option<Vec<u8>> {
    let mut items = Vec::new();
    match kind {
        DataType::String => items.push(value),
        DataType::List | DataType::Set | DataType::SortedSet | DataType::Hash => {
            let mut rest = value;
            while !rest.is_empty() {
                let (length, behind) = rest.split_at_checked(4)?;
                let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
                let (item, behind) = behind.split_at_checked(length)?;
                items.push(item);
                rest = behind;
            }
            let pairs = matches!(kind, DataType::SortedSet | DataType::Hash);
            if pairs && !items.len().is_multiple_of(2) {
                return None;
            }
        }
        DataType::Stream | DataType::Other(_) => return None,
    }
    // A request is an array of bulk strings, as a reply is.
    let array = encode::request(&items);
    match kind {
        DataType::String => Some(array[b"*1\r\n".len()..].to_vec()),
        _ => Some(array),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_being_shown_and_written_back() {
        let cases: [(DataType, &[u8]); 4] = [
            (DataType::String, b"$5\r\nhello\r\n"),
            (DataType::List, b"*2\r\n$1\r\na\r\n$0\r\n\r\n"),
            (DataType::Hash, b"*2\r\n$1\r\nf\r\n$2\r\n\r\n\r\n"),
            (DataType::SortedSet, b"*2\r\n$1\r\nm\r\n$3\r\n1.5\r\n"),
        ];
        for (kind, reply) in cases {
            let (_, _, value) = shown(kind, reply).expect("shown");
            assert_eq!(as_reply(kind, &value).expect("written"), reply, "{kind:?}");
        }
    }

    #[test]
    fn what_is_not_items_is_refused() {
        assert_eq!(as_reply(DataType::Set, &[1, 0, 0]), None);
        assert_eq!(as_reply(DataType::Set, &[9, 0, 0, 0, b'a']), None);
        assert_eq!(as_reply(DataType::Hash, &[1, 0, 0, 0, b'a']), None, "a field without its value");
        assert_eq!(shown(DataType::String, b"-WRONGTYPE x\r\n"), None);
    }
}
