//! Token: the identity of a registration, and the slab that gives it out.
//!
//! The kernel returns a token with every event. An index alone would name whatever entry is in the
//! slot by then; the generation distinguishes a late event for a removed entry from an event for
//! the entry that took its slot.
//!
//! Invariants:
//! - a slot's generation grows on every removal, and a slot whose generation is used up is retired,
//!   so a token is never given out twice;
//! - index `u32::MAX` is never given out (see [`Token::reserved`]).
//!
//! Cost: O(1) for everything but iteration; one allocation per doubling. Differs from asyncio: a
//! selector's key is the descriptor's number, so a reused number is mistaken for the old
//! descriptor.

#![forbid(unsafe_code)]

use std::fmt;

const RESERVED_INDEX: u32 = u32::MAX;
const NO_SLOT: u32 = u32::MAX;

/// Names one entry of a [`Registry`], for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The slot in the slab.
    pub index: u32,
    /// How many entries have left the slot before this one.
    pub generation: u32,
}

impl Token {
    /// A token that no registry gives out, for what a caller wants to tell apart by itself.
    #[inline]
    pub const fn reserved(number: u32) -> Self {
        Self {
            index: RESERVED_INDEX,
            generation: number,
        }
    }

    /// The 64 bits that travel through the kernel.
    #[inline]
    pub const fn to_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The token that [`Token::to_u64`] was called on.
    #[inline]
    pub const fn from_u64(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

#[derive(Debug)]
enum Entry<T> {
    Occupied(T),
    Vacant { next_free: u32 },
    Retired,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Entry<T>,
}

/// A slab whose tokens are never mistaken for one another.
pub struct Registry<T> {
    slots: Vec<Slot<T>>,
    first_free: u32,
    len: usize,
}

impl<T> Registry<T> {
    /// An empty registry; allocates nothing.
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            first_free: NO_SLOT,
            len: 0,
        }
    }

    /// Stores `value` and names it.
    ///
    /// # Panics
    ///
    /// With 2^32 - 1 slots in use; memory ends long before.
    #[inline]
    pub fn insert(&mut self, value: T) -> Token {
        self.len += 1;
        let index = self.first_free;
        if index == NO_SLOT {
            return self.insert_at_end(value);
        }
        let slot = &mut self.slots[index as usize];
        let Entry::Vacant { next_free } = slot.entry else {
            unreachable!("invariant: the free list holds vacant slots only");
        };
        self.first_free = next_free;
        slot.entry = Entry::Occupied(value);
        Token {
            index,
            generation: slot.generation,
        }
    }

    #[cold]
    fn insert_at_end(&mut self, value: T) -> Token {
        let index = u32::try_from(self.slots.len()).unwrap_or(RESERVED_INDEX);
        assert!(
            index != RESERVED_INDEX,
            "invariant: fewer than 2^32 - 1 registrations"
        );
        self.slots.push(Slot {
            generation: 0,
            entry: Entry::Occupied(value),
        });
        Token {
            index,
            generation: 0,
        }
    }

    /// The entry that `token` names, or `None` when it has been removed.
    #[inline]
    pub fn get(&self, token: Token) -> Option<&T> {
        let slot = self.slots.get(token.index as usize)?;
        match &slot.entry {
            Entry::Occupied(value) if slot.generation == token.generation => Some(value),
            _ => None,
        }
    }

    /// Like [`Registry::get`], to change the entry.
    #[inline]
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let slot = self.slots.get_mut(token.index as usize)?;
        match &mut slot.entry {
            Entry::Occupied(value) if slot.generation == token.generation => Some(value),
            _ => None,
        }
    }

    /// Takes out the entry that `token` names; the token is stale from here on.
    #[inline]
    pub fn remove(&mut self, token: Token) -> Option<T> {
        let slot = self.slots.get_mut(token.index as usize)?;
        if slot.generation != token.generation || !matches!(slot.entry, Entry::Occupied(_)) {
            return None;
        }
        let left_behind = match slot.generation.checked_add(1) {
            Some(generation) => {
                slot.generation = generation;
                let next_free = self.first_free;
                self.first_free = token.index;
                Entry::Vacant { next_free }
            }
            None => Entry::Retired,
        };
        self.len -= 1;
        match std::mem::replace(&mut slot.entry, left_behind) {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant { .. } | Entry::Retired => None,
        }
    }

    /// Whether `token` names an entry.
    #[inline]
    pub fn contains(&self, token: Token) -> bool {
        self.get(token).is_some()
    }

    /// How many entries there are.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| match &slot.entry {
                Entry::Occupied(value) => Some((
                    Token {
                        index: index as u32,
                        generation: slot.generation,
                    },
                    value,
                )),
                Entry::Vacant { .. } | Entry::Retired => None,
            })
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Registry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_token_misses_the_slot_s_next_entry() {
        let mut registry = Registry::new();
        let old = registry.insert("old");
        assert_eq!(registry.remove(old), Some("old"));
        let new = registry.insert("new");
        assert_eq!(new.index, old.index);
        assert_eq!(registry.get(old), None);
        assert_eq!(registry.get_mut(old), None);
        assert_eq!(registry.remove(old), None);
        assert_eq!(registry.get(new), Some(&"new"));
    }

    #[test]
    fn a_slot_is_retired_when_its_generations_are_used_up() {
        let mut registry = Registry::new();
        let first = registry.insert(1);
        registry.slots[0].generation = u32::MAX;
        let last = Token {
            generation: u32::MAX,
            ..first
        };
        assert_eq!(registry.remove(last), Some(1));
        assert!(!registry.contains(last));
        assert_eq!(
            registry.insert(2),
            Token {
                index: 1,
                generation: 0
            }
        );
        assert_eq!(registry.iter().count(), 1);
    }

    #[test]
    fn bits_round_trip() {
        for token in [
            Token {
                index: 0,
                generation: 0,
            },
            Token {
                index: 7,
                generation: u32::MAX,
            },
            Token {
                index: u32::MAX - 1,
                generation: 1,
            },
            Token::reserved(3),
        ] {
            assert_eq!(Token::from_u64(token.to_u64()), token);
        }
    }

    #[test]
    fn reserved_tokens_name_nothing() {
        let mut registry = Registry::new();
        let token = registry.insert(());
        assert_ne!(token, Token::reserved(0));
        assert!(!registry.contains(Token::reserved(0)));
    }
}
