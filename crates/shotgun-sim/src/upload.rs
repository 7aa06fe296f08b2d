//! What the site answers besides `/api3/json`: uploads, downloads, pictures.
//!
//! Forms are answered by text whose first letter says how it went: `1` well, `2` a
//! picture that is not made yet, anything else badly. Files are given to everybody
//! who knows their number: the official client sends its cookie for `host:port`,
//! where Python never sends it to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderValue, Method, Request as HttpRequest, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::attach::Incoming;
use super::cell::{Cell, Key};
use super::event::Actor;
use super::files::{File, Transfer};
use super::form_data::{Form, Upload};
use super::site::Site;
use super::write::{NOT_SIMULATED, not_simulated};
use shotgun_model::api3::{Auth, Fault, Request};
use shotgun_model::entity::{EntityRef, Timestamp};

/// The longest request that is read.
const LONGEST: usize = 256 << 20;
/// What stands for pictures without an upload: one grey point.
const PICTURE: &[u8] = include_bytes!("picture.png");
/// Where a picture is until it is made.
pub const PLACEHOLDER: &str = "/images/status/transient/thumbnail_pending.png";

/// Answers a request to any other path than that of the methods.
pub async fn serve(site: &Arc<Site>, request: HttpRequest<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let after = |mark: &str| path.split_once(mark).map(|(_, rest)| rest.to_owned());
    if head.method == Method::GET || head.method == Method::HEAD {
        return if path.ends_with(PLACEHOLDER) {
            bytes("image/png", None, Bytes::from_static(PICTURE))
        } else if let Some(id) = after("/file_serve/attachment/") {
            download(site, &id)
        } else if let Some(id) = after("/thumbnails/") {
            picture(site, id.split('.').next().unwrap_or_default())
        } else {
            text(StatusCode::NOT_FOUND, "not found".to_owned())
        };
    }
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let endpoint = match head.method {
        Method::POST => after("/upload/").map(Endpoint::Form),
        Method::PUT => after("/storage/").map(|token| Endpoint::Storage(token, part_number(head.uri.query()))),
        _ => None,
    };
    let Some(endpoint) = endpoint else { return text(StatusCode::NOT_FOUND, "not found".to_owned()) };
    let Ok(body) = to_bytes(body, LONGEST).await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long".to_owned());
    };
    let site = Arc::clone(site);
    // Writing waits for the rows, which must not hold up the connections of others.
    let work = tokio::task::spawn_blocking(move || match endpoint {
        Endpoint::Form(name) => posted(&site, &name, &content_type, &body),
        Endpoint::Storage(token, part) => stored(&site, &token, part, content_type, &body),
    });
    work.await.unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

enum Endpoint {
    Form(String),
    Storage(String, u32),
}

fn part_number(query: Option<&str>) -> u32 {
    query.and_then(|query| query.strip_prefix("part=")).and_then(|part| part.parse().ok()).unwrap_or(1)
}

fn posted(site: &Site, name: &str, content_type: &str, body: &Bytes) -> Response<Body> {
    site.requests.note(name, None);
    let answer = match Form::parse(content_type, body) {
        Some(form) => answer(site, name, &form),
        None => Err(Fault::malformed(name, "the form cannot be read")),
    };
    text(
        StatusCode::OK,
        answer.unwrap_or_else(|fault| {
            if fault.message.starts_with(NOT_SIMULATED) {
                site.requests.refuse(name);
            }
            // A fault that begins with a digit would be taken for another answer.
            format!("0\n{}\n", fault.message)
        }),
    )
}

fn answer(site: &Site, name: &str, form: &Form) -> Result<String, Fault> {
    let auth: Map<_, _> = form.texts().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
    let auth = Auth::from_wire(&auth.into()).map_err(|words| Fault::malformed(name, words))?;
    let actor = site.authenticate(&auth)?;
    site.finish_pictures();
    may_change(site, &actor, form)?;
    match name {
        "publish_thumbnail" => {
            let file = incoming(form, form.file("thumb_image").ok_or_else(|| missing(name, "thumb_image"))?);
            publish(site, actor, form, file)
        }
        "upload_file" => {
            let file = incoming(form, form.file("file").ok_or_else(|| missing(name, "file"))?);
            attach(site, actor, form, file)
        }
        "share_thumbnail" => share(site, actor, form),
        "api_get_upload_link_info" => Ok(open_transfer(site, form)),
        "api_get_upload_link_for_part" => part_address(site, form),
        "api_complete_multipart_upload" => complete(site, form),
        "api_link_file" => link(site, actor, form),
        other => Err(not_simulated(format!("/upload/{other}"))),
    }
}

