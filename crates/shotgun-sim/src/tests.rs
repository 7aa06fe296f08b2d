//! Tests of the site through the doors that other tests use too.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::site::Site;
use shotgun_model::api3::Request;
use shotgun_model::entity::Timestamp;

/// A site with one project, whose id is 1, and a clock that stands still.
pub(super) fn site() -> Arc<Site> {
    let site = Site::empty();
    site.clock.set(Timestamp::parse("2024-03-13T15:30:00Z").expect("a moment"));
    site.create("Project", json!({"name": "Demo"})).expect("a project");
    site
}

pub(super) fn project() -> Value {
    json!({"type": "Project", "id": 1})
}

pub(super) fn shot(site: &Site, code: &str) -> i64 {
    site.create("Shot", json!({"code": code, "project": project()})).expect("a shot")
}

pub(super) fn to(entity_type: &str, id: i64) -> Value {
    json!({"type": entity_type, "id": id})
}

/// Asks as the script does, and returns the body of the answer.
pub(super) fn call(site: &Site, method: &str, argument: Value) -> Value {
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let body = json!({"method_name": method, "params": [auth, argument]}).to_string();
    serde_json::from_slice(&site.answer(&Request::parse(body.as_bytes()))).expect("JSON")
}

pub(super) fn fault(site: &Site, method: &str, argument: Value) -> (i64, String) {
    let answer = call(site, method, argument);
    assert_eq!(answer["exception"], true, "{answer}");
    (answer["error_code"].as_i64().expect("a code"), answer["message"].as_str().expect("words").to_owned())
}

pub(super) fn read_one(site: &Site, entity_type: &str, id: i64, fields: &[&str]) -> Map<String, Value> {
    site.read(entity_type, &json!([["id", "is", id]]), fields).expect("a read").pop().expect("a row")
}

/// The events after `after`: type, attribute and entity, as one line each.
pub(super) fn events(site: &Site, after: i64) -> Vec<String> {
    let fields = ["event_type", "attribute_name", "entity"];
    let rows = site.read("EventLogEntry", &json!([["id", "greater_than", after]]), &fields).expect("a read");
    let line = |row: &Map<String, Value>| {
        let entity = row["entity"].as_object().map(|e| format!("{}:{}", e["type"].as_str().unwrap_or(""), e["id"]));
        let attribute = row["attribute_name"].as_str().map(|a| format!(".{a}")).unwrap_or_default();
        format!("{}{attribute} {}", row["event_type"].as_str().unwrap_or(""), entity.unwrap_or("null".into()))
    };
    rows.iter().map(line).collect()
}

pub(super) fn metas(site: &Site, after: i64) -> Vec<Value> {
    let rows = site.read("EventLogEntry", &json!([["id", "greater_than", after]]), &["meta"]).expect("a read");
    rows.into_iter().map(|mut row| row["meta"].take()).collect()
}

#[test]
fn a_create_logs_each_value_and_the_new_entity_last() {
    let site = site();
    let before = site.last_event_id().0;
    let id = shot(&site, "010_0010");
    assert_eq!(
        events(&site, before),
        [
            "Shotgun_Shot_Change.code Shot:1",
            "Shotgun_Shot_Change.project Shot:1",
            "Shotgun_Shot_Change.sg_status_list Shot:1",
            "Shotgun_Shot_New Shot:1",
        ]
    );
    let metas = metas(&site, before);
    assert_eq!(
        metas[0],
        json!({"type": "attribute_change", "entity_type": "Shot", "entity_id": id, "attribute_name": "code",
            "field_data_type": "text", "old_value": null, "new_value": "010_0010", "in_create": true})
    );
    assert_eq!(metas[3], json!({"type": "new_entity", "entity_type": "Shot", "entity_id": id}));
}

#[test]
fn an_update_logs_what_changed_and_stamps_the_row() {
    let site = site();
    let id = shot(&site, "010_0010");
    site.clock.set(Timestamp::parse("2024-03-14T08:00:00Z").expect("a moment"));
    let before = site.last_event_id().0;
    site.update("Shot", id, json!({"code": "010_0010", "sg_status_list": "ip"})).expect("an update");
    assert_eq!(events(&site, before), ["Shotgun_Shot_Change.sg_status_list Shot:1"]);
    let row = read_one(&site, "Shot", id, &["updated_at", "created_at", "updated_by"]);
    assert_eq!(row["updated_at"], "2024-03-14T08:00:00Z");
    assert_eq!(row["created_at"], "2024-03-13T15:30:00Z");
    assert_eq!(row["updated_by"], json!({"id": 1, "name": "sgcache", "type": "ApiUser"}));
}

