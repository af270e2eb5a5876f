//! A slab whose keys carry a generation, so that a stale key finds nothing.

/// Indices are 28 bits wide: they travel in the kernel's user data beside a generation of 32 bits
/// and a kind of 4. So many sockets would take the kernel 500 GB.
pub(crate) const INDEX_BITS: u32 = 28;

/// Names an entry: its place, and which of the successive owners of that place is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// Entries of one chunk. Chunks never move: growing copies nothing and leaves no freed halves
/// behind, which would be a good part of the memory of hundreds of thousands of idle sockets.
const CHUNK: usize = 1024;

/// Entries in chunks; places are used again last in, first out, so that few cache lines stay hot. A
/// place whose generations are used up is not: no key is ever valid again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    /// Each is whole, or without memory: then it is one of `gone`.
    chunks: Vec<Vec<Entry<T>>>,
    gone: Vec<usize>,
    free: Vec<u32>,
    /// Where generations begin in a new chunk: after all those of the chunks that are gone, whose
    /// keys may still be about.
    first_generation: u32,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            gone: Vec::new(),
            free: Vec::new(),
            first_generation: 0,
        }
    }

    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.insert_and_get(value).0
    }

    /// As [`insert`](Self::insert); with the value where it stays until it is removed.
    #[inline]
    pub(crate) fn insert_and_get(&mut self, value: T) -> (Key, &mut T) {
        let index = loop {
            match self.free.pop() {
                Some(index) => break index,
                None => self.grow(),
            }
        };
        let entry = &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK];
        let key = Key {
            index,
            generation: entry.generation,
        };
        (key, entry.value.insert(value))
    }

    #[cold]
    fn grow(&mut self) {
        let at = self.gone.pop().unwrap_or(self.chunks.len());
        let end = (at + 1) * CHUNK;
        assert!(end <= 1 << INDEX_BITS, "memory ends before 2^28 entries");
        let end = end as u32;
        let entry = || Entry {
            generation: self.first_generation,
            value: None,
        };
        let chunk = std::iter::repeat_with(entry).take(CHUNK).collect();
        if at == self.chunks.len() {
            self.chunks.push(chunk);
        } else {
            self.chunks[at] = chunk;
        }
        self.free.extend((end - CHUNK as u32..end).rev());
    }

    /// Frees the chunks in which nothing is.
    pub(crate) fn shrink_to_fit(&mut self) {
        for (at, chunk) in self.chunks.iter_mut().enumerate() {
            if chunk.is_empty() || chunk.iter().any(|entry| entry.value.is_some()) {
                continue;
            }
            let last = chunk.iter().map(|entry| entry.generation).max();
            let Some(next) = last.unwrap_or_default().checked_add(1) else {
                continue;
            };
            self.first_generation = self.first_generation.max(next);
            *chunk = Vec::new();
            self.gone.push(at);
        }
        let chunks = &self.chunks;
        self.free
            .retain(|&index| !chunks[index as usize / CHUNK].is_empty());
        self.free.shrink_to_fit();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let entries = self.chunks.iter().flatten();
        entries.filter_map(|entry| entry.value.as_ref())
    }

    #[inline]
    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let index = index as usize;
        self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let index = key.index as usize;
        let entry = self.chunks.get(index / CHUNK)?.get(index % CHUNK)?;
        if entry.generation == key.generation {
            entry.value.as_ref()
        } else {
            None
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entry_mut(key.index)?;
        if entry.generation == key.generation {
            entry.value.as_mut()
        } else {
            None
        }
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entry_mut(key.index)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        if let Some(next) = entry.generation.checked_add(1) {
            entry.generation = next;
            self.free.push(key.index);
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing_and_places_are_used_again() {
        let mut slab = Slab::new();
        let first = slab.insert("a");
        let second = slab.insert("b");
        assert_eq!(slab.remove(first), Some("a"));
        assert_eq!(slab.remove(first), None);
        let third = slab.insert("c");
        assert_eq!(third.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.get(third), Some(&"c"));
        assert_eq!(slab.get(second), Some(&"b"));
    }

    #[test]
    fn a_key_is_stale_however_often_its_place_was_used_again() {
        let mut slab = Slab::new();
        let first = slab.insert(0);
        slab.remove(first);
        for reuse in 0..1 << 24 {
            let key = slab.insert(reuse);
            assert_eq!(key.index, first.index);
            slab.remove(key);
        }
        slab.insert(1);
        assert_eq!(slab.get(first), None);
    }

    #[test]
    fn a_place_whose_generations_are_used_up_is_not_used_again() {
        let mut slab = Slab::new();
        let key = slab.insert(1);
        slab.remove(key);
        slab.chunks[0][0].generation = u32::MAX;
        let last = slab.insert(2);
        assert_eq!((last.index, last.generation), (0, u32::MAX));
        assert_eq!(slab.remove(last), Some(2));
        assert_eq!(slab.insert(3).index, 1);
        assert_eq!(slab.get(last), None);
        let key = slab.insert(4);
        slab.remove(key);
        slab.shrink_to_fit();
        assert_eq!(
            slab.chunks[0].len(),
            CHUNK,
            "its generations would begin anew"
        );
    }

    #[test]
    fn entries_keep_their_places_over_chunks() {
        let mut slab = Slab::new();
        let keys: Vec<_> = (0..3 * CHUNK + 1).map(|i| slab.insert(i)).collect();
        assert!(
            keys.iter()
                .enumerate()
                .all(|(i, key)| key.index as usize == i)
        );
        assert!(
            keys.iter()
                .enumerate()
                .all(|(i, key)| slab.get(*key) == Some(&i))
        );
        assert_eq!(slab.remove(keys[CHUNK]), Some(CHUNK));
        assert_eq!(slab.insert(7).index as usize, CHUNK);
    }

    #[test]
    fn chunks_without_entries_are_freed_and_their_keys_stay_stale() {
        let mut slab = Slab::new();
        let keys: Vec<_> = (0..3 * CHUNK).map(|i| slab.insert(i)).collect();
        let kept = keys[2 * CHUNK + 5];
        for key in keys.iter().filter(|&&key| key != kept) {
            slab.remove(*key);
        }
        slab.shrink_to_fit();
        assert_eq!(
            slab.chunks.iter().map(Vec::capacity).collect::<Vec<_>>(),
            [0, 0, CHUNK]
        );
        assert_eq!(slab.get(kept), Some(&(2 * CHUNK + 5)));
        assert_eq!(slab.free.len(), CHUNK - 1);
        let again: Vec<_> = (0..3 * CHUNK - 1).map(|i| slab.insert(i)).collect();
        assert!(again.iter().all(|key| (key.index as usize) < 3 * CHUNK));
        for key in keys.iter().filter(|&&key| key != kept) {
            assert_eq!(slab.get(*key), None);
        }
    }
}
