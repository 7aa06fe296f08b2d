//! The preferences of the site that programs may read: those of a stock site.

use serde_json::{Map, Value, json};

/// Returns the preferences that are named, all of them when none is; unknown
/// names are dropped.
pub fn read(argument: &Value) -> Value {
    let names = argument.get("prefs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let wanted = |name: &String| names.is_empty() || names.iter().any(|wanted| wanted.as_str() == Some(name));
    stock().into_iter().filter(|(name, _)| wanted(name)).collect::<Map<_, _>>().into()
}

fn stock() -> Map<String, Value> {
    let preferences = json!({
        "date_component_order": "month_day",
        "duration_units": "days",
        "format_currency_fields_decimal_options": "$1,000.99",
        "format_currency_fields_display_dollar_sign": false,
        "format_currency_fields_negative_options": "- $1,000",
        "format_date_fields": "08/04/22 OR 04/08/22 (depending on the Month order preference)",
        "format_float_fields": "9,999.99",
        "format_float_fields_rounding": "9.999999",
        "format_footage_fields": "10-05",
        "format_number_fields": "1,000",
        "format_time_hour_fields": "12 hour",
        "hours_per_day": 8.0,
        "support_local_storage": true,
        "enable_rv_integration": true,
        "enable_shotgun_review_for_rv": false,
        "view_master_settings": "{}",
        "creative_review_settings": "{}",
    });
    preferences.as_object().cloned().unwrap_or_default()
}