#[test]
fn the_other_side_of_a_link_follows_and_its_entry_names_the_edited_one() {
    let site = site();
    let id = shot(&site, "010_0010");
    let before = site.last_event_id().0;
    let task = site
        .create("Task", json!({"content": "comp", "project": project(), "entity": to("Shot", id)}))
        .expect("a task");
    assert_eq!(
        events(&site, before)[..3],
        ["Shotgun_Task_Change.content Task:1", "Shotgun_Task_Change.entity Task:1", "Shotgun_Shot_Change.tasks Shot:1"]
    );
    let meta = metas(&site, before).swap_remove(2);
    assert_eq!(meta["entity_type"], "Task");
    assert_eq!(meta["entity_id"], task);
    assert_eq!(meta["actual_attribute_changed"], "Task.entity");
    assert_eq!(meta["original_event_log_entry_id"], before + 2);
    assert_eq!(meta["added"][0]["id"], task);
    let row = read_one(&site, "Shot", id, &["tasks"]);
    assert_eq!(row["tasks"], json!([{"id": task, "name": "comp", "type": "Task"}]));
}

#[test]
fn a_shot_that_goes_to_a_second_sequence_leaves_the_first() {
    let site = site();
    let id = shot(&site, "010_0010");
    let sequence = |code: &str, shots: Value| {
        site.create("Sequence", json!({"code": code, "project": project(), "shots": shots})).expect("a sequence")
    };
    let first = sequence("010", json!([to("Shot", id)]));
    let before = site.last_event_id().0;
    let second = sequence("020", json!([to("Shot", id)]));
    let changes: Vec<_> = events(&site, before).into_iter().filter(|line| line.contains(".s")).collect();
    assert!(changes.contains(&"Shotgun_Shot_Change.sg_sequence Shot:1".to_owned()), "{changes:?}");
    assert!(changes.contains(&"Shotgun_Sequence_Change.shots Sequence:1".to_owned()), "{changes:?}");
    assert_eq!(read_one(&site, "Sequence", first, &["shots"])["shots"], json!([]));
    assert_eq!(read_one(&site, "Shot", id, &["sg_sequence"])["sg_sequence"]["id"], second);
}

#[test]
fn lists_are_set_added_to_and_removed_from_with_their_connections() {
    let site = site();
    let id = shot(&site, "010_0010");
    let asset = |code: &str| site.create("Asset", json!({"code": code, "project": project()})).expect("an asset");
    let (tree, rock) = (asset("tree"), asset("rock"));
    site.update("Shot", id, json!({"assets": [to("Asset", tree), to("Asset", rock)]})).expect("an update");
    assert_eq!(site.count("AssetShotConnection"), 2);
    let argument = json!({"type": "Shot", "id": id, "fields": [
        {"field_name": "assets", "value": [to("Asset", rock)], "multi_entity_update_mode": "remove"}]});
    let answer = call(&site, "update", argument);
    assert_eq!(answer["results"]["assets"], json!([{"id": tree, "name": "tree", "type": "Asset", "valid": "valid"}]));
    assert_eq!(site.count("AssetShotConnection"), 1);
    assert_eq!(read_one(&site, "Asset", rock, &["shots"])["shots"], json!([]));
    // From the other side.
    site.update("Asset", rock, json!({"shots": [to("Shot", id)]})).expect("an update");
    let names: Vec<_> = read_one(&site, "Shot", id, &["assets"])["assets"].as_array().expect("a list").clone();
    assert_eq!(names.len(), 2);
    let rows = site.read("AssetShotConnection", &json!([["shot", "is", to("Shot", id)]]), &["asset"]).expect("rows");
    assert_eq!(rows.len(), 2);
}

