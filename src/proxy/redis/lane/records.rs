//! The records policy: what of each value is copied to the shadow. While there is one, every value passes it, also after a write:
//! the shadow then holds what the policy makes of the authority's, and nothing that it has not seen.
//!
//! Only from the source to the target: in the other direction it would overwrite originals with what was made of them.

use super::Lane;
use super::authority::CopyFor;
use super::keys::KeyRef;
use super::shadow::Purpose;
use base::model::{Side, limits};
use bus::LaneEvent;
use policy::{RecordSeat, RecordVerdict, abi};
use wire::resp::copy::{self, DataType};
use wire::resp::effect::{Effects, Expect, bulk, bulks, is_nil};
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
        self.records_identity.is_some() && self.authority == Side::Source
    }

    /// The policy cannot answer now: whatever was read for it would be read again.
    pub(super) fn waits_for_records_policy(&self) -> bool {
        self.judges_records() && self.policies.borrow().record.as_ref().is_none_or(RecordSeat::is_spent)
    }

    /// A DUMP under a records policy: its first byte tells the type. What can be read by its type is; the rest can only be kept or left out.
    pub(super) fn judge_dump(&mut self, key: &KeyRef, purpose: CopyFor, token: u64, deadline: i64, payload: &[u8]) {
        let kind = copy::data_type(payload).unwrap_or(DataType::Other(0));
        if !matches!(kind, DataType::Stream | DataType::Other(_)) {
            return self.copy_by_type(key, purpose, kind);
        }
        let record = if kind == DataType::Stream { abi::RecordType::Stream } else { abi::RecordType::Other };
        let shown = Shown { kind: record, encoding: abi::Encoding::Opaque, deadline, value: payload };
        match self.judge(key, &shown) {
            None => self.not_copied(key, purpose),
            Some(RecordVerdict::Drop) => self.leave_out(key, purpose, token),
            Some(RecordVerdict::Replace(_)) => {
                tracing::warn!("a records policy replaced a value it may only keep or drop; its key is not copied");
                self.not_copied(key, purpose);
            }
            Some(RecordVerdict::Keep) => {
                self.keys.set_altered(key, false);
                let mut effects = Effects::default();
                self.restore(key, payload, deadline, &mut effects);
                let (bytes, dump_type) = (payload.len() as u64, payload.first().copied());
                self.copy_ready(
                    key,
                    purpose,
                    token,
                    deadline,
                    effects,
                    Purpose::Copy { bytes, absent: false, dump_type },
                );
            }
        }
    }

    /// A value read by its type.
    pub(super) fn judge_typed(
        &mut self,
        key: &KeyRef,
        purpose: CopyFor,
        token: u64,
        kind: DataType,
        deadline: i64,
        reply: &[u8],
    ) {
        if is_absent(reply) {
            // Gone since its type was learnt: nothing that a policy could say anything about.
            self.keys.set_altered(key, false);
            return self.delete(key, purpose, token);
        }
        let Some((record, encoding, value)) = shown(kind, reply) else {
            return self.copy_from_the_start(key, purpose);
        };
        let replaceable = encoding != abi::Encoding::Opaque;
        let verdict = self.judge(key, &Shown { kind: record, encoding, deadline, value: &value });
        let replaced;
        let reply = match &verdict {
            None => return self.not_copied(key, purpose),
            Some(RecordVerdict::Drop) => return self.leave_out(key, purpose, token),
            Some(RecordVerdict::Keep) => reply,
            Some(RecordVerdict::Replace(value)) => match replaceable.then(|| as_reply(kind, value)).flatten() {
                Some(reply) => {
                    replaced = reply;
                    &replaced
                }
                None => {
                    tracing::warn!(
                        "a records policy's replacement is not in the record's encoding; its key is not copied"
                    );
                    return self.not_copied(key, purpose);
                }
            },
        };
        let mut effects = Effects::default();
        match copy::typed_writes(kind, &key.name, reply, self.shadow_deadline(deadline), &mut effects) {
            Ok(()) => {
                self.keys.set_altered(key, matches!(verdict, Some(RecordVerdict::Replace(_))));
                let what = Purpose::Copy { bytes: reply.len() as u64, absent: false, dump_type: None };
                self.copy_ready(key, purpose, token, deadline, effects, what);
            }
            Err(()) => self.copy_from_the_start(key, purpose),
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
    fn leave_out(&mut self, key: &KeyRef, purpose: CopyFor, token: u64) {
        self.keys.set_altered(key, true);
        self.delete(key, purpose, token);
    }

    fn delete(&mut self, key: &KeyRef, purpose: CopyFor, token: u64) {
        let mut effects = Effects::default();
        effects.push(&[b"DEL", &key.name], Expect::NoError);
        self.copy_ready(key, purpose, token, -1, effects, Purpose::Copy { bytes: 0, absent: true, dump_type: None });
    }

    /// The policy has no answer: the key stays dirty, so that nothing moves on without it, and is tried again.
    fn not_copied(&mut self, key: &KeyRef, purpose: CopyFor) {
        if self.now.mono_us >= self.record_told_us {
            self.record_told_us = self.now.mono_us + limits::RECORD_REFUSAL_TOLD_US;
            self.events.push(LaneEvent::RecordNotCopied { database: key.database, key: (&*key.name).into() });
        }
        self.copy_failed(key, purpose);
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
