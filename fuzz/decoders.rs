//! What each fuzz target does with its bytes: whatever they are, it neither panics nor
//! grows without bound. The tests of the project replay the kept corpus through these
//! same functions.

use std::path::Path;
use std::sync::OnceLock;

use sgcache::api3::{self, BatchItem, Read, ReadAnswer, Summarize};
use sgcache::entity_config::{EntityConfigFile, TypeLayout};
use sgcache::filter::{RawFilter, parse_fields, parse_order};
use sgcache::pipeline::file::PipelineFile;
use sgcache::proxy::write_effects::WriteEffects;
use sgcache::proxy::{Asked, Catalogue, PendingWrites, Scope, decide};
use sgcache::schema::Schema;
use sgcache::state::SiteTime;
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

/// The envelope of a request to the proxy, and the decision on it.
pub fn request(bytes: &[u8]) {
    let Ok(asked) = Asked::parse(bytes) else { return };
    let catalogue = Catalogue {
        schema: Default::default(),
        schema_is_current: true,
        stored: Default::default(),
        standing: Default::default(),
        pending_writes: PendingWrites::default(),
        now: SiteTime(0),
        settings: Default::default(),
        max_page: 500,
        site_is_down: false,
    };
    decide(&asked, &Scope::Full, &catalogue);
    WriteEffects::of_request(&asked.request.method, &asked.request.argument, &catalogue);
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
    static TRACKED: OnceLock<Tracked> = OnceLock::new();
    extract(&entry, TRACKED.get_or_init(|| Tracked::new([])));
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
        let _ = TypeLayout::check(&file, &Schema::default());
    }
}

/// The YAML of a pipeline.
pub fn pipeline(bytes: &[u8]) {
    let Ok(document) = Document::yaml("fuzz.yaml", bytes) else { return };
    let mut problems = Problems::new();
    let _: Option<PipelineFile> = document.decode("", document.value(), &mut problems);
}
