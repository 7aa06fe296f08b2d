//! Answers of the ops listener that refuse a request.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

pub(super) async fn not_found(uri: axum::http::Uri) -> Response {
    let message = format!(
        "there is nothing at {}; there are /, /metrics, /livez, /readyz, /api/v1/status, /api/v1/events, \
         /api/v1/runs, /api/v1/dead-letters, /api/v1/breakers and the control API \
         (docs/reference/control-api.md)",
        uri.path()
    );
    refuse(StatusCode::NOT_FOUND, "not_found", &message)
}

pub(super) fn refuse(code: StatusCode, class: &str, message: &str) -> Response {
    (code, Json(json!({"error": {"class": class, "message": message}}))).into_response()
}
