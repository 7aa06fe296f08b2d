//! The event log, row by row of section 5 of the protocol reference. What other
//! tests of the site show already is not repeated: the pair of rows of a thumbnail,
//! columns of the schema, transactions and gaps.

use serde_json::{Value, json};

use super::site::Site;
use super::tests::{call, events, fault, metas, project, shot, site, to};

/// Writes, and returns the metadata of the entries of the written entity.
fn logged(site: &Site, entity_type: &str, id: i64, fields: Value) -> Vec<Value> {
    let before = site.last_event_id().0;
    site.update(entity_type, id, fields).expect("an update");
    metas(site, before)
}

// 5.3: `old_value` and `new_value` by data type. The forms of dates and numbers are
// inferences there; a follower reads those fields again.
#[test]
fn each_data_type_has_its_form_in_the_metadata() {
    let site = site();
    let shot = shot(&site, "010");
    let task = site.create("Task", json!({"content": "comp", "project": project()})).expect("a task");
    let step = site.create("Step", json!({"code": "Comp"})).expect("a step");
    let person = json!({"name": "Ada B", "login": "ada", "password_proxy": "old"});
    let person = site.create("HumanUser", person).expect("a person");
    let step_link = json!({"type": "Step", "id": step, "name": "Comp", "valid": "valid"});
    let moment = "2024-03-13T10:00:00Z";
    let rows = [
        ("Shot", shot, "description", "text", json!("fog"), Value::Null, json!("fog")),
        ("Shot", shot, "sg_status_list", "status_list", json!("ip"), json!("wtg"), json!("ip")),
        ("Shot", shot, "sg_cut_in", "number", json!(1001), Value::Null, json!(1001)),
        ("Task", task, "milestone", "checkbox", json!(true), json!(false), json!(true)),
        ("Task", task, "due_date", "date", json!("2024-07-13"), Value::Null, json!("2024-07-13")),
        ("Task", task, "est_in_mins", "duration", json!(480), Value::Null, json!(480)),
        ("Task", task, "step", "entity", to("Step", step), Value::Null, step_link),
        ("HumanUser", person, "password_proxy", "password", json!("new"), json!("*******"), json!("*******")),
        ("Project", 1, "tracking_settings", "serializable", json!({"a": 1}), Value::Null, json!({"a": 1})),
    ];
    for (entity_type, id, field, data_type, value, old, new) in rows {
        let expected = json!({
            "type": "attribute_change", "attribute_name": field, "entity_type": entity_type, "entity_id": id,
            "field_data_type": data_type, "old_value": old, "new_value": new});
        assert_eq!(logged(&site, entity_type, id, json!({field: value}))[0], expected, "{entity_type}.{field}");
    }
    let note = site.create("Version", json!({"code": "v1", "project": project()})).expect("a version");
    let approved = &logged(&site, "Version", note, json!({"client_approved_at": moment}))[0];
    assert_eq!(approved["new_value"], "2024-03-13 10:00:00 UTC");
}

