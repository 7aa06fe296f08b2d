//! The methods through the door that clients use. Where a shape is asserted, the
//! section of the protocol reference that shows it is named.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::tests::{call, events, fault, metas, project, read_one, shot, site, to};
use crate::attach::Incoming;
use crate::scenario::Permissions;
use crate::site::Site;
use shotgun_model::entity::Timestamp;

/// Asks, and returns the results.
fn ask(site: &Site, method: &str, argument: Value) -> Value {
    let mut answer = call(site, method, argument);
    assert!(answer.get("exception").is_none(), "{method}: {answer}");
    answer["results"].take()
}

fn person(site: &Site, login: &str) -> i64 {
    site.create("HumanUser", json!({"name": format!("{login} Doe"), "login": login, "password_proxy": "pw"}))
        .expect("a person")
}

fn file(name: &str) -> Incoming {
    Incoming {
        name: name.to_owned(),
        content_type: "image/jpeg".to_owned(),
        bytes: b"JPEG".as_slice().into(),
        display_name: None,
        tags: vec!["wip".to_owned()],
        created_at: None,
    }
}

// Section 2.7, follow.
#[test]
fn a_follower_is_listed_until_they_unfollow() {
    let site = site();
    let (joe, shot) = (to("HumanUser", person(&site, "joe")), to("Shot", shot(&site, "010")));
    let both = json!({"user": joe, "entity": shot});
    assert_eq!(ask(&site, "follow", both.clone()), json!({"followed": true, "user": joe, "entity": shot}));
    let followers = json!([{"id": 1, "name": "joe Doe", "status": "act", "type": "HumanUser", "valid": "valid"}]);
    assert_eq!(ask(&site, "followers", json!({"entity": shot})), followers);
    let following = |more: Value| {
        let mut argument = json!({"user": joe});
        argument.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        ask(&site, "following", argument)
    };
    assert_eq!(following(json!({})), json!([shot]));
    assert_eq!(following(json!({"entity_type": "Task"})), json!([]));
    assert_eq!(following(json!({"project": project()})), json!([shot]));
    assert_eq!(following(json!({"project": to("Project", 7)})), json!([]));
    assert_eq!(ask(&site, "unfollow", both), json!({"unfollowed": true, "user": joe, "entity": shot}));
    assert_eq!(ask(&site, "followers", json!({"entity": shot})), json!([]));
}

// Section 2.7: issue 86 of the client, an HTTP 500.
#[test]
fn followers_of_what_never_was_break_the_site() {
    let site = site();
    assert_eq!(fault(&site, "followers", json!({"entity": to("Shot", 99)})).0, 500);
    assert_eq!(fault(&site, "following", json!({"user": to("HumanUser", 99)})).0, 104);
}

// Section 2.8, work schedule.
#[test]
fn the_rule_of_a_person_counts_more_than_that_of_the_studio() {
    let site = site();
    let joe = to("HumanUser", person(&site, "joe"));
    let rule = |whose: Value| {
        let mut rule =
            json!({"date": "2012-01-03", "working": false, "description": "x", "project": null, "user": null});
        rule.as_object_mut().expect("an object").extend(whose.as_object().cloned().expect("an object"));
        ask(&site, "work_schedule_update", rule)
    };
    let reason = |argument: Value| {
        let mut range = json!({"start_date": "2012-01-01", "end_date": "2012-01-03"});
        range.as_object_mut().expect("an object").extend(argument.as_object().cloned().expect("an object"));
        let days = ask(&site, "work_schedule_read", range);
        (days["2012-01-03"]["reason"].clone(), days["2012-01-03"]["working"].clone())
    };
    assert_eq!(reason(json!({})), (json!("STUDIO_WORK_WEEK"), json!(true)));
    let made = rule(json!({"project": project()}));
    assert_eq!(
        made,
        json!({"date": "2012-01-03", "working": false, "description": "x", "user": null,
            "project": {"type": "Project", "id": 1, "name": "Demo"}})
    );
    assert_eq!(reason(json!({})).0, "STUDIO_WORK_WEEK");
    assert_eq!(reason(json!({"project": project()})).0, "PROJECT_EXCEPTION");
    rule(json!({}));
    rule(json!({"user": joe, "working": true}));
    assert_eq!(reason(json!({})).0, "STUDIO_EXCEPTION");
    assert_eq!(reason(json!({"project": project(), "user": joe})), (json!("USER_EXCEPTION"), json!(true)));
    let week = ask(&site, "work_schedule_read", json!({"start_date": "2012-01-07", "end_date": "2012-01-08"}));
    let weekend = json!({"description": null, "reason": "STUDIO_WORK_WEEK", "working": false});
    assert_eq!(week, json!({"2012-01-07": weekend, "2012-01-08": weekend}));
    let both = json!({"date": "2012-01-03", "working": true, "project": project(), "user": joe});
    assert_eq!(fault(&site, "work_schedule_update", both).0, 103);
}

