//! A schema that changes under a followed type: it goes on with what is left, and
//! heals when the schema is right again.

use std::time::Duration;

use serde_json::{Value, json};
use sgcache::entity::{DataType, EntityType};
use sgcache::entity_config::TypeLayout;
use sgcache::state::TypeState;
use sgcache::sync::{Steps, WHOLE};

use crate::sync_cache::{Cache, create, empty_site, happen};

fn shot() -> EntityType {
    EntityType::new("Shot")
}

async fn of_shots() -> (Cache, Vec<i64>) {
    let site = empty_site();
    let shot = |n: i64| create(&site, "Shot", json!({"code": format!("s{n}"), "description": format!("{n}")}));
    let ids = (0..4).map(shot).collect();
    (Cache::live(site).await, ids)
}

/// The layout that the type has now.
fn layout(cache: &Cache) -> TypeLayout {
    cache.replica().current(cache.layout("Shot"))
}

/// Follows for some steps, imports included; the site may refuse some of it.
async fn go_on(cache: &Cache) {
    for _ in 0..4 {
        drop(cache.step().await);
        drop(cache.follower().import_pending().await);
    }
    cache.quiesce().await;
}

/// What status says: the state of the type and what it lacks.
async fn said(cache: &Cache) -> (TypeState, Vec<(String, String)>) {
    let status = cache.follower().status().await.expect("a status");
    let ty = status.types.into_iter().find(|ty| ty.entity_type == shot()).expect("shots");
    (ty.state, ty.lacking.into_iter().collect())
}

async fn assert_equal_as_far_as_it_goes(cache: &Cache) {
    let layout = layout(cache);
    assert_eq!(cache.cached(&layout).await, cache.shown(&layout).await);
}

fn lacks_description(reason: &str) -> (TypeState, Vec<(String, String)>) {
    (TypeState::Degraded, vec![("description".to_owned(), reason.to_owned())])
}

/// Row 30: a field is deleted, and added again.
#[tokio::test]
async fn a_type_whose_field_was_deleted_goes_on_with_the_others_and_heals() {
    let (cache, ids) = of_shots().await;
    let mut kept = None;
    cache.site().edit_schema(|schema| {
        kept = schema.types.get_mut(&shot()).expect("shots").fields.remove("description");
    });
    cache.site().update("Shot", ids[1], json!({"sg_cut_in": 7})).expect("an update");
    let before = cache.cached(cache.layout("Shot")).await;
    drop(cache.step().await);
    let now = cache.cached(cache.layout("Shot")).await;
    assert_eq!(before[&ids[0]]["description"], "0");
    assert_eq!(now[&ids[0]]["description"], "0", "no null where the site told of none");
    go_on(&cache).await;
    assert_eq!(said(&cache).await, lacks_description("the site does not have it any more"));
    assert!(layout(&cache).field("description").is_none());
    assert_equal_as_far_as_it_goes(&cache).await;
    assert_eq!(cache.cached(&layout(&cache)).await[&ids[1]]["sg_cut_in"], 7, "it is followed");

    cache.site().edit_schema(|schema| {
        let field = kept.take().expect("the field");
        schema.types.get_mut(&shot()).expect("shots").fields.insert("description".into(), field);
    });
    cache.site().update("Shot", ids[2], json!({"description": "new"})).expect("an update");
    cache.tick(Duration::from_secs(600));
    go_on(&cache).await;
    assert_eq!(said(&cache).await, (TypeState::Live, vec![]));
    cache.assert_equal_to_site().await;
}

/// Row 30: text becomes a number.
#[tokio::test]
async fn a_field_of_another_data_type_is_taken_as_what_it_is_now() {
    let (cache, ids) = of_shots().await;
    cache.site().convert_to_number("Shot", "description");
    cache.site().update("Shot", ids[1], json!({"sg_cut_in": 7})).expect("an update");
    drop(cache.step().await);
    assert_eq!(cache.state().quarantined(&shot()).await.expect("ids"), [ids[1]], "nothing of another kind is stored");
    cache.tick(Duration::from_secs(600));
    go_on(&cache).await;
    assert_eq!(said(&cache).await, (TypeState::Live, vec![]));
    let layout = layout(&cache);
    assert_eq!(layout.field("description").map(|field| field.data_type), Some(DataType::Number));
    assert_eq!(cache.cached(&layout).await[&ids[3]]["description"], 3);
    assert_equal_as_far_as_it_goes(&cache).await;
    assert!(cache.state().quarantined(&shot()).await.expect("ids").is_empty(), "it can be stored now");
}