// 5.3: lists say what came and went, never the whole.
#[test]
fn a_list_logs_what_came_and_what_went() {
    let site = site();
    let asset = |code: &str| site.create("Asset", json!({"code": code, "project": project()})).expect("an asset");
    let (tree, rock, shot) = (asset("Tree"), asset("Rock"), shot(&site, "010"));
    logged(&site, "Shot", shot, json!({"assets": [to("Asset", tree)]}));
    let metas = logged(&site, "Shot", shot, json!({"assets": [to("Asset", rock)]}));
    let own = metas.iter().find(|meta| meta["attribute_name"] == "assets").expect("an entry");
    let names = |list: &Value| {
        let links = list.as_array().expect("a list").iter();
        links.map(|link| link["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((names(&own["added"]), names(&own["removed"])), (vec!["Rock".to_owned()], vec!["Tree".to_owned()]));
    assert!(own.get("old_value").is_none() && own.get("new_value").is_none());
    assert_eq!(own["added"][0]["valid"], "valid");
}

// 5.3: New, and values that came with it.
#[test]
fn a_creation_marks_what_came_with_it() {
    let site = site();
    let before = site.last_event_id().0;
    let id = shot(&site, "010");
    let metas = metas(&site, before);
    let (new, values) = metas.split_last().expect("entries");
    assert_eq!(*new, json!({"type": "new_entity", "entity_type": "Shot", "entity_id": id}));
    assert!(values.iter().all(|meta| meta["in_create"] == true && meta["old_value"].is_null()), "{values:?}");
}

// 5.3: two rows of a retirement, two of a revival; 5.1: the log forgets the entity meanwhile.
#[test]
fn a_retirement_and_a_revival_have_two_rows_each() {
    let site = site();
    let id = shot(&site, "010");
    let before = site.last_event_id().0;
    site.retire("Shot", id).expect("a retirement");
    assert_eq!(events(&site, before), ["Shotgun_Shot_Change.retirement_date null", "Shotgun_Shot_Retirement null"]);
    let date = "2024-03-13 15:30:00 UTC";
    assert_eq!(
        metas(&site, before),
        [
            json!({"type": "attribute_change", "attribute_name": "retirement_date", "entity_type": "Shot",
                   "entity_id": id, "old_value": null, "new_value": date}),
            json!({"type": "entity_retirement", "entity_type": "Shot", "entity_id": id, "class_name": "Shot",
                   "display_name": "010", "id": id, "retirement_date": date}),
        ]
    );
    let before = site.last_event_id().0;
    site.revive("Shot", id).expect("a revival");
    let revived = metas(&site, before);
    assert_eq!(events(&site, before)[0], format!("Shotgun_Shot_Change.retirement_date Shot:{id}"));
    assert_eq!((&revived[0]["old_value"], &revived[0]["new_value"]), (&json!(date), &Value::Null));
    assert_eq!(events(&site, before)[1], format!("Shotgun_Shot_Revival Shot:{id}"));
    assert_eq!(revived[1]["type"], "entity_revival");
}

// 5.3 and 5.4: the other side of a link names the entity that was edited.
#[test]
fn the_other_side_names_the_edited_entity_and_its_entry() {
    let site = site();
    let shot = shot(&site, "010");
    let task = site.create("Task", json!({"content": "comp", "project": project()})).expect("a task");
    let before = site.last_event_id().0;
    site.update("Task", task, json!({"entity": to("Shot", shot)})).expect("an update");
    let lines = events(&site, before);
    assert_eq!(
        lines,
        [format!("Shotgun_Task_Change.entity Task:{task}"), format!("Shotgun_Shot_Change.tasks Shot:{shot}")]
    );
    let other = &metas(&site, before)[1];
    assert_eq!(other["actual_attribute_changed"], "Task.entity");
    assert_eq!(other["original_event_log_entry_id"], before + 1);
    assert_eq!((&other["entity_type"], &other["entity_id"]), (&json!("Task"), &json!(task)));
    assert_eq!((&other["field_data_type"], &other["attribute_name"]), (&json!("entity"), &json!("tasks")));
    assert_eq!(other["added"][0]["id"], task);
}

// 5.1: the fields of an entry; `meta` is no ground for a question; entries are not changed.
#[test]
fn an_entry_has_the_documented_fields_and_stays_as_it_is() {
    let site = site();
    let id = shot(&site, "010");
    let last = site.last_event_id().0;
    let fields = ["entity", "project", "user", "created_at", "session_uuid", "description", "entity.Shot.id"];
    let entry = &site.read("EventLogEntry", &json!([["id", "is", last]]), &fields).expect("an entry")[0];
    assert_eq!(entry["entity"], json!({"type": "Shot", "id": id, "name": "010"}));
    assert_eq!(entry["project"], json!({"type": "Project", "id": 1, "name": "Demo"}));
    assert_eq!(entry["user"]["type"], "ApiUser");
    assert_eq!((&entry["created_at"], &entry["session_uuid"]), (&json!("2024-03-13T15:30:00Z"), &Value::Null));
    assert_eq!(entry["entity.Shot.id"], id);
    assert!(site.read("EventLogEntry", &json!([["meta", "is", "x"]]), &[]).is_err());
    let words = |method: &str, argument: Value| fault(&site, method, argument).1;
    let fields = json!([{"field_name": "description", "value": "x"}]);
    let update = json!({"type": "EventLogEntry", "id": last, "fields": fields});
    assert!(words("update", update).ends_with("EventLogEntry can not be updated."));
    assert!(words("delete", json!({"type": "EventLogEntry", "id": last})).ends_with("can not be deleted."));
}

// 5.1 and 5.2: a tool writes entries of its own; row 27: not their metadata.
#[test]
fn a_tool_writes_entries_of_its_own() {
    let site = site();
    let write = |field: &str, value: Value| json!({"field_name": field, "value": value});
    let create = |fields: Value| json!({"type": "EventLogEntry", "fields": fields, "return_fields": ["id", "user"]});
    let kind = write("event_type", json!("MyTool_Render_Done"));
    let made = call(&site, "create", create(json!([kind, write("project", project())])))["results"].take();
    assert_eq!(made["id"], site.last_event_id().0);
    assert_eq!((&made["event_type"], &made["user"]["type"]), (&json!("MyTool_Render_Done"), &json!("ApiUser")));
    assert_eq!(made["project"]["name"], "Demo");
    let words = |field: &str, value: Value| fault(&site, "create", create(json!([kind, write(field, value)]))).1;
    assert_eq!(words("meta", json!({"a": 1})), "not simulated: create of EventLogEntry with meta");
    assert!(words("created_at", json!("2024-01-01T00:00:00Z")).ends_with("EventLogEntry.created_at is not editable."));
}

// 5.6: what leaves no entry.
#[test]
fn what_is_not_in_the_log_leaves_no_entry() {
    let site = site();
    let shot = shot(&site, "010");
    let person = json!({"name": "Ada B", "login": "ada", "password_proxy": "pw"});
    let person = to("HumanUser", site.create("HumanUser", person).expect("a person"));
    let before = site.last_event_id();
    site.update_silently("Shot", shot, json!({"description": "quiet"})).expect("an update");
    site.update("Shot", shot, json!({"description": "quiet"})).expect("an update that changes nothing");
    for (method, argument) in [
        ("follow", json!({"user": person, "entity": to("Shot", shot)})),
        ("work_schedule_update", json!({"date": "2024-01-01", "working": false, "description": "x"})),
        ("update_project_last_accessed_by_current_user", json!({"project_id": 1, "user_id": person["id"]})),
    ] {
        assert!(call(&site, method, argument).get("exception").is_none(), "{method}");
    }
    assert_eq!(site.last_event_id(), before);
    // The stamps of an edit and what is computed of it have no entry of their own.
    let task = site.create("Task", json!({"content": "comp", "project": project()})).expect("a task");
    let before = site.last_event_id().0;
    site.update("Task", task, json!({"content": "roto"})).expect("an update");
    assert_eq!(events(&site, before), [format!("Shotgun_Task_Change.content Task:{task}")]);
}
