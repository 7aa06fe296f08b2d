//! The methods of `/api3/json`.

use serde_json::{Map, Value, json};

use super::cell::{Cell, Key};
use super::encode::{Encoder, columns};
use super::event::Actor;
use super::methods;
use super::presets;
use super::read::find;
use super::scenario::RawEvent;
use super::schema::TypeId;
use super::site::Site;
use super::summarize;
use super::world::World;
use super::write::{NOT_SIMULATED, Writer, not_simulated, unknown_type};
use shotgun_model::api3::{Auth, BatchItem, Create, Delete, Fault, PagingInfo, Read, Request, Revive, Update};
use shotgun_model::entity::{EntityType, fold};
use shotgun_model::filter::{Page, Query};
use shotgun_model::schema::{FaultKind, FilterFault};

/// The version that the site says it has.
const VERSION: [u32; 3] = [8, 89, 0];

impl Site {
    /// Answers a request as a site does: with the results, or with a fault.
    pub fn answer(&self, request: &Result<Request, Fault>) -> Vec<u8> {
        let answer = request.as_ref().map_err(Clone::clone).and_then(|request| self.run(request));
        answer.unwrap_or_else(|fault| {
            if fault.message.starts_with(NOT_SIMULATED) {
                self.requests.refuse(request.as_ref().map_or("", |request| &request.method));
            }
            fault.to_wire().to_string().into_bytes()
        })
    }

    fn run(&self, request: &Request) -> Result<Vec<u8>, Fault> {
        if request.method == "info" {
            return Ok(self.info().to_string().into_bytes());
        }
        let auth = request.auth.as_ref().ok_or_else(|| Fault::new(Fault::AUTHENTICATION, "Authentication required"))?;
        self.run_as(self.authenticate(auth)?, request)
    }

    /// Answers a request of a known user.
    pub(super) fn run_as(&self, actor: Actor, request: &Request) -> Result<Vec<u8>, Fault> {
        self.finish_pictures();
        let request = &*self.permitted(&actor, request)?;
        let results = match request.method.as_str() {
            "read" => self.run_read(&request.argument, self.page_limit, Some(actor.user))?,
            "summarize" => summarize::run(
                &self.view(request.argument["type"].as_str().unwrap_or_default()),
                &request.argument,
                self.clock.now(),
            )?,
            "create" => self.run_create(actor, &Create::from_wire(&request.argument)?)?,
            "update" => self.run_update(actor, &Update::from_wire(&request.argument)?)?,
            "batch" => self.run_batch(actor, &BatchItem::list(&request.argument)?)?,
            _ => self.run_small(actor, request)?.to_string().into_bytes(),
        };
        Ok([b"{\"results\":", results.as_slice(), b"}"].concat())
    }

    fn run_small(&self, actor: Actor, request: &Request) -> Result<Value, Fault> {
        let argument = &request.argument;
        match request.method.as_str() {
            "delete" => {
                let Delete { entity_type, id } = Delete::from_wire(argument)?;
                self.write(actor, |writer| writer.delete(&entity_type, id)).map(Value::from)
            }
            "revive" => {
                let Revive { entity_type, id } = Revive::from_wire(argument)?;
                self.write(actor, |writer| writer.revive(&entity_type, id)).map(Value::from)
            }
            "get_session_token" => Ok(json!({"session_id": self.new_session(&actor)})),
            other => methods::run(self, &actor, other, argument),
        }
    }