// Section 2.7, text_search.
#[test]
fn a_search_finds_every_word_in_the_name_or_in_that_of_the_link() {
    let site = site();
    let bunny = shot(&site, "bunny_010_0010");
    shot(&site, "Bunny");
    let task = json!({"content": "FX", "project": project(), "entity": to("Shot", bunny), "sg_status_list": "fin"});
    let task = site.create("Task", task).expect("a task");
    let all = json!({"logical_operator": "and", "conditions": []});
    let search = |text: &str, more: Value| {
        let types = json!({"Shot": all, "Task": all});
        let mut argument = json!({"text": text, "entity_types": types, "project_ids": [], "max_results": null});
        argument.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        ask(&site, "query_display_name_cache", argument)
    };
    let names = |found: &Value| -> Vec<String> {
        found["matches"]
            .as_array()
            .expect("matches")
            .iter()
            .map(|m| m["name"].as_str().unwrap_or("").to_owned())
            .collect()
    };
    let found = search("BUNNY", json!({}));
    assert_eq!(found["terms"], json!(["bunny"]));
    assert_eq!(names(&found), ["FX", "Bunny", "bunny_010_0010"]);
    assert_eq!(
        found["matches"][0],
        json!({"id": task, "type": "Task", "name": "FX", "project_id": 1, "image": null,
            "links": ["Shot", "bunny_010_0010"], "status": "fin"})
    );
    assert_eq!(found["matches"][1]["links"], json!(["", ""]));
    assert_eq!(names(&search("bunny fx", json!({}))), ["FX"]);
    assert_eq!(names(&search("bunny", json!({"max_results": 1}))), ["FX"]);
    assert_eq!(names(&search("bunny", json!({"project_ids": [2]}))), Vec::<String>::new());
    let short = json!({"text": "bu", "entity_types": {"Shot": all}});
    assert_eq!(fault(&site, "query_display_name_cache", short).0, 103);
}

// Section 2.7, activity_stream.
#[test]
fn the_activity_of_a_shot_is_its_own_and_that_of_its_notes() {
    let site = site();
    let shot = shot(&site, "010");
    let note = json!({"subject": "A", "content": "Test!", "project": project(), "note_links": [to("Shot", shot)]});
    let note = site.create("Note", note).expect("a note");
    let reply = site.create("Reply", json!({"content": "B", "entity": to("Note", note)})).expect("a reply");
    site.update("Shot", shot, json!({"description": "foggy"})).expect("an update");
    let read = |more: Value| {
        let mut argument = json!({"type": "Shot", "id": shot, "max_id": null, "min_id": null, "limit": null});
        argument.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        ask(&site, "activity_stream", argument)
    };
    let stream = read(json!({"entity_fields": {"Note": ["content"]}}));
    let told: Vec<String> = stream["updates"]
        .as_array()
        .expect("updates")
        .iter()
        .map(|update| {
            format!("{} {}:{}", update["update_type"], update["primary_entity"]["type"], update["primary_entity"]["id"])
        })
        .collect();
    let shot_word = format!("\"Shot\":{shot}");
    assert_eq!(
        told,
        [
            format!("\"update\" {shot_word}"),
            format!("\"create_reply\" \"Reply\":{reply}"),
            format!("\"create\" \"Note\":{note}"),
            format!("\"create\" {shot_word}"),
        ]
    );
    let of_note = &stream["updates"][2];
    assert_eq!(
        of_note["primary_entity"],
        json!({"id": note, "name": "A", "status": "opn", "type": "Note", "content": "Test!"})
    );
    assert_eq!(of_note["meta"], json!({"type": "new_entity", "entity_type": "Note", "entity_id": note}));
    assert_eq!(of_note["created_at"], "2024-03-13 15:30:00 UTC");
    assert_eq!(stream["latest_update_id"], stream["updates"][0]["id"]);
    assert_eq!(stream["earliest_update_id"], stream["updates"][3]["id"]);
    // The bounds are not in it.
    let bounds = json!({"max_id": stream["updates"][0]["id"], "min_id": stream["updates"][3]["id"]});
    assert_eq!(read(bounds)["updates"].as_array().map(Vec::len), Some(2));
    assert_eq!(read(json!({"limit": 1}))["updates"].as_array().map(Vec::len), Some(1));
}

