//! The hash from which jitter and draws follow. Its values are stored and must not change.

/// Returns a number that is the same for the same text on every machine
/// (FNV-1a, 64 bits, with a final mix so that the low bits spread well).
pub fn fingerprint(text: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