#[test]
fn a_retired_shot_takes_its_versions_and_vanishes_from_links_and_events() {
    let site = site();
    let id = shot(&site, "010_0010");
    let version = site
        .create("Version", json!({"code": "v1", "project": project(), "entity": to("Shot", id)}))
        .expect("a version");
    let note = site
        .create("Note", json!({"subject": "n", "project": project(), "note_links": [to("Shot", id)]}))
        .expect("a note");
    let before = site.last_event_id().0;
    assert_eq!(site.retire("Shot", id), Ok(true));
    assert_eq!(site.retire("Shot", id), Ok(false));
    assert_eq!(
        events(&site, before),
        [
            "Shotgun_Version_Change.retirement_date null",
            "Shotgun_Version_Retirement null",
            "Shotgun_Shot_Change.retirement_date null",
            "Shotgun_Shot_Retirement null",
        ]
    );
    let meta = metas(&site, before).swap_remove(3);
    assert_eq!(meta["type"], "entity_retirement");
    assert_eq!(meta["display_name"], "010_0010");
    assert_eq!(meta["retirement_date"], "2024-03-13 15:30:00 UTC");
    assert_eq!(read_one(&site, "Note", note, &["note_links"])["note_links"], json!([]));
    assert!(events(&site, 0).iter().all(|line| !line.ends_with("Shot:1")), "old entries lose their entity");
    let retired = json!({"type": "Version", "return_fields": ["code"], "return_only": "retired",
        "paging": {"entities_per_page": 10, "current_page": 1}});
    assert_eq!(call(&site, "read", retired)["results"]["entities"][0]["id"], version);

    let before = site.last_event_id().0;
    assert_eq!(site.revive("Shot", id), Ok(true));
    assert_eq!(
        events(&site, before),
        [
            "Shotgun_Version_Change.retirement_date Version:1",
            "Shotgun_Shot_Change.retirement_date Shot:1",
            "Shotgun_Shot_Revival Shot:1",
        ]
    );
    assert_eq!(read_one(&site, "Version", version, &["entity"])["entity"]["name"], "010_0010");
}

#[test]
fn a_transaction_that_stays_open_is_unseen_and_its_events_come_late() {
    let site = site();
    let id = shot(&site, "010_0010");
    let mut open = site.begin(site.script());
    open.update("Shot", id, json!({"sg_status_list": "fin"})).expect("a write");
    let reserved = open.event_ids();
    site.update("Shot", id, json!({"description": "later"})).expect("an update");
    let seen = site.last_event_id();
    assert!(reserved[0] < seen, "{reserved:?} {seen}");
    assert_eq!(read_one(&site, "Shot", id, &["sg_status_list"])["sg_status_list"], "wtg");

    open.commit().expect("a commit");
    assert_eq!(read_one(&site, "Shot", id, &["sg_status_list"])["sg_status_list"], "fin");
    assert_eq!(site.last_event_id(), seen);
    let late = site.read("EventLogEntry", &json!([["id", "is", reserved[0].0]]), &["attribute_name"]).expect("a read");
    assert_eq!(late[0]["attribute_name"], "sg_status_list");
}

#[test]
fn a_transaction_that_is_rolled_back_leaves_a_gap() {
    let site = site();
    let before = site.last_event_id().0;
    let mut open = site.begin(site.script());
    let id = open.create("Shot", json!({"code": "x", "project": project()})).expect("a write");
    open.update("Shot", id, json!({"sg_status_list": "ip"})).expect("a write");
    assert_eq!(open.event_ids().len(), 5);
    open.roll_back();
    let next = shot(&site, "y");
    assert!(next > id, "an id is not used again");
    assert_eq!(events(&site, before).len(), 4);
    assert_eq!(site.last_event_id().0, before + 9);
    assert_eq!(site.count("Shot"), 1);
}

#[test]
fn a_batch_is_made_whole_or_not_at_all() {
    let site = site();
    let id = shot(&site, "010_0010");
    let create = json!({"request_type": "create", "type": "Shot", "return_fields": ["id"], "fields": [
        {"field_name": "code", "value": "b"}, {"field_name": "project", "value": project()}]});
    let update = |id: i64| {
        json!({"request_type": "update", "type": "Shot", "id": id, "fields": [
        {"field_name": "description", "value": "touched"}]})
    };
    let (code, words) = fault(&site, "batch", json!([create, update(id), update(999)]));
    assert_eq!(code, 104);
    assert_eq!(
        words,
        "API batch() request with index 2 failed.  All requests rolled back.\n\
         API update() CRUD ERROR #3: Entity of type [Shot] with id=999 does not exist."
    );
    assert_eq!(site.count("Shot"), 1);
    assert_eq!(read_one(&site, "Shot", id, &["description"])["description"], Value::Null);
    let answer =
        call(&site, "batch", json!([create, update(id), {"request_type": "delete", "type": "Shot", "id": id}]));
    assert_eq!(answer["results"][1], json!({"description": "touched", "id": id, "type": "Shot"}));
    assert_eq!(answer["results"][2], true);
}

