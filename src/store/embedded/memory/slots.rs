//! Sets of rows of one type, one bit for each slot.
//!
//! A million rows are 125 KB: combining two sets takes microseconds, so nothing
//! cleverer is needed.

/// A set of slots of one type. Sets that are combined belong to the same type at
/// the same moment, so they have the same length.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) struct Slots {
    words: Vec<u64>,
}

impl Slots {
    /// Returns the empty set over so many slots.
    pub(in super::super) fn none(slots: usize) -> Self {
        Self { words: vec![0; slots.div_ceil(64)] }
    }

    /// Makes room for a slot.
    pub(in super::super) fn cover(&mut self, slot: u32) {
        let words = slot as usize / 64 + 1;
        if words > self.words.len() {
            self.words.resize(words, 0);
        }
    }

    /// Puts a slot in, for which there is room.
    pub(in super::super) fn insert(&mut self, slot: u32) {
        self.words[slot as usize / 64] |= 1 << (slot % 64);
    }

    /// Takes a slot out.
    pub(in super::super) fn remove(&mut self, slot: u32) {
        if let Some(word) = self.words.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    /// Tells whether a slot is in the set.
    pub(in super::super) fn contains(&self, slot: u32) -> bool {
        self.words.get(slot as usize / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    /// Tells whether there is none.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Returns how many there are.
    pub(in super::super) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Adds those of another set.
    pub(in super::super) fn add(&mut self, other: &Self) {
        for (word, others) in self.words.iter_mut().zip(&other.words) {
            *word |= others;
        }
    }

    /// Takes those of another set away.
    pub(in super::super) fn take_away(&mut self, other: &Self) {
        for (word, others) in self.words.iter_mut().zip(&other.words) {
            *word &= !others;
        }
    }

    /// Returns the slots in ascending order.
    pub(in super::super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().enumerate().flat_map(|(number, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(number as u32 * 64 + bit)
            })
        })
    }

    /// Returns those whose value passes; `values` has one for each slot.
    pub(in super::super) fn passing<T: Copy>(&self, values: &[T], passes: impl Fn(T) -> bool) -> Self {
        let of_word = |(number, word): (usize, &u64)| {
            let rest = values.get(number * 64..).unwrap_or_default();
            if *word == 0 {
                return 0;
            }
            // Where most slots are asked about, looking at all of them without a
            // branch is what processors do best.
            if word.count_ones() > 8 && rest.len() >= 64 {
                let bits = rest[..64].iter().enumerate();
                return word & bits.fold(0, |bits, (bit, value)| bits | u64::from(passes(*value)) << bit);
            }
            let mut left = *word;
            let mut kept = 0;
            while left != 0 {
                let bit = left.trailing_zeros();
                if rest.get(bit as usize).is_some_and(|value| passes(*value)) {
                    kept |= 1 << bit;
                }
                left &= left - 1;
            }
            kept
        };
        Self { words: self.words.iter().enumerate().map(of_word).collect() }
    }

    /// Returns the room that it takes.
    pub(in super::super) fn bytes(&self) -> usize {
        self.words.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(slots: &[u32]) -> Slots {
        let mut set = Slots::none(200);
        slots.iter().for_each(|slot| set.insert(*slot));
        set
    }

    #[test]
    fn sets_are_combined_and_counted() {
        let mut set = of(&[0, 5, 63, 64, 199]);
        assert_eq!((set.count(), set.contains(63), set.contains(62), set.contains(9_999)), (5, true, false, false));
        set.take_away(&of(&[5, 64]));
        set.add(&of(&[7]));
        set.remove(199);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 7, 63]);
        assert!(of(&[]).is_empty() && !set.is_empty());
    }

    #[test]
    fn values_are_looked_at_where_a_slot_is_in_the_set() {
        let values: Vec<u32> = (0..200).collect();
        let dense = of(&(0..150).collect::<Vec<_>>());
        let even = dense.passing(&values, |value| value % 2 == 0);
        assert_eq!(even.iter().collect::<Vec<_>>(), (0..150).step_by(2).collect::<Vec<_>>());
        assert_eq!(of(&[3, 4, 199]).passing(&values, |value| value > 3).iter().collect::<Vec<_>>(), [4, 199]);
    }
}
