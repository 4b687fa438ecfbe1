//! What is known of keys: clean, dirty, volatile. What must be known after a kill of the process is written down in the intent log. Invariant I5: shadow[k] ≠ authority[k] ⇒ k is dirty, in flight or uncopied.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use super::intent_ring::{Named, Record};
use super::intents::{Confirmed, IntentLog};
use super::key::{IdHasher, Ids};
pub use super::key::{KeyId, KeyRef};
use super::volatile::Volatile;
use base::model::limits;
use wire::resp::copy::DataType;

/// Where the copy (or overwrite) is that will make a dirty key right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Healing {
    No,
    /// The authority has been asked for the value and has not answered: whatever it answers before that is in the copy.
    Asked(u64),
    /// It is read in pieces; what happens meanwhile is in it only if the copy is told.
    Reading(u64),
    /// It stands in the shadow's queue: what happens behind it is not in it.
    Queued(u64),
}

/// A key whose shadow is not known to be right.
#[derive(Debug)]
struct Dirty {
    key: KeyRef,
    healing: Healing,
    /// The shadow refuses this type's dump: copy it by typed reads.
    typed: Option<DataType>,
    /// Not tried again before this moment, microseconds: its copy has just failed.
    not_before_us: u64,
    marked: Option<Marked>,
    /// An entry of it is in one of the two queues.
    queued: bool,
    /// Where its newest record in the intent log is.
    logged: Option<u64>,
}

/// Since when a key waits for a copy made once for many writes, and until when it waits for more of them.
#[derive(Debug, Clone, Copy)]
struct Marked {
    since_us: u64,
    quiet_us: u64,
}

/// The sets of one lane. Lives on the lane's core.
#[derive(Debug)]
pub struct KeyStates {
    /// What the next process has to know.
    pub log: IntentLog,
    clean: Ids,
    pub volatile: Volatile,
    /// Written since the last flip, while the volatile pass runs.
    touched: Ids,
    /// A records policy has changed their value or left them out: the shadow differs on purpose. With the database of each.
    altered: HashMap<KeyId, u32, BuildHasherDefault<IdHasher>>,
    all_altered: bool,
    dirty: HashMap<KeyId, Dirty, BuildHasherDefault<IdHasher>>,
    repair_queue: VecDeque<KeyId>,
    /// Those that are not due yet, by when they may be.
    repairs_later: BinaryHeap<Reverse<(u64, KeyId)>>,
    /// Large keys that were copied a moment ago, and when they may be again.
    paced: HashMap<KeyId, u64, BuildHasherDefault<IdHasher>>,
    /// When all that wait for more writes may be copied: their copies have a share of the lane's time.
    share_us: u64,
    /// Values too long to pass whole.
    by_type: HashMap<KeyId, DataType, BuildHasherDefault<IdHasher>>,
    /// A fence waits until nothing is dirty: nothing waits for more writes.
    draining: bool,
    next_token: u64,
    /// Times a key was marked dirty.
    pub dirtied: u64,
}

impl Dirty {
    fn new(key: &KeyRef, logged: Option<u64>) -> Self {
        let (key, healing) = (key.clone(), Healing::No);
        Self { key, healing, typed: None, not_before_us: 0, marked: None, queued: false, logged }
    }
}

impl KeyStates {
    #[must_use]
    pub fn new(log: IntentLog) -> Self {
        Self {
            log,
            clean: Ids::default(),
            volatile: Volatile::default(),
            touched: Ids::default(),
            altered: HashMap::default(),
            all_altered: false,
            dirty: HashMap::default(),
            repair_queue: VecDeque::new(),
            repairs_later: BinaryHeap::new(),
            paced: HashMap::default(),
            share_us: 0,
            by_type: HashMap::default(),
            draining: false,
            next_token: 0,
            dirtied: 0,
        }
    }

    pub fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    // ---- clean --------------------------------------------------------------------------------------------------------

    pub fn is_clean(&self, id: KeyId) -> bool {
        self.clean.contains(&id)
    }

    pub fn set_clean(&mut self, id: KeyId) {
        if self.clean.len() < limits::CLEAN_KEYS_MAX {
            self.clean.insert(id);
        }
    }

    // ---- dirty --------------------------------------------------------------------------------------------------------

    pub fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    pub fn is_dirty(&self, id: KeyId) -> bool {
        self.dirty.contains_key(&id)
    }

