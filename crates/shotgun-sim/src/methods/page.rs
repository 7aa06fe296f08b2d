//! The export of a page of the web interface.
//!
//! A page can be exported when a user marked it so in the web interface. Nobody
//! can do that here, so no page is available, in the words of a site.

use serde_json::Value;

use shotgun_model::api3::Fault;

/// Refuses to export a page.
pub fn export(argument: &Value) -> Result<Value, Fault> {
    let missing = |parameter: &str| argument.get(parameter).is_none_or(Value::is_null);
    if missing("format") {
        return Err(Fault::malformed("export_page", "'format' missing"));
    }
    if missing("page_id") {
        return Err(Fault::malformed("export_page", "'page_id' missing"));
    }
    Err(Fault::new(Fault::DATA, format!("Export for Page id={} not available", argument["page_id"])))
}