/// Row 31: the server drops the name of a field silently.
#[tokio::test]
async fn a_field_that_answers_leave_out_is_never_stored_as_null() {
    let (cache, ids) = of_shots().await;
    let hide = |fields: Value| json!({"permissions": {"script": "sgcache", "hidden_fields": fields}});
    happen(cache.site(), hide(json!(["Shot.description"])));
    cache.site().update("Shot", ids[1], json!({"sg_cut_in": 7})).expect("an update");
    cache.step().await.expect_err("an answer that cannot be believed");
    assert_eq!(cache.cached(cache.layout("Shot")).await[&ids[1]]["description"], "1");
    go_on(&cache).await;
    let (state, lacking) = said(&cache).await;
    assert_eq!((state, lacking.len(), lacking[0].0.as_str()), (TypeState::Degraded, 1, "description"));
    assert_equal_as_far_as_it_goes(&cache).await;
    cache.tick(Duration::from_secs(600));
    go_on(&cache).await;
    assert_eq!(said(&cache).await.0, TypeState::Degraded, "as long as it is hidden");

    happen(cache.site(), hide(json!([])));
    cache.tick(Duration::from_secs(600));
    go_on(&cache).await;
    assert_eq!(said(&cache).await, (TypeState::Live, vec![]));
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_type_whose_filter_lost_its_field_waits_while_the_others_go_on() {
    let (cache, ids) = of_shots().await;
    let asset = create(cache.site(), "Asset", json!({"code": "tree"}));
    cache.quiesce().await;
    let ty = EntityType::new("Asset");
    let mut kept = None;
    cache.site().edit_schema(|schema| {
        kept = schema.types.get_mut(&ty).expect("assets").fields.remove("sg_status_list");
    });
    cache.site().update("Asset", asset, json!({"code": "oak"})).expect("an update");
    cache.site().update("Shot", ids[0], json!({"sg_cut_in": 7})).expect("an update");
    cache.tick(Duration::from_secs(600));
    for _ in 0..4 {
        drop(cache.step().await);
        drop(cache.follower().import_pending().await);
    }
    assert_eq!(cache.state().type_record(&ty).await.expect("a record").expect("a type").state, TypeState::Degraded);
    assert!(cache.replica().lacking()[&ty][WHOLE].contains("sg_status_list"), "{:?}", cache.replica().lacking());
    assert_equal_as_far_as_it_goes(&cache).await;
    assert_eq!(cache.ids("Asset").await, [asset], "its rows stay");

    cache.site().edit_schema(|schema| {
        let field = kept.take().expect("the field");
        schema.types.get_mut(&ty).expect("assets").fields.insert("sg_status_list".into(), field);
    });
    cache.tick(Duration::from_secs(600));
    go_on(&cache).await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_changed_entity_config_ends_what_the_type_lacked() {
    let (mut cache, _) = of_shots().await;
    cache.site().edit_schema(|schema| {
        drop(schema.types.get_mut(&shot()).expect("shots").fields.remove("description"));
    });
    cache.tick(Duration::from_secs(600));
    go_on(&cache).await;
    assert_eq!(said(&cache).await.0, TypeState::Degraded);
    cache.configure(&[("Shot", r#"{"fields": {"code": {}, "sg_cut_in": {}}}"#)]).await;
    cache.replica().set_layouts(cache.layouts().to_vec());
    go_on(&cache).await;
    assert_eq!(said(&cache).await, (TypeState::Live, vec![]));
    assert_equal_as_far_as_it_goes(&cache).await;
}

/// A field that the site lost while nothing ran.
#[tokio::test]
async fn a_field_that_is_gone_at_the_start_is_left_out_and_the_type_goes_on() {
    let (mut cache, ids) = of_shots().await;
    cache.stop();
    cache.site().edit_schema(|schema| {
        schema.types.get_mut(&shot()).expect("shots").fields.remove("description");
    });
    cache.site().update("Shot", ids[1], json!({"sg_cut_in": 7})).expect("an update");
    // As the start of the program does.
    let (site, schema) = (cache.client().site().to_owned(), cache.client().schema().await.expect("a schema"));
    cache.open_state().await.keep_schema(&site, &schema).await.expect("it is kept");
    cache.start(Steps::default()).await.expect("a start");
    assert_eq!(cache.replica().pending_imports().await.expect("imports"), ["Shot"], "in place, without the field");
    cache.follower().import_pending().await.expect("an import");
    go_on(&cache).await;
    assert_eq!(said(&cache).await, lacks_description("the site does not have it any more"));
    assert_eq!(cache.cached(&layout(&cache)).await[&ids[1]]["sg_cut_in"], 7);
}