    /// Dirty, and nothing in the shadow's queue will change that.
    pub fn is_unhealed(&self, id: KeyId) -> bool {
        self.dirty.get(&id).is_some_and(|dirty| !matches!(dirty.healing, Healing::Queued(_)))
    }

    /// How a dirty key is to be copied, if not by its dump.
    #[must_use]
    pub fn typed_copy_of(&self, id: KeyId) -> Option<DataType> {
        self.dirty.get(&id).and_then(|dirty| dirty.typed)
    }

    /// Adds to the dirty set. A copy that is in the shadow's queue no longer counts; one that the authority has not answered yet does, as
    /// what is known now happened before it was read.
    pub fn mark_dirty(&mut self, key: &KeyRef) {
        self.dirtied += 1;
        let dirty = dirty_of(&mut self.dirty, &mut self.log, key);
        if let Healing::Queued(_) | Healing::Reading(_) = dirty.healing {
            dirty.healing = Healing::No;
            dirty.not_before_us = 0;
        }
        self.queue(key.id);
    }

    /// The same, after a write whose result can only be copied: the copy waits a moment for further writes.
    pub fn mark_for_copy(&mut self, key: &KeyRef, now_us: u64) {
        self.dirtied += 1;
        let is_new = !self.dirty.contains_key(&key.id);
        let dirty = dirty_of(&mut self.dirty, &mut self.log, key);
        if let Healing::Asked(_) = dirty.healing {
            return;
        }
        let was_queued = std::mem::replace(&mut dirty.healing, Healing::No) != Healing::No;
        let quiet_us = now_us + limits::COPY_QUIET_US;
        match dirty.marked.as_mut() {
            Some(marked) => marked.quiet_us = quiet_us,
            // What is dirty for another reason is copied at once, and this with it.
            None if is_new || was_queued => dirty.marked = Some(Marked { since_us: now_us, quiet_us }),
            None => {}
        }
        self.queue(key.id);
    }

    fn queue(&mut self, id: KeyId) {
        if let Some(dirty) = self.dirty.get_mut(&id)
            && dirty.healing == Healing::No
            && !std::mem::replace(&mut dirty.queued, true)
        {
            self.repair_queue.push_back(id);
        }
    }

    /// A copy was not made: its key is dirty unless another is on its way. `typed`: how to read it the next time.
    pub fn copy_missed(&mut self, key: &KeyRef, token: u64, typed: Option<DataType>, not_before_us: u64) {
        self.dirtied += 1;
        let dirty = dirty_of(&mut self.dirty, &mut self.log, key);
        dirty.typed = typed.or(dirty.typed);
        match dirty.healing {
            Healing::Asked(other) if other != token => {}
            Healing::No | Healing::Asked(_) | Healing::Reading(_) | Healing::Queued(_) => {
                dirty.healing = Healing::No;
                dirty.not_before_us = not_before_us;
            }
        }
        self.queue(key.id);
    }

    /// Its type is not the one that was read: the next copy begins with its dump.
    pub fn forget_type(&mut self, id: KeyId) {
        self.by_type.remove(&id);
        if let Some(dirty) = self.dirty.get_mut(&id) {
            dirty.typed = None;
        }
    }

    /// Its value is too long to pass whole: from now on it is read in pieces, whenever it is copied.
    pub fn set_by_type(&mut self, id: KeyId, kind: DataType) {
        if self.by_type.len() < limits::BY_TYPE_KEYS_MAX {
            self.by_type.insert(id, kind);
        }
    }

    #[must_use]
    pub fn by_type(&self, id: KeyId) -> Option<DataType> {
        self.by_type.get(&id).copied()
    }

    /// A copy with this token has begun to be read in pieces.
    pub fn copy_reading(&mut self, id: KeyId, token: u64) {
        if let Some(dirty) = self.dirty.get_mut(&id) {
            dirty.healing = Healing::Reading(token);
            dirty.marked = None;
        }
    }

    /// Nothing has ended it.
    #[must_use]
    pub fn is_reading(&self, id: KeyId, token: u64) -> bool {
        self.dirty.get(&id).is_some_and(|dirty| dirty.healing == Healing::Reading(token))
    }

    /// The authority has been asked for the value; the copy made of it has this token.
    pub fn copy_asked(&mut self, id: KeyId, token: u64) {
        if let Some(dirty) = self.dirty.get_mut(&id) {
            dirty.healing = Healing::Asked(token);
            dirty.marked = None;
        }
    }

