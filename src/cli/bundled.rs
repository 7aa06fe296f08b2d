//! The entity configs that are shipped, for the demo to start from.

/// File names and texts.
pub const ENTITY_CONFIGS: &[(&str, &str)] = &[
    ("Asset.json", include_str!("../../entityConfig/Asset.json")),
    ("Department.json", include_str!("../../entityConfig/Department.json")),
    ("Episode.json", include_str!("../../entityConfig/Episode.json")),
    ("HumanUser.json", include_str!("../../entityConfig/HumanUser.json")),
    ("Note.json", include_str!("../../entityConfig/Note.json")),
    ("Playlist.json", include_str!("../../entityConfig/Playlist.json")),
    ("Project.json", include_str!("../../entityConfig/Project.json")),
    ("PublishedFile.json", include_str!("../../entityConfig/PublishedFile.json")),
    ("Sequence.json", include_str!("../../entityConfig/Sequence.json")),
    ("Shot.json", include_str!("../../entityConfig/Shot.json")),
    ("Step.json", include_str!("../../entityConfig/Step.json")),
    ("Tag.json", include_str!("../../entityConfig/Tag.json")),
    ("Task.json", include_str!("../../entityConfig/Task.json")),
    ("Version.json", include_str!("../../entityConfig/Version.json")),
];