    /// Makes the pictures whose time has come.
    pub(super) fn finish_pictures(&self) {
        let due = self.rows().kept.files.due(self.clock.now());
        for attachment in due {
            let actor = self.rows().kept.files.pending.get(&attachment).map(|pending| pending.actor.clone());
            let finish = |writer: &mut Writer<'_>| {
                writer.finish_picture(attachment);
                Ok(())
            };
            // It refuses nothing; when another request was faster there is nothing to do.
            let _ = actor.map(|actor| self.write(actor, finish));
        }
    }

    fn info(&self) -> Value {
        json!({
            "version": VERSION, "full_version": [8, 89, 0, 9724], "api_max_entities_per_page": self.page_limit,
            "s3_uploads_enabled": self.direct_uploads, "s3_direct_uploads_enabled": self.direct_uploads,
            "s3_enabled_upload_types": if self.direct_uploads { json!({"*": "*"}) } else { json!({}) },
            "user_authentication_method": "default", "unified_login_flow_enabled": false,
            "authentication_app_session_launcher_enabled": false, "totango_site_id": "0",
            "totango_site_name": "com_shotgunstudio_simulated", "sgcache_sim": true})
    }

    /// Answers `read`: the results, as JSON text.
    pub(super) fn run_read(&self, argument: &Value, limit: u32, viewer: Option<Key>) -> Result<Vec<u8>, Fault> {
        let read = Read::from_wire(argument)?;
        if read.paging.entities_per_page > limit {
            let size = read.paging.entities_per_page;
            let words = format!("'paging' 'entities_per_page' must be at most {limit}: {size}");
            return Err(Fault::malformed("read", words));
        }
        let world = self.view(read.entity_type.as_str());
        self.read_from(&world, read, viewer)
    }

    /// Answers `read` from these rows.
    pub(super) fn read_from(&self, world: &World, read: Read, viewer: Option<Key>) -> Result<Vec<u8>, Fault> {
        let ty = type_id(world, "read", &read.entity_type)?;
        let filter = world.schema.filter(&read.entity_type, &read.filter).map_err(|fault| refused("read", fault))?;
        let query = Query {
            filter: world.readings.absolute(&filter, self.clock.now()),
            fields: Vec::new(),
            order: world.schema.order(&read.entity_type, &read.order),
            page: Page { size: read.paging.entities_per_page, number: read.paging.current_page },
            only: read.only,
            include_archived_projects: read.include_archived_projects,
            entity_type: read.entity_type,
        };
        let query = match &read.presets {
            Some(presets) => presets::narrow(world, ty, presets, query)?,
            None => query,
        };
        let found = find(world, ty, &query, read.paging_info == PagingInfo::WithCounts);
        let columns = columns(world, ty, &read.fields);
        let encoder = Encoder::new(world).seen_by(viewer);
        let mut out = Vec::with_capacity(64 + found.rows.len() * (32 + 40 * columns.len()));
        out.extend_from_slice(b"{\"entities\":[");
        for (index, key) in found.rows.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            encoder.row(&mut out, *key, &columns);
        }
        out.push(b']');
        let info = paging_info(read.paging_info, query.page, found.has_next_page, found.total);
        if let Some(info) = info {
            out.extend_from_slice(format!(",\"paging_info\":{info}").as_bytes());
        }
        out.push(b'}');
        Ok(out)
    }

    fn run_create(&self, actor: Actor, request: &Create) -> Result<Vec<u8>, Fault> {
        if request.entity_type == "EventLogEntry" {
            return self.create_event(&actor, request);
        }
        self.write(actor, |writer| {
            let key = writer.create(request, None)?;
            Ok(created(writer.world, key, request))
        })
    }

    /// Adds an entry of a tool's own to the event log, which is there whether or not
    /// the site logs what the tool does.
    fn create_event(&self, actor: &Actor, request: &Create) -> Result<Vec<u8>, Fault> {
        let mut event = Map::new();
        for write in &request.fields {
            match write.field.as_str() {
                "event_type" | "attribute_name" | "entity" | "project" | "description" | "session_uuid" => {
                    event.insert(write.field.clone(), write.value.clone());
                }
                // Whether a tool may set it is an open row of the reference.
                "meta" => return Err(not_simulated("create of EventLogEntry with meta")),
                other => return Err(Fault::data("create", format!("EventLogEntry.{other} is not editable."))),
            }
        }
        let mut event: RawEvent = serde_json::from_value(event.into()).map_err(|error| Fault::data("create", error))?;
        event.user = Some(self.rows().reference(actor.user));
        event.session_uuid = event.session_uuid.or_else(|| actor.session.clone());
        let id = self.put_event(&event);
        let world = self.rows();
        Ok(created(&world, Key { ty: world.event_type, id }, request))
    }

    fn run_update(&self, actor: Actor, request: &Update) -> Result<Vec<u8>, Fault> {
        self.write(actor, |writer| {
            let key = writer.update(request)?;
            Ok(updated(writer, key, request))
        })
    }

    fn run_batch(&self, actor: Actor, items: &[BatchItem]) -> Result<Vec<u8>, Fault> {
        self.write(actor, |writer| {
            let mut out = vec![b'['];
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                let answer = match item {
                    BatchItem::Create(request) => {
                        writer.create(request, None).map(|key| created(writer.world, key, request))
                    }
                    BatchItem::Update(request) => writer.update(request).map(|key| updated(writer, key, request)),
                    BatchItem::Delete(request) => {
                        writer.delete(&request.entity_type, request.id).map(|done| done.to_string().into_bytes())
                    }
                };
                let wrap = |fault: Fault| {
                    let words =
                        format!("request with index {index} failed.  All requests rolled back.\n{}", fault.message);
                    if fault.message.starts_with(NOT_SIMULATED) { fault } else { Fault::data("batch", words) }
                };
                out.extend(answer.map_err(wrap)?);
            }
            out.push(b']');
            Ok(out)
        })
    }

    /// Finds out who asks.
    pub(super) fn authenticate(&self, auth: &Auth) -> Result<Actor, Fault> {
        let world = self.rows();
        let mut actor = if let Some(login) = auth.user_login() {
            let user = account(&world, "HumanUser", "login", "password_proxy", login, auth.user_password());
            let user = user.ok_or_else(|| denied(format!("Can't authenticate user '{login}'.")))?;
            Actor { user, sudo: None, logs: true, session: None }
        } else if let Some(name) = auth.script_name() {
            let script = account(&world, "ApiUser", "firstname", "salted_password", name, auth.script_key());
            let user = script.ok_or_else(|| denied(format!("Can't authenticate script '{name}'")))?;
            let logs = world.named(user, "generate_event_log_entries") == &Cell::Bool(true);
            Actor { user, sudo: None, logs, session: None }
        } else {
            let sessions = self.sessions.lock();
            let actor = auth.session_token().and_then(|token| sessions.get(token)).cloned();
            let actor = actor.filter(|actor| world.is_active(actor.user));
            actor.ok_or_else(|| denied("The session has expired.".to_owned()))?
        };
        if let Some(login) = auth.sudo_as_login() {
            actor = sudo(&world, actor, login)?;
        }
        actor.session = auth.session_uuid().map(str::to_owned);
        Ok(actor)
    }

    /// Ends every session, as inactivity does on a site.
    pub fn end_sessions(&self) {
        self.sessions.lock().clear();
    }

    fn new_session(&self, actor: &Actor) -> String {
        let token = format!("{:032x}", rand::random::<u128>());
        self.sessions.lock().insert(token.clone(), actor.clone());
        token
    }
}