    /// That copy is in the shadow's queue.
    pub fn copy_queued(&mut self, id: KeyId, token: u64) {
        if let Some(dirty) = self.dirty.get_mut(&id)
            && matches!(dirty.healing, Healing::Asked(own) | Healing::Reading(own) if own == token)
        {
            dirty.healing = Healing::Queued(token);
        }
    }

    /// An effect that replaces the whole value is about to be queued for the shadow.
    pub fn overwritten(&mut self, id: KeyId, token: u64) {
        if let Some(dirty) = self.dirty.get_mut(&id) {
            dirty.healing = Healing::Queued(token);
            dirty.marked = None;
        }
    }

    /// It was applied. Removes the key unless something happened since.
    pub fn healed(&mut self, id: KeyId, token: u64) {
        if self.dirty.get(&id).is_some_and(|dirty| dirty.healing == Healing::Queued(token)) {
            self.dirty.remove(&id);
        }
    }

    /// A copy of a dirty key had this length. A large one is not copied again for some time, so that one hot key does not fill the lane, and
    /// all those that wait for more writes have a share together.
    pub fn pace(&mut self, id: KeyId, bytes: u64, now_us: u64) {
        let time = |bytes_per_second: u64| bytes.saturating_mul(1_000_000) / bytes_per_second;
        self.share_us = self.share_us.max(now_us) + time(limits::COPIES_BYTES_PER_SECOND);
        if bytes < limits::COPY_PACED_BYTES {
            return;
        }
        if self.paced.len() >= limits::COPIES_PACED_MAX {
            self.paced.retain(|_, until_us| *until_us > now_us);
        }
        if self.paced.len() < limits::COPIES_PACED_MAX {
            self.paced.insert(id, now_us + time(limits::COPY_OF_KEY_BYTES_PER_SECOND));
        }
    }