// Section 2.7, note_thread_contents.
#[test]
fn a_thread_is_the_note_then_what_came_after_it() {
    let site = site();
    let note = site.create("Note", json!({"content": "Test!", "project": project()})).expect("a note");
    site.clock.advance(Duration::from_secs(60));
    let key = site.rows().key(&shotgun_model::entity::EntityRef::new("Note", note)).expect("the note");
    site.write(site.script(), |writer| writer.attach(key, None, file("a.jpg"))).expect("a file");
    site.clock.advance(Duration::from_secs(60));
    let joe = person(&site, "joe");
    let reply = json!({"content": "Done", "entity": to("Note", note), "user": to("HumanUser", joe)});
    let reply = site.create("Reply", reply).expect("a reply");
    let thread = ask(&site, "note_thread_contents", json!({"note_id": note, "entity_fields": {"Note": ["project"]}}));
    assert_eq!(thread[0]["project"], json!({"id": 1, "name": "Demo", "type": "Project"}), "a field that was asked for");
    assert_eq!(thread[0]["content"], "Test!");
    assert_eq!(
        thread[1],
        json!({"id": 1, "type": "Attachment", "created_at": "2024-03-13 15:31:00 UTC",
            "created_by": {"id": 1, "name": "sgcache", "type": "ApiUser", "valid": "valid"}})
    );
    assert_eq!(
        thread[2],
        json!({"id": reply, "type": "Reply", "created_at": "2024-03-13 15:32:00 UTC", "content": "Done",
            "user": {"id": joe, "name": "joe Doe", "type": "HumanUser", "status": "act", "valid": "valid", "image": null}})
    );
}

// Section 2.8.
#[test]
fn the_small_methods_answer_in_their_shapes() {
    let site = site();
    let joe = person(&site, "joe");
    let some = ask(&site, "preferences_read", json!({"prefs": ["hours_per_day", "no_such"]}));
    assert_eq!(some, json!({"hours_per_day": 8.0}));
    assert_eq!(ask(&site, "preferences_read", json!({"prefs": []})).as_object().map(serde_json::Map::len), Some(17));
    let users = json!({"users": [{"humanUserId": joe, "subscription": null}]});
    assert_eq!(ask(&site, "user_subscriptions_create", users), json!({"status": "success"}));
    assert_eq!(ask(&site, "user_subscriptions_read", Value::Null), json!([{"humanUserId": joe, "subscription": null}]));
    let words = |argument: Value| fault(&site, "export_page", argument).1;
    assert_eq!(words(json!({"format": null, "page_id": 1})), "API export_page() 'format' missing");
    assert_eq!(words(json!({"format": "csv", "page_id": null})), "API export_page() 'page_id' missing");
    assert_eq!(words(json!({"format": "csv", "page_id": 7})), "Export for Page id=7 not available");
}

