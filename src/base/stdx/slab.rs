//! A slab whose keys go stale: an index together with a generation, so that a late reply never reaches a newer entry.
//!
//! Lives on one core.

use std::fmt;

/// Key of a [`Slab`] entry; fits a `u64` for hand-over between cores.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlabKey {
    index: u32,
    generation: u32,
}

impl SlabKey {
    #[must_use]
    pub fn to_u64(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    #[must_use]
    pub fn from_u64(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl fmt::Debug for SlabKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Values addressed by [`SlabKey`]; freed slots are used again under a new generation.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> SlabKey {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return SlabKey { index, generation: slot.generation };
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 connections on a core");
        self.slots.push(Slot { generation: 0, value: Some(value) });
        SlabKey { index, generation: 0 }
    }

    #[must_use]
    pub fn get(&self, key: SlabKey) -> Option<&T> {
        self.slots.get(key.index as usize).filter(|slot| slot.generation == key.generation)?.value.as_ref()
    }

    #[must_use]
    pub fn get_mut(&mut self, key: SlabKey) -> Option<&mut T> {
        self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?.value.as_mut()
    }

    pub fn remove(&mut self, key: SlabKey) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (SlabKey, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let key = SlabKey { index: index as u32, generation: slot.generation };
            slot.value.as_ref().map(|value| (key, value))
        })
    }

    #[must_use]
    pub fn keys(&self) -> Vec<SlabKey> {
        self.iter().map(|(key, _)| key).collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Further data about the entries of a [`Slab`], under the same keys: found by index, without hashing.
#[derive(Debug)]
pub struct SlabMap<T> {
    slots: Vec<Slot<T>>,
}

impl<T> Default for SlabMap<T> {
    fn default() -> Self {
        Self { slots: Vec::new() }
    }
}

impl<T> SlabMap<T> {
    pub fn insert(&mut self, key: SlabKey, value: T) {
        let index = key.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || Slot { generation: 0, value: None });
        }
        self.slots[index] = Slot { generation: key.generation, value: Some(value) };
    }

    #[must_use]
    pub fn get(&self, key: SlabKey) -> Option<&T> {
        self.slots.get(key.index as usize).filter(|slot| slot.generation == key.generation)?.value.as_ref()
    }

    pub fn remove(&mut self, key: SlabKey) -> Option<T> {
        self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?.value.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::default();
        let first = slab.insert("a");
        assert_eq!(slab.remove(first), Some("a"));
        let second = slab.insert("b");
        assert_eq!((slab.get(first), slab.get(second), slab.len()), (None, Some(&"b"), 1));
        assert_eq!(slab.remove(first), None);
        assert_eq!(SlabKey::from_u64(second.to_u64()), second);
    }

    #[test]
    fn what_is_kept_beside_an_entry_goes_stale_with_it() {
        let (mut slab, mut beside) = (Slab::default(), SlabMap::default());
        let (zeroth, first) = (slab.insert("a"), slab.insert("b"));
        beside.insert(first, 1);
        assert_eq!((beside.get(zeroth), beside.get(first)), (None, Some(&1)));
        slab.remove(first);
        let second = slab.insert("c");
        assert_eq!(beside.get(second), None, "the old one is not the new one's");
        assert_eq!(beside.remove(second), None);
        beside.insert(second, 2);
        assert_eq!(beside.get(first), None);
        assert_eq!(beside.remove(second), Some(2));
        assert_eq!(beside.get(second), None);
    }
}