fn denied(words: String) -> Fault {
    Fault::new(Fault::AUTHENTICATION, words)
}

/// Finds the active account with this name, if the secret is its own.
fn account(world: &World, ty: &str, name: &str, secret: &str, wanted: &str, given: Option<&str>) -> Option<Key> {
    let ty = world.layout.type_id(ty)?;
    let is_named = |key: &Key| world.named(*key, name).as_text().is_some_and(|text| fold(text) == fold(wanted));
    world.active_keys(ty).filter(is_named).find(|key| given.is_some() && world.named(*key, secret).as_text() == given)
}

fn sudo(world: &World, actor: Actor, login: &str) -> Result<Actor, Fault> {
    let refuse =
        |why: String| Err(Fault::new(Fault::DATA, format!("The user does not have permission to 'sudo': {why}")));
    if world.layout.ty(actor.user.ty).name != "ApiUser" {
        return refuse(format!("as '{login}'"));
    }
    let Some(ty) = world.layout.type_id("HumanUser") else { return refuse(login.to_owned()) };
    match world.active_keys(ty).find(|key| world.named(*key, "login").as_text() == Some(login)) {
        Some(user) => Ok(Actor { user, sudo: Some(actor.user), ..actor }),
        None => refuse(format!("no user has the login '{login}'")),
    }
}

pub(super) fn type_id(world: &World, method: &str, entity_type: &EntityType) -> Result<TypeId, Fault> {
    world.layout.type_id(entity_type.as_str()).ok_or_else(|| unknown_type(world, method))
}

pub(super) fn refused(method: &str, fault: FilterFault) -> Fault {
    match fault.kind {
        FaultKind::Unproven => not_simulated(fault.message),
        _ => Fault::data(method, fault.message),
    }
}

fn created(world: &World, key: Key, request: &Create) -> Vec<u8> {
    let written = request.fields.iter().map(|write| write.field.clone());
    let names: Vec<_> = written.chain(request.return_fields.iter().cloned()).collect();
    let mut out = Vec::new();
    Encoder::new(world).row(&mut out, key, &columns(world, key.ty, &names));
    out
}

fn updated(writer: &Writer<'_>, key: Key, request: &Update) -> Vec<u8> {
    let names: Vec<_> = request.fields.iter().map(|write| write.field.clone()).collect();
    let mut out = Vec::new();
    Encoder::with_valid_links(writer.world).row(&mut out, key, &columns(writer.world, key.ty, &names));
    out
}

fn paging_info(wanted: PagingInfo, page: Page, has_next_page: bool, total: Option<usize>) -> Option<Value> {
    match wanted {
        PagingInfo::None => None,
        PagingInfo::WithoutCounts => Some(json!({
            "current_page": page.number, "entities_per_page": page.size, "has_next_page": has_next_page})),
        PagingInfo::WithCounts => {
            let total = total.unwrap_or_default();
            let pages = total.div_ceil(page.size.max(1) as usize);
            let current = if total == 0 { 0 } else { page.number };
            Some(json!({
                "current_page": current, "page_count": pages, "entity_count": total, "entities_per_page": page.size}))
        }
    }
}