#[test]
fn a_script_without_events_changes_things_unseen() {
    let site = site();
    let id = shot(&site, "010_0010");
    let before = site.last_event_id();
    site.update_silently("Shot", id, json!({"sg_status_list": "fin"})).expect("an update");
    assert_eq!(site.last_event_id(), before);
    assert_eq!(read_one(&site, "Shot", id, &["sg_status_list"])["sg_status_list"], "fin");
}

#[test]
fn faults_use_the_words_of_a_site() {
    let site = site();
    let fields = |name: &str, value: Value| json!([{"field_name": name, "value": value}]);
    let shot = json!({"type": "Shot", "fields": fields("code", "x".into())});
    assert_eq!(
        fault(&site, "create", shot),
        (104, "API create() missing 'project' attribute: {\"code\":\"x\"}".into())
    );
    let name = json!({"type": "Project", "fields": fields("name", "demo".into())});
    assert_eq!(
        fault(&site, "create", name).1,
        "API create() CRUD ERROR #61: Create failed for [Project]. The value for the Project Name field is required to be unique. <br>"
    );
    let missing = json!({"type": "Shot", "id": 1_000_000});
    assert_eq!(
        fault(&site, "delete", missing),
        (104, "API delete() CRUD ERROR #3: Entity of type [Shot] with id=1000000 does not exist.".into())
    );
    let (code, words) =
        fault(&site, "read", json!({"type": "Shott", "paging": {"entities_per_page": 1, "current_page": 1}}));
    assert_eq!(code, 103);
    assert!(words.starts_with("API read() invalid/missing string entity 'type': Valid entity types: ["), "{words}");
    assert!(fault(&site, "spaceship_launch", json!({})).1.starts_with("not simulated: "));
    assert_eq!(site.requests.of("not simulated"), 1);
    let denied = json!({"method_name": "read", "params": [{"script_name": "sgcache", "script_key": "wrong"}, {}]});
    let answer: Value =
        serde_json::from_slice(&site.answer(&Request::parse(denied.to_string().as_bytes()))).expect("JSON");
    assert_eq!(answer, json!({"exception": true, "message": "Can't authenticate script 'sgcache'", "error_code": 102}));
}

#[test]
fn pages_say_what_they_were_asked_to_say() {
    let site = site();
    for number in 0..5 {
        shot(&site, &format!("{number}"));
    }
    let page = |number: u32, flag: &str| {
        let mut argument = json!({"type": "Shot", "return_fields": ["code"],
            "sorts": [{"field_name": "code", "direction": "desc"}],
            "paging": {"entities_per_page": 2, "current_page": number}});
        argument[flag] = true.into();
        call(&site, "read", argument)["results"].take()
    };
    let third = page(3, "return_paging_info_without_counts");
    assert_eq!(third["entities"], json!([{"code": "0", "id": 1, "type": "Shot"}]));
    assert_eq!(third["paging_info"], json!({"current_page": 3, "entities_per_page": 2, "has_next_page": false}));
    let first = page(1, "return_paging_info");
    assert_eq!(
        first["paging_info"],
        json!({"current_page": 1, "page_count": 3, "entity_count": 5, "entities_per_page": 2})
    );
    assert_eq!(page(1, "return_paging_info_without_counts")["paging_info"]["has_next_page"], true);
}

#[test]
fn returned_fields_follow_links_and_unknown_ones_are_left_out() {
    let site = site();
    let id = shot(&site, "010_0010");
    let task = site
        .create("Task", json!({"content": "comp", "project": project(), "entity": to("Shot", id)}))
        .expect("a task");
    let fields = ["entity.Shot.code", "entity.Asset.code", "nothing", "step", "task_assignees.HumanUser.name", "id"];
    let row = read_one(&site, "Task", task, &fields);
    assert_eq!(
        Value::Object(row),
        json!({"entity.Shot.code": "010_0010", "entity.Asset.code": null, "step": null, "id": task, "type": "Task"})
    );
}

