//! The short hash by which a changed display name is noticed.

/// FNV-1a over a display name; zero without one.
pub(super) fn hash_of_name(name: Option<&str>) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    name.map_or(0, |name| name.bytes().fold(0x811c_9dc5, step))
}
