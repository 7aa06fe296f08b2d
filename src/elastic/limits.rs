//! How much one bulk request may hold, learned from what the server says.
//!
//! Halves when the server cannot cope (413, 429, no answer in time) and grows by
//! a tenth after ten requests that worked.

/// How much one bulk request may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BulkLimits {
    operations: usize,
    bytes: usize,
    good: u32,
}

const MOST_OPERATIONS: usize = 1000;
const MOST_BYTES: usize = 5 << 20;
const FEWEST_OPERATIONS: usize = 10;
const FEWEST_BYTES: usize = 64 << 10;

impl Default for BulkLimits {
    fn default() -> Self {
        Self { operations: MOST_OPERATIONS, bytes: MOST_BYTES, good: 0 }
    }
}

impl BulkLimits {
    /// Notes a request that worked.
    pub(super) fn worked(&mut self) {
        self.good += 1;
        if self.good >= 10 {
            self.good = 0;
            self.operations = (self.operations + self.operations / 10 + 1).min(MOST_OPERATIONS);
            self.bytes = (self.bytes + (self.bytes / 10).max(1024)).min(MOST_BYTES);
        }
    }

    /// Notes a request that was too much.
    pub(super) fn overloaded(&mut self) {
        self.good = 0;
        self.operations = (self.operations / 2).max(FEWEST_OPERATIONS);
        self.bytes = (self.bytes / 2).max(FEWEST_BYTES);
    }

    /// Notes that the server refuses `bytes` for their size.
    pub(super) fn too_large(&mut self, bytes: usize) {
        self.good = 0;
        // No lower bound: in the end each operation goes alone and is refused alone.
        self.bytes = self.bytes.min(bytes / 2);
    }

    /// Splits operations of these sizes, named by their position, into requests.
    ///
    /// One operation that is larger than the limit goes alone.
    pub(super) fn chunks(&self, positions: &[usize], size_of: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
        let mut chunks: Vec<Vec<usize>> = Vec::new();
        let mut bytes = 0;
        for &position in positions {
            let size = size_of(position);
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < self.operations && bytes + size <= self.bytes => {
                    chunk.push(position);
                    bytes += size;
                }
                _ => {
                    chunks.push(vec![position]);
                    bytes = size;
                }
            }
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_holds_at_most_so_many_operations_and_bytes() {
        let limits = BulkLimits { operations: 3, bytes: 100, good: 0 };
        let sizes = [10, 10, 10, 10, 95, 10, 300, 10];
        let chunks = limits.chunks(&[0, 1, 2, 3, 4, 5, 6, 7], |position| sizes[position]);
        assert_eq!(chunks, [vec![0, 1, 2], vec![3], vec![4], vec![5], vec![6], vec![7]]);
    }

    #[test]
    fn limits_shrink_at_once_and_grow_slowly() {
        let mut limits = BulkLimits::default();
        limits.overloaded();
        assert_eq!((limits.operations, limits.bytes), (500, 5 << 19));
        for _ in 0..10 {
            limits.worked();
        }
        assert_eq!(limits.operations, 551);
        for _ in 0..200 {
            limits.worked();
        }
        assert_eq!(limits, BulkLimits { good: 0, ..BulkLimits::default() });
        limits.too_large(1_500_000);
        assert_eq!(limits.bytes, 750_000);
    }
}