// Section 2.8, update_project_last_accessed.
#[test]
fn the_last_access_belongs_to_the_person_who_asks() {
    let site = site();
    let joe = person(&site, "joe");
    person(&site, "ann");
    let method = "update_project_last_accessed_by_current_user";
    assert!(fault(&site, method, json!({"project_id": 1})).1.starts_with("not simulated: "));
    ask(&site, method, json!({"project_id": 1, "user_id": joe}));
    let seen_by = |login: &str| {
        let auth = json!({"user_login": login, "user_password": "pw"});
        let read = json!({"type": "Project", "return_fields": ["last_accessed_by_current_user"],
            "paging": {"entities_per_page": 1, "current_page": 1}});
        let body = json!({"method_name": "read", "params": [auth, read]}).to_string();
        let answer = site.answer(&shotgun_model::api3::Request::parse(body.as_bytes()));
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        answer["results"]["entities"][0]["last_accessed_by_current_user"].clone()
    };
    assert_eq!(seen_by("joe"), "2024-03-13T15:30:00Z");
    assert_eq!(seen_by("ann"), Value::Null);
}

#[test]
fn what_is_not_simulated_is_said_and_counted() {
    let site = site();
    assert_eq!(fault(&site, "no_such_method", json!({})).1, "not simulated: no_such_method");
    assert_eq!(site.requests.of("not simulated"), 1);
}

fn schema_edit(site: &Site, method: &str, more: Value) -> Value {
    let mut argument = json!({"type": "Asset"});
    argument.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
    ask(site, method, argument)
}

fn new_field(site: &Site, name: &str, data_type: &str) -> Value {
    let properties =
        json!([{"property_name": "name", "value": name}, {"property_name": "description", "value": "why"}]);
    schema_edit(site, "schema_field_create", json!({"data_type": data_type, "properties": properties}))
}

// Section 6.4.
#[test]
fn a_new_field_is_written_read_and_filtered_like_any_other() {
    let site = site();
    let before = site.last_event_id().0;
    assert_eq!(new_field(&site, "Money Count", "number"), "sg_money_count");
    assert_eq!(new_field(&site, "Money count", "text"), "sg_money_count_1");
    assert_eq!(events(&site, before)[0], "Shotgun_DisplayColumn_New DisplayColumn:1");
    let asset =
        site.create("Asset", json!({"code": "a", "project": project(), "sg_money_count": 3})).expect("an asset");
    let found =
        site.read("Asset", &json!([["sg_money_count", "greater_than", 2]]), &["sg_money_count"]).expect("a read");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["sg_money_count"], 3);
    let field = schema_edit(&site, "schema_field_read", json!({"field_name": "sg_money_count"}));
    assert_eq!(field["sg_money_count"]["description"]["value"], "why");
    assert_eq!(field["sg_money_count"]["visible"], json!({"value": true, "editable": true}));
    let of_log =
        site.read("EventLogEntry", &json!([["id", "greater_than", before]]), &["entity.DisplayColumn.entity_type"]);
    assert_eq!(of_log.expect("a read")[0]["entity.DisplayColumn.entity_type"], "Asset");
    assert!(ask(&site, "schema_read", Value::Null).get("DisplayColumn").is_none(), "it is not listed");

    assert_eq!(schema_edit(&site, "schema_field_delete", json!({"field_name": "sg_money_count"})), true);
    assert_eq!(schema_edit(&site, "schema_field_delete", json!({"field_name": "sg_money_count"})), false);
    assert!(read_one(&site, "Asset", asset, &["sg_money_count"]).get("sg_money_count").is_none());
    let again = json!({"type": "Asset", "data_type": "number", "properties": [{"property_name": "name", "value": "Money Count"}]});
    assert_eq!(fault(&site, "schema_field_create", again).0, 104, "the name of a deleted field stays taken");
}

// Section 6.3.
#[test]
fn a_project_hides_a_field_that_others_show() {
    let site = site();
    site.create("Project", json!({"name": "Other"})).expect("a project");
    new_field(&site, "Hidden", "text");
    let visible = |project: Option<i64>| {
        let mut argument = json!({"field_name": "sg_hidden"});
        if let Some(id) = project {
            argument["project"] = to("Project", id);
        }
        schema_edit(&site, "schema_field_read", argument)["sg_hidden"]["visible"].clone()
    };
    let hide = json!({"field_name": "sg_hidden", "project": project(),
        "properties": [{"property_name": "visible", "value": false}]});
    assert_eq!(schema_edit(&site, "schema_field_update", hide), true);
    assert_eq!(visible(Some(1)), json!({"value": false, "editable": true}));
    assert_eq!(visible(Some(2)), json!({"value": true, "editable": true}));
    assert_eq!(visible(None), json!({"value": true, "editable": true}));
    let stock = json!({"type": "Asset", "field_name": "code", "project": project(),
        "properties": [{"property_name": "visible", "value": false}]});
    assert_eq!(fault(&site, "schema_field_update", stock).0, 104);
}

