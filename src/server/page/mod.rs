//! The files of the status page: part of the program, and nothing from anywhere else.
//!
//! `index.html`, `page.css`, and the scripts `format.js` (numbers, times, nodes), `act.js`
//! (what an operator does), `run.js` (a run, opened), `parts.js` (the sections) and `page.js`
//! (the stream, the plot, keys). `vendor` is uPlot
//! 1.6.32 as its authors publish it (`docs/THIRD_PARTY.md`).

use axum::extract::Path;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use super::refusal::not_found;

/// What the page may load: its own files.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Every file besides the page itself: its name in the address, its type, its text.
const FILES: &[(&str, &str, &str)] = &[
    ("page.css", CSS, include_str!("page.css")),
    ("uplot.css", CSS, include_str!("vendor/uPlot.min.css")),
    ("uplot.js", JAVASCRIPT, include_str!("vendor/uPlot.iife.min.js")),
    ("format.js", JAVASCRIPT, include_str!("format.js")),
    ("act.js", JAVASCRIPT, include_str!("act.js")),
    ("run.js", JAVASCRIPT, include_str!("run.js")),
    ("parts.js", JAVASCRIPT, include_str!("parts.js")),
    ("page.js", JAVASCRIPT, include_str!("page.js")),
];

/// Answers with the page.
pub(super) async fn index() -> Response {
    answer("text/html; charset=utf-8", include_str!("index.html"))
}

/// Answers with one of its files.
pub(super) async fn file(Path(name): Path<String>, uri: Uri) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, content_type, text)) => answer(content_type, text),
        None => not_found(uri).await,
    }
}

fn answer(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The program may be replaced at any moment, and its page with it.
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, text).into_response()
}