#[test]
fn entities_of_archived_projects_are_hidden_on_demand() {
    let site = site();
    shot(&site, "010_0010");
    site.update("Project", 1, json!({"archived": true})).expect("an update");
    let ask = |include: bool| {
        let argument = json!({"type": "Shot", "return_fields": [], "include_archived_projects": include,
            "paging": {"entities_per_page": 10, "current_page": 1}});
        call(&site, "read", argument)["results"]["entities"].as_array().expect("rows").len()
    };
    assert_eq!((ask(true), ask(false)), (1, 0));
}

#[test]
fn summaries_are_computed_per_group() {
    let site = site();
    for (code, status, cut) in [("a", "ip", Some(100)), ("b", "ip", None), ("c", "fin", Some(50))] {
        let fields = json!({"code": code, "project": project(), "sg_status_list": status, "sg_cut_duration": cut});
        site.create("Shot", fields).expect("a shot");
    }
    let argument = json!({"type": "Shot",
        "summaries": [{"field": "id", "type": "count"}, {"field": "sg_cut_duration", "type": "sum"}],
        "grouping": [{"field": "sg_status_list", "type": "exact", "direction": "asc"}]});
    assert_eq!(
        call(&site, "summarize", argument)["results"],
        json!({"groups": [
            {"group_name": "fin", "group_value": "fin", "summaries": {"id": 1, "sg_cut_duration": 50}},
            {"group_name": "ip", "group_value": "ip", "summaries": {"id": 2, "sg_cut_duration": 100}}],
          "summaries": {"id": 3, "sg_cut_duration": 150}})
    );
    let thousands = json!({"type": "Shot", "summaries": [{"field": "created_at", "type": "latest"}],
        "grouping": [{"field": "id", "type": "thousands"}]});
    assert_eq!(
        call(&site, "summarize", thousands)["results"]["groups"],
        json!([{"group_name": "0-999", "group_value": 0, "summaries": {"created_at": "2024-03-13T15:30:00Z"}}])
    );
}

// Published probes of a live site, finding 020: numbers of nothing are zero.
#[test]
fn a_summary_of_nothing_is_zero_for_numbers() {
    let site = site();
    let of = |field: &str, kind: &str| {
        let summaries = json!([{"field": field, "type": kind}]);
        call(&site, "summarize", json!({"type": "Shot", "summaries": summaries}))["results"]["summaries"][field].take()
    };
    for kind in ["count", "sum", "minimum", "maximum"] {
        assert_eq!(of("sg_cut_duration", kind), json!(0), "{kind}");
    }
    assert_eq!(of("sg_cut_duration", "average"), json!(0.0));
    assert_eq!(of("created_at", "latest"), Value::Null);
}

#[test]
fn a_person_has_one_name_made_of_two() {
    let site = site();
    let id =
        site.create("HumanUser", json!({"firstname": "Élodie", "lastname": "Ōta", "login": "e"})).expect("a person");
    assert_eq!(read_one(&site, "HumanUser", id, &["name"])["name"], "Élodie Ōta");
    site.update("HumanUser", id, json!({"lastname": "Sato"})).expect("an update");
    assert_eq!(read_one(&site, "HumanUser", id, &["cached_display_name"])["cached_display_name"], "Élodie Sato");
}

#[test]
fn a_template_makes_the_tasks_of_a_new_shot() {
    let site = site();
    let template = site.create("TaskTemplate", json!({"code": "Film"})).expect("a template");
    for content in ["layout", "comp"] {
        let fields = json!({"content": content, "task_template": to("TaskTemplate", template)});
        site.create("Task", fields).expect("a task of the template");
    }
    let fields = json!({"code": "x", "project": project(), "task_template": to("TaskTemplate", template)});
    let id = site.create("Shot", fields).expect("a shot");
    let tasks = site.read("Task", &json!([["entity", "is", to("Shot", id)]]), &["content"]).expect("tasks");
    let names: Vec<_> = tasks.iter().map(|task| task["content"].as_str().unwrap_or("")).collect();
    assert_eq!(names, ["layout", "comp"]);
}