#[test]
fn a_field_that_was_renamed_says_so_in_the_event_log() {
    let site = site();
    new_field(&site, "First", "text");
    let before = site.last_event_id().0;
    let rename = json!({"field_name": "sg_first", "properties": [{"property_name": "name", "value": "Second"}]});
    schema_edit(&site, "schema_field_update", rename);
    assert_eq!(events(&site, before), ["Shotgun_DisplayColumn_Change.human_name DisplayColumn:1"]);
    let meta = &metas(&site, before)[0];
    assert_eq!((&meta["old_value"], &meta["new_value"]), (&json!("First"), &json!("Second")));
}

fn with_presets(site: &Site, entity_type: &str, presets: Value) -> Value {
    let argument = json!({"type": entity_type, "return_fields": ["id"], "additional_filter_presets": presets,
        "paging": {"entities_per_page": 500, "current_page": 1}});
    let answer = call(site, "read", argument);
    let rows = answer["results"]["entities"].as_array().cloned();
    rows.map_or_else(|| answer["message"].clone(), |rows| rows.iter().map(|row| row["id"].clone()).collect())
}

// Section 2.3.
#[test]
fn presets_find_the_newest_version_of_each_shot() {
    let site = site();
    let (a, b) = (shot(&site, "a"), shot(&site, "b"));
    let version = |shot: i64| {
        site.clock.advance(Duration::from_secs(1));
        let fields = json!({"code": "v", "project": project(), "entity": to("Shot", shot)});
        site.create("Version", fields).expect("a version")
    };
    let (_, of_b, of_a) = (version(a), version(b), version(a));
    let latest = json!([{"preset_name": "LATEST", "latest_by": "ENTITIES_CREATED_AT"}]);
    assert_eq!(with_presets(&site, "Version", latest), json!([of_b, of_a]));
    let cut = site.create("Cut", json!({"code": "c", "project": project(), "revision_number": 2})).expect("a cut");
    site.create("Cut", json!({"code": "c", "project": project(), "revision_number": 1})).expect("a cut");
    let item = json!({"code": "i", "project": project(), "cut": to("Cut", cut), "shot": to("Shot", b)});
    site.create("CutItem", item).expect("an item");
    let highest = json!([{"preset_name": "LATEST", "latest_by": "REVISION_NUMBER"}]);
    assert_eq!(with_presets(&site, "Cut", highest), json!([cut]));
    let of_cut = json!([{"preset_name": "CUT_SHOT_VERSIONS", "cut_id": cut}]);
    assert_eq!(with_presets(&site, "Version", of_cut), json!([of_b]));
    let latest = json!({"preset_name": "LATEST", "latest_by": "ENTITIES_CREATED_AT"});
    for wrong in [json!([{}]), json!([{"preset_name": "NO"}]), json!(3), json!([3]), json!([latest, latest])] {
        let words = with_presets(&site, "Version", wrong.clone());
        assert!(words.as_str().is_some_and(|words| words.starts_with("API read() ")), "{wrong}: {words}");
    }
}

