//! What each fuzz target does with its bytes: whatever they are, it neither panics nor
//! grows without bound. The tests of the project replay the kept corpus through these
//! same functions.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use sgcache::api3::{self, BatchItem, Read, ReadAnswer, Summarize};
use sgcache::entity_config::{EntityConfigFile, TypeLayout};
use sgcache::filter::{RawFilter, parse_fields, parse_order};
use sgcache::pipeline::file::PipelineFile;
use sgcache::proxy::catalogue::stored;
use sgcache::proxy::write_effects::WriteEffects;
use sgcache::proxy::{Asked, Catalogue, Limits, PendingWrites, Scope, decide};
use sgcache::state::{ReplicationStatus, SiteTime, TypeReplicationStatus, TypeState};
use sgcache::sync::{Tracked, extract};
use sgcache::yaml::{Document, Problems};

/// Takes any bytes and must not panic.
pub type Decoder = fn(&[u8]);

/// Each decoder with the name of its target, which is that of its corpus.
pub const DECODERS: &[(&str, Decoder)] = &[
    ("request", request),
    ("wire", wire),
    ("entry", entry),
    ("filter", filter),
    ("entity_config", entity_config),
    ("pipeline", pipeline),
];

/// Entity configs that come with the program: what a real cache holds.
const CONFIGS: &[(&str, &str)] = &[
    ("Project", include_str!("../entityConfig/Project.json")),
    ("Sequence", include_str!("../entityConfig/Sequence.json")),
    ("Shot", include_str!("../entityConfig/Shot.json")),
    ("Asset", include_str!("../entityConfig/Asset.json")),
    ("Task", include_str!("../entityConfig/Task.json")),
    ("Version", include_str!("../entityConfig/Version.json")),
    ("Note", include_str!("../entityConfig/Note.json")),
];

/// A cache that follows the standard schema, so that the bytes reach what is behind the
/// first check.
fn world() -> &'static (Tracked, Catalogue) {
    static WORLD: OnceLock<(Tracked, Catalogue)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let schema = sgcache::sim::stock_schema();
        let layout = |(name, text): &(&str, &str)| {
            let file = EntityConfigFile::parse(Path::new(&format!("{name}.json")), (*text).to_owned());
            TypeLayout::check(&file.expect("an entity config"), &schema).expect("a layout")
        };
        let layouts: Vec<TypeLayout> = CONFIGS.iter().map(layout).collect();
        let mut standing = ReplicationStatus { complete_as_of: Some(SiteTime(0)), ..Default::default() };
        for layout in &layouts {
            let (state, layout_hash) = (TypeState::Live, layout.hash.clone());
            let live = TypeReplicationStatus { state, layout_hash, breaker: false, quarantined: [1].into() };
            standing.types.insert(layout.entity_type.clone(), live);
        }
        let catalogue = Catalogue {
            stored: Arc::new(stored(&layouts)),
            schema: Arc::new(schema),
            schema_is_current: true,
            standing: Arc::new(standing),
            pending_writes: PendingWrites::default(),
            now: SiteTime(0),
            settings: Default::default(),
            max_page: 500,
            site_is_down: false,
        };
        (Tracked::new(layouts), catalogue)
    })
}

/// The envelope of a request to the proxy, and the decision on it for callers of two scopes.
pub fn request(bytes: &[u8]) {
    let Ok(asked) = Asked::parse(bytes) else { return };
    let (_, catalogue) = world();
    decide(&asked, &Scope::Full, catalogue);
    let limits = Limits { projects: Some([1].into()), ..Limits::default() };
    decide(&asked, &Scope::Limited(limits), catalogue);
    WriteEffects::of_request(&asked.request.method, &asked.request.argument, catalogue);
}

/// Arguments and answers in the wire form.
pub fn wire(bytes: &[u8]) {
    let Ok(value) = api3::json::parse(bytes) else { return };
    // What is wrong with them does not matter here, only that it is said.
    let _ = (Read::from_wire(&value), Summarize::from_wire(&value), BatchItem::list(&value));
    if let Ok(results) = api3::results(value) {
        let _ = ReadAnswer::from_wire(results);
    }
}

/// An entry of the event log.
pub fn entry(bytes: &[u8]) {
    let Ok(serde_json::Value::Object(entry)) = api3::json::parse(bytes) else { return };
    extract(&entry, &world().0);
}

/// Filters, orders and lists of fields as people write them, and in the wire form.
pub fn filter(bytes: &[u8]) {
    if let Ok(value) = api3::json::parse(bytes) {
        let _ = RawFilter::from_wire(&value);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (RawFilter::parse(text, false), parse_order(text), parse_fields(text));
    }
}

/// The entity config of a type.
pub fn entity_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(file) = EntityConfigFile::parse(Path::new("Shot.json"), text.to_owned()) {
        let _ = TypeLayout::check(&file, &world().1.schema);
    }
}

/// The YAML of a pipeline.
pub fn pipeline(bytes: &[u8]) {
    let Ok(document) = Document::yaml("fuzz.yaml", bytes) else { return };
    let mut problems = Problems::new();
    let _: Option<PipelineFile> = document.decode("", document.value(), &mut problems);
}