    /// From now on what is dirty is copied without waiting for more writes, or no longer so.
    pub fn drain(&mut self, draining: bool) {
        self.draining = draining;
        if draining {
            self.repair_queue.extend(self.repairs_later.drain().map(|Reverse((_, id))| id));
        }
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// When this key may be copied.
    fn due_us(&self, dirty: &Dirty) -> u64 {
        if self.draining {
            return dirty.not_before_us;
        }
        let marked_us = dirty
            .marked
            .map_or(0, |marked| marked.quiet_us.min(marked.since_us + limits::COPY_AGE_US).max(self.share_us));
        let paced_us = self.paced.get(&dirty.key.id).copied().unwrap_or(0);
        dirty.not_before_us.max(marked_us).max(paced_us)
    }

    /// The next key to be copied again, if one is due: its key and how to copy it.
    pub fn next_repair(&mut self, now_us: u64) -> Option<(KeyRef, Option<DataType>)> {
        while let Some(Reverse((due_us, id))) = self.repairs_later.peek().copied()
            && due_us <= now_us
        {
            self.repairs_later.pop();
            self.repair_queue.push_back(id);
        }
        while let Some(id) = self.repair_queue.pop_front() {
            let Some(due_us) = self.dirty.get(&id).map(|dirty| self.due_us(dirty)) else { continue };
            let Some(dirty) = self.dirty.get_mut(&id) else { continue };
            if dirty.healing == Healing::No && due_us > now_us {
                self.repairs_later.push(Reverse((due_us, id)));
                continue;
            }
            dirty.queued = false;
            if dirty.healing == Healing::No {
                return Some((dirty.key.clone(), dirty.typed));
            }
        }
        None
    }

    /// FLUSHDB or FLUSHALL made both sides empty.
    pub fn forget_dirty(&mut self, database: Option<u32>) {
        self.dirty.retain(|_, dirty| database.is_some_and(|database| dirty.key.database != database));
        self.altered.retain(|_, of| database.is_some_and(|database| *of != database));
    }

    // ---- altered ------------------------------------------------------------------------------------------------------

    pub fn is_altered(&self, id: KeyId) -> bool {
        self.all_altered || self.altered.contains_key(&id)
    }

    /// Whether the copy just made of this key is another value than its own.
    pub fn set_altered(&mut self, key: &KeyRef, altered: bool) {
        if altered && self.altered.len() >= limits::ALTERED_KEYS_MAX {
            self.all_altered = true;
        } else if altered {
            self.altered.insert(key.id, key.database);
        } else {
            self.altered.remove(&key.id);
        }
    }

    pub fn altered_count(&self) -> usize {
        self.altered.len()
    }

    // ---- the intent log -----------------------------------------------------------------------------------------------

    /// Goes on with what a predecessor has written down: each of those keys is dirty.
    pub fn take_up(&mut self, log: IntentLog, records: &[Record]) {
        for Record { position, key } in records {
            let Some(key) = key else { continue };
            self.mark_dirty(key);
            if let Some(dirty) = self.dirty.get_mut(&key.id) {
                dirty.logged = Some(*position);
            }
        }
        self.log = log;
    }

    /// A write of these keys is about to be sent; none: of any. It is over behind this reply of the authority.
    pub fn write_down(&mut self, keys: &[KeyRef], at: u64) {
        if keys.is_empty() {
            self.log.write_every_key(at);
        }
        for key in keys {
            let position = self.log.write(key, at);
            if !self.dirty.is_empty()
                && let Some(dirty) = self.dirty.get_mut(&key.id)
            {
                dirty.logged = position.or(dirty.logged);
            }
        }
    }

    /// Ends the records of the intent log that are not needed any more. `end`: the authority's last reply that is owed now.
    pub fn settle(&mut self, confirmed: Confirmed, end: u64) {
        self.log.begin_again(end);
        let needed_max = 2 * self.dirty.len() as u64 + limits::INTENT_RECORDS_SPARE;
        while let Some(front) = self.log.front()
            && confirmed.covers(front.at)
        {
            let dirty = self.dirty.get_mut(&front.id).filter(|_| front.named == Named::Key);
            let Some(dirty) = dirty.filter(|dirty| dirty.logged == Some(front.position)) else {
                self.log.pop();
                continue;
            };
            // Moving it makes room only if there is something behind it that is not needed.
            if self.log.records() <= needed_max {
                break;
            }
            let Some(position) = self.log.keep_front() else { break };
            dirty.logged = Some(position);
        }
        if self.log.lacks_only_dirty(confirmed) {
            for dirty in self.dirty.values_mut() {
                dirty.logged = self.log.write(&dirty.key, 0);
            }
            self.log.complete();
        }
    }

    // ---- passes -------------------------------------------------------------------------------------------------------

    /// Everything is uncopied again. A full pass also forgets what was dirty: every key will be copied. `judged`: by a records policy.
    pub fn begin_pass(&mut self, full: bool, judged: bool) {
        self.clean.clear();
        self.touched.clear();
        if full {
            self.log.every_key_is_uncopied(judged);
            self.altered.clear();
            self.all_altered = false;
            self.volatile.forget();
            self.dirty.clear();
            self.repair_queue.clear();
            self.repairs_later.clear();
        }
    }

    /// The pass is over; what was only needed for it is freed. `end`: the authority's last reply that is owed now.
    pub fn end_pass(&mut self, end: u64) {
        self.log.every_key_is_copied(end);
        self.clean = Ids::default();
        self.touched = Ids::default();
    }

    pub fn touch(&mut self, id: KeyId) {
        if self.touched.len() < limits::CLEAN_KEYS_MAX {
            self.touched.insert(id);
        }
    }

    pub fn is_touched(&self, id: KeyId) -> bool {
        self.touched.contains(&id) || self.touched.len() >= limits::CLEAN_KEYS_MAX
    }
}

/// The entry of a key that becomes dirty, or is.
fn dirty_of<'a>(
    dirty: &'a mut HashMap<KeyId, Dirty, BuildHasherDefault<IdHasher>>,
    log: &mut IntentLog,
    key: &KeyRef,
) -> &'a mut Dirty {
    match dirty.entry(key.id) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => new.insert(Dirty::new(key, log.write(key, 0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> KeyStates {
        KeyStates::new(IntentLog::none(&super::super::tests::plan(base::model::Authority::initial())))
    }

    #[test]
    fn only_the_last_copy_heals() {
        let mut states = states();
        let key = KeyRef::new(0, b"k");
        states.mark_dirty(&key);
        assert_eq!(states.next_repair(0).unwrap().0, key);
        let first = states.token();
        states.copy_asked(key.id, first);
        assert!(states.next_repair(0).is_none() && states.is_unhealed(key.id));
        states.copy_queued(key.id, first);
        assert!(!states.is_unhealed(key.id));
        states.copy_missed(&key, first, None, 10);
        states.healed(key.id, first);
        assert!(states.is_dirty(key.id), "the first copy no longer counts");
        states.mark_dirty(&key);
        assert!(states.next_repair(5).is_none(), "not before its time, whatever is written");
        assert_eq!(states.next_repair(10).unwrap().0, key);
        let second = states.token();
        states.copy_asked(key.id, second);
        states.copy_queued(key.id, second);
        states.mark_dirty(&key);
        states.healed(key.id, second);
        assert!(states.is_dirty(key.id), "something went wrong behind the second");
        assert_eq!(states.next_repair(10).unwrap().0, key);
        let third = states.token();
        states.copy_asked(key.id, third);
        states.mark_dirty(&key);
        states.copy_queued(key.id, third);
        states.healed(key.id, third);
        assert_eq!(states.dirty_count(), 0, "what was known before the third was read is in it");
    }

    #[test]
    fn a_type_is_remembered_until_it_is_seen_to_be_another() {
        let mut states = states();
        let key = KeyRef::new(0, b"k");
        states.copy_missed(&key, 0, Some(DataType::Set), 0);
        states.mark_dirty(&key);
        assert_eq!(states.next_repair(0).map(|(_, typed)| typed), Some(Some(DataType::Set)));
        states.forget_type(key.id);
        states.mark_dirty(&key);
        assert_eq!(states.next_repair(0).map(|(_, typed)| typed), Some(None));
    }

    #[test]
    fn many_writes_are_copied_once_when_they_pause_or_have_waited_long() {
        let mut states = states();
        let key = KeyRef::new(0, b"k");
        states.mark_for_copy(&key, 0);
        assert!(states.is_unhealed(key.id), "I5");
        states.mark_for_copy(&key, limits::COPY_QUIET_US - 1);
        assert!(states.next_repair(limits::COPY_QUIET_US).is_none(), "one was newer");
        assert!(states.next_repair(2 * limits::COPY_QUIET_US - 1).is_some());
        let mut at = 10_000_000;
        let other = KeyRef::new(0, b"o");
        let begun = at;
        while states.next_repair(at).is_none() {
            states.mark_for_copy(&other, at);
            at += limits::COPY_QUIET_US / 2;
        }
        let waited = at - begun;
        assert!((limits::COPY_AGE_US..limits::COPY_AGE_US + limits::COPY_QUIET_US).contains(&waited), "{waited}");
    }

    #[test]
    fn a_large_key_is_copied_seldom_but_at_once_for_a_fence() {
        let mut states = states();
        let key = KeyRef::new(0, b"k");
        states.pace(key.id, 64 * 1024 * 1024, 0);
        states.mark_for_copy(&key, 0);
        assert!(states.next_repair(1_000_000).is_none());
        states.drain(true);
        assert!(states.next_repair(1_000_000).is_some());
        states.drain(false);
        states.mark_dirty(&key);
        assert!(states.next_repair(1_000_001).is_none(), "whatever the reason");
        assert!(states.next_repair(60_000_000).is_some());
    }

    #[test]
    fn marked_keys_have_a_share_together_and_doubts_do_not_wait_for_it() {
        let mut states = states();
        states.pace(KeyRef::new(0, b"small").id, 1024, 0);
        for _ in 0..1000 {
            states.pace(KeyRef::new(0, b"large").id, 1024 * 1024, 0);
        }
        let (marked, doubted) = (KeyRef::new(0, b"m"), KeyRef::new(0, b"d"));
        states.mark_for_copy(&marked, 0);
        states.mark_dirty(&doubted);
        assert_eq!(states.next_repair(1_000_000).map(|(key, _)| key), Some(doubted));
        assert!(states.next_repair(1_000_000).is_none());
        assert_eq!(states.next_repair(60_000_000).map(|(key, _)| key), Some(marked));
    }

    #[test]
    fn an_empty_database_has_nothing_dirty_or_altered() {
        let mut states = states();
        let keys = [KeyRef::new(0, b"k"), KeyRef::new(1, b"k")];
        for key in &keys {
            states.set_altered(key, true);
            states.mark_dirty(key);
        }
        states.forget_dirty(Some(1));
        assert_eq!((states.dirty_count(), states.altered_count()), (1, 1));
        assert!(states.is_altered(keys[0].id) && !states.is_altered(keys[1].id));
        states.forget_dirty(None);
        assert_eq!((states.dirty_count(), states.altered_count()), (0, 0));
    }
}