// Sections 1.7 and 5.3.
#[test]
fn a_thumbnail_is_a_placeholder_first_and_then_signed_anew_at_each_read() {
    let site = site();
    let id = shot(&site, "010");
    let key = site.rows().key(&shotgun_model::entity::EntityRef::new("Shot", id)).expect("the shot");
    let before = site.last_event_id().0;
    let ready_at = Timestamp(site.clock.now().0 + 5);
    let attachment = site.write(site.script(), |writer| writer.picture(key, "image", file("a.jpg"), ready_at));
    let attachment = attachment.expect("a picture").id;
    let image = || {
        let read =
            json!({"type": "Shot", "return_fields": ["image"], "paging": {"entities_per_page": 1, "current_page": 1}});
        ask(&site, "read", read)["entities"][0]["image"].as_str().unwrap_or_default().to_owned()
    };
    assert!(image().ends_with("/images/status/transient/thumbnail_pending.png"), "{}", image());
    site.clock.advance(Duration::from_secs(5));
    let (first, second) = (image(), image());
    assert_ne!(first, second);
    assert_eq!(first.split('?').next(), second.split('?').next());
    let changes: Vec<Value> =
        metas(&site, before).into_iter().filter(|meta| meta["attribute_name"] == "image").collect();
    let told = |old: Value, transient: bool| {
        json!({"type": "attribute_change", "attribute_name": "image", "entity_type": "Shot", "entity_id": id,
            "field_data_type": "image", "old_value": old, "new_value": attachment, "is_transient": transient})
    };
    assert_eq!(changes, [told(Value::Null, true), told(Value::Null, false)]);
    site.update("Shot", id, json!({"image": null})).expect("an update");
    assert_eq!(image(), "");
}

// Section 2.9.
#[test]
fn a_file_is_an_attachment_with_its_links_and_tags() {
    let site = site();
    let version = site.create("Version", json!({"code": "v", "project": project()})).expect("a version");
    let key = site.rows().key(&shotgun_model::entity::EntityRef::new("Version", version)).expect("the version");
    let attach = |field: &str| site.write(site.script(), |writer| writer.attach(key, Some(field), file("a.jpg")));
    let attachment = i64::from(attach("sg_uploaded_movie").expect("a file").id);
    assert_eq!(
        read_one(&site, "Version", version, &["sg_uploaded_movie"])["sg_uploaded_movie"],
        json!({"url": "https://media.example.com/file_serve/attachment/1", "name": "a.jpg",
            "content_type": "image/jpeg", "link_type": "upload", "type": "Attachment", "id": attachment})
    );
    let row = read_one(&site, "Attachment", attachment, &["attachment_links", "tags", "file_size", "project"]);
    assert_eq!(row["attachment_links"][0]["id"], version);
    assert_eq!(row["tags"], json!([{"id": 1, "name": "wip", "type": "Tag"}]));
    assert_eq!((&row["file_size"], &row["project"]["id"]), (&json!(4), &json!(1)));
    assert!(attach("code").is_err(), "a text holds no file");
    assert_eq!(site.count("Attachment"), 1, "what was refused left nothing");
}

#[test]
fn a_link_to_the_web_is_an_attachment_too() {
    let site = site();
    let link = json!({"url": "http://example.com/x", "name": "x"});
    let fields = json!({"code": "v", "project": project(), "sg_uploaded_movie": link});
    let version = site.create("Version", fields).expect("a version");
    let shown = read_one(&site, "Version", version, &["sg_uploaded_movie"])["sg_uploaded_movie"].clone();
    let attachment =
        read_one(&site, "Attachment", shown["id"].as_i64().expect("an id"), &["this_file", "display_name"]);
    assert_eq!(attachment["this_file"], shown);
    assert_eq!(attachment["display_name"], "x");
}

// Section 2.4.
#[test]
fn different_statuses_are_summed_up_as_in_progress() {
    let site = site();
    let (a, _) = (shot(&site, "a"), shot(&site, "b"));
    let rolled_up = || {
        let summaries = json!([{"field": "sg_status_list", "type": "status_list"}]);
        ask(&site, "summarize", json!({"type": "Shot", "summaries": summaries}))["summaries"]["sg_status_list"].clone()
    };
    assert_eq!(rolled_up(), "wtg");
    site.update("Shot", a, json!({"sg_status_list": "fin"})).expect("an update");
    assert_eq!(rolled_up(), "ip");
}

#[test]
fn what_would_show_too_much_to_a_limited_script_is_refused() {
    let site = site();
    let shot = shot(&site, "010");
    let limits = Permissions {
        script: "sgcache".into(),
        projects: Some(vec![1]),
        hidden_fields: Default::default(),
        hidden_types: Default::default(),
        revoked: false,
    };
    site.scenario.rights.set(site.script().user, limits);
    let words = fault(&site, "activity_stream", json!({"type": "Shot", "id": shot})).1;
    assert_eq!(words, "not simulated: activity_stream by a script with limited rights");
}