/// Refuses files for entities that the one who asks may not change.
fn may_change(site: &Site, actor: &Actor, form: &Form) -> Result<(), Fault> {
    let one = form.text("entity_type").map(|entity_type| (entity_type, form.text("entity_id").unwrap_or_default()));
    let shared = form.text("entities").unwrap_or_default().split(',').filter_map(|text| text.rsplit_once('_'));
    for (entity_type, id) in one.into_iter().chain(shared) {
        let argument = json!({"type": entity_type, "id": id.parse::<i64>().ok(), "fields": []});
        site.permitted(actor, &Request { method: "update".to_owned(), auth: None, argument })?;
    }
    Ok(())
}

fn missing(method: &str, parameter: &str) -> Fault {
    Fault::malformed(method, format!("'{parameter}' missing"))
}

fn incoming(form: &Form, file: &Upload) -> Incoming {
    Incoming {
        name: file.name.clone(),
        content_type: file.content_type.clone(),
        bytes: file.bytes.as_ref().into(),
        ..described(form)
    }
}

/// Reads what a form says about a file that is somewhere else.
fn described(form: &Form) -> Incoming {
    let tags = form.text("tag_list").unwrap_or_default().split(',').map(str::trim);
    Incoming {
        name: String::new(),
        content_type: String::new(),
        bytes: Arc::default(),
        display_name: form.text("display_name").map(str::to_owned),
        tags: tags.filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        created_at: form.text("created_at").and_then(Timestamp::parse),
    }
}

fn entity(site: &Site, form: &Form) -> Result<Key, Fault> {
    let entity_type = form.text("entity_type").ok_or_else(|| missing("upload", "entity_type"))?;
    let id = form.text("entity_id").and_then(|id| id.parse().ok()).ok_or_else(|| missing("upload", "entity_id"))?;
    existing(site, &EntityRef::new(entity_type, id))
}

fn existing(site: &Site, target: &EntityRef) -> Result<Key, Fault> {
    let world = site.rows();
    world.key(target).filter(|key| world.is_active(*key)).ok_or_else(|| {
        let EntityRef { entity_type, id } = target;
        Fault::data("upload", format!("CRUD ERROR #3: Entity of type [{entity_type}] with id={id} does not exist."))
    })
}

fn field_of(form: &Form) -> &'static str {
    if form.flag("filmstrip") || form.flag("filmstrip_thumbnail") { "filmstrip_image" } else { "image" }
}

fn publish(site: &Site, actor: Actor, form: &Form, file: Incoming) -> Result<String, Fault> {
    let entity = entity(site, form)?;
    let ready_at = Timestamp(site.clock.now().0 + site.thumbnail_delay.as_secs() as i64);
    let key = site.write(actor, |writer| writer.picture(entity, field_of(form), file, ready_at))?;
    Ok(format!("1:{}\n", key.id))
}

fn attach(site: &Site, actor: Actor, form: &Form, file: Incoming) -> Result<String, Fault> {
    let entity = entity(site, form)?;
    let key = site.write(actor, |writer| writer.attach(entity, form.text("field_name"), file))?;
    Ok(format!("1:{}\n", key.id))
}

fn share(site: &Site, actor: Actor, form: &Form) -> Result<String, Fault> {
    let named = |text: &str| {
        let (entity_type, id) = text.rsplit_once('_')?;
        Some(EntityRef::new(entity_type, id.parse().ok()?))
    };
    let bad = |text: &str| Fault::malformed("share_thumbnail", format!("no entity: {text}"));
    let source = form.text("source_entity").ok_or_else(|| missing("share_thumbnail", "source_entity"))?;
    let source = existing(site, &named(source).ok_or_else(|| bad(source))?)?;
    let targets = form.text("entities").ok_or_else(|| missing("share_thumbnail", "entities"))?;
    let targets = targets.split(',').map(|text| existing(site, &named(text).ok_or_else(|| bad(text))?));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let field = field_of(form);
    let attachment = match site.rows().named(source, field) {
        Cell::Int(attachment) => Some(*attachment),
        _ => None,
    };
    if attachment.is_some_and(|attachment| site.rows().kept.files.is_pending(attachment)) {
        let words = "source_entity image is a transient thumbnail that cannot be shared. \
            Try again later, when the final thumbnail is available";
        return Ok(format!("2\n{words}\n"));
    }
    let shared = attachment.and_then(|attachment| u32::try_from(attachment).ok());
    site.write(actor, |writer| targets.iter().try_for_each(|target| writer.share_picture(*target, field, shared)))?;
    Ok(format!("1:{}\n", attachment.map(|id| id.to_string()).unwrap_or_default()))
}

