//! The files of the page. Browsers may run nothing but these: the content security policy allows no other source, and no script
//! or style within a document.

use crate::api::respond::{ApiError, ApiResult};
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

/// In the binary; a debug build reads them from the folder of the sources.
#[derive(RustEmbed)]
#[folder = "src/api/ui/page"]
struct Files;

/// `GET /ui`. The files of the page refer to each other by relative paths.
pub(super) async fn redirect() -> Redirect {
    Redirect::to("/ui/")
}

/// `GET /ui/`
pub(super) async fn index(headers: HeaderMap) -> ApiResult<Response> {
    serve("index.html", &headers)
}

/// `GET /ui/{file}`
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
    serve(&name, &headers)
}

fn serve(name: &str, headers: &HeaderMap) -> ApiResult<Response> {
    let file = Files::get(name).filter(|_| !name.contains(['/', '\\']));
    let file = file.ok_or_else(|| ApiError::NotFoundPlain(format!("the web page has no file {name}")))?;
    let tag = format!("\"{}\"", const_hex::encode(file.metadata.sha256_hash()));
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the program may answer next time.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, fixed, [(header::ETAG, tag)]).into_response());
    }
    let EmbeddedFile { data, .. } = file;
    Ok((fixed, [(header::ETAG, tag), (header::CONTENT_TYPE, media_type(name).to_owned())], data).into_response())
}

/// Everything from this server only; images also from the page itself, for those that are in messages. No page may frame this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