fn open_transfer(site: &Site, form: &Form) -> String {
    let token = format!("{:032x}", rand::random::<u128>());
    let transfer = Transfer { name: form.text("filename").unwrap_or("file").to_owned(), ..Transfer::default() };
    let mut world = site.rows_mut();
    world.kept.files.transfers.insert(token.clone(), transfer);
    let (host, now) = (&world.media_host, site.clock.now());
    let upload_type = form.text("upload_type").unwrap_or("Attachment");
    let upload_id = if form.flag("multipart_upload") { token.as_str() } else { "" };
    format!("1\n{host}/storage/{token}\n{now}\n{upload_type}\n{upload_id}\n")
}

fn part_address(site: &Site, form: &Form) -> Result<String, Fault> {
    let method = "api_get_upload_link_for_part";
    let token = form.text("upload_id").ok_or_else(|| missing(method, "upload_id"))?;
    let part = form.text("part_number").ok_or_else(|| missing(method, "part_number"))?;
    let world = site.rows();
    if !world.kept.files.transfers.contains_key(token) {
        return Err(Fault::data(method, "no such upload"));
    }
    Ok(format!("1\n{}/storage/{token}?part={part}\n", world.media_host))
}

fn complete(site: &Site, form: &Form) -> Result<String, Fault> {
    let method = "api_complete_multipart_upload";
    let token = form.text("upload_id").ok_or_else(|| missing(method, "upload_id"))?;
    let world = site.rows();
    let transfer = world.kept.files.transfers.get(token).ok_or_else(|| Fault::data(method, "no such upload"))?;
    let tags: Vec<&str> = transfer.tags.values().map(String::as_str).collect();
    let given: Vec<&str> = form.text("etags").unwrap_or_default().split(',').collect();
    if tags != given {
        return Err(Fault::data(method, format!("the parts are {tags:?}, not {given:?}")));
    }
    Ok("1\n".to_owned())
}

/// Attaches a file that was put into the storage before.
fn link(site: &Site, actor: Actor, form: &Form) -> Result<String, Fault> {
    let method = "api_link_file";
    let info = form.text("upload_link_info").ok_or_else(|| missing(method, "upload_link_info"))?;
    let mut lines = info.lines().skip(1);
    let token = lines.next().and_then(|address| address.rsplit('/').next()).unwrap_or_default();
    let thumbnail = lines.nth(1) == Some("Thumbnail");
    let transfer = site.rows_mut().kept.files.transfers.remove(token);
    let transfer = transfer.filter(|transfer| !transfer.parts.is_empty());
    let transfer = transfer.ok_or_else(|| Fault::data(method, "nothing was uploaded"))?;
    let bytes = transfer.bytes();
    let file = Incoming { name: transfer.name, content_type: transfer.content_type, bytes, ..described(form) };
    if thumbnail { publish(site, actor, form, file) } else { attach(site, actor, form, file) }
}

fn stored(site: &Site, token: &str, part: u32, content_type: String, body: &Bytes) -> Response<Body> {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let mut world = site.rows_mut();
    let Some(transfer) = world.kept.files.transfers.get_mut(token) else {
        return text(StatusCode::FORBIDDEN, "no such upload".to_owned());
    };
    transfer.content_type = content_type;
    transfer.parts.insert(part, body.as_ref().into());
    transfer.tags.insert(part, tag.clone());
    let mut response = text(StatusCode::OK, String::new());
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Gives a file away. What was not uploaded is refused with 400, as on a site.
fn download(site: &Site, id: &str) -> Response<Body> {
    let world = site.rows();
    let file = id.parse().ok().and_then(|id: i64| world.kept.files.stored.get(&id));
    match file {
        Some(File { name, content_type, bytes: held }) => bytes(content_type, Some(name), Bytes::copy_from_slice(held)),
        None => text(StatusCode::BAD_REQUEST, "no such attachment, or none that was uploaded".to_owned()),
    }
}

fn picture(site: &Site, id: &str) -> Response<Body> {
    let world = site.rows();
    match id.parse().ok().and_then(|id: i64| world.kept.files.stored.get(&id)) {
        Some(file) => bytes(&file.content_type, None, Bytes::copy_from_slice(&file.bytes)),
        None => bytes("image/png", None, Bytes::from_static(PICTURE)),
    }
}

fn text(status: StatusCode, words: String) -> Response<Body> {
    let mut response = bytes("text/plain; charset=utf-8", None, words.into());
    *response.status_mut() = status;
    response
}

fn bytes(content_type: &str, name: Option<&str>, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    let disposition = name.map(|name| HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")));
    if let Some(Ok(disposition)) = disposition {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}
