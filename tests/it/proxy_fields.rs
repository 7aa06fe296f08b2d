//! Fields whose values no copy can hold, or that the site does not have: answered from
//! the cache where the answer of the site does not depend on them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sgcache::proxy::Settings;
use sgcache::sim::Site;

use crate::proxy_rig::{Rig, find, said, shipped, written};
use crate::waiting::until;

fn by_id(ty: &str, id: i64) -> Value {
    find(ty, json!([["id", "is", id]]), &["code", "image"])
}

fn entities(answer: &Value) -> &[Value] {
    answer["results"]["entities"].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_an_image_are_answered_from_the_cache_and_others_by_the_site() {
    let rig = Rig::start(Site::generated(5, 900), shipped(), Settings::default()).await;
    let mut seen = BTreeSet::new();
    let versions = rig.direct("read", find("Version", json!([]), &["image"])).await;
    for row in entities(&versions).iter().take(40) {
        let id = row["id"].as_i64().expect("an id");
        let (headers, answer) = rig.call("read", by_id("Version", id)).await;
        let expected = if row["image"].is_null() { "hit" } else { "signed_url" };
        assert_eq!(said(&headers), expected, "{row}");
        if row["image"].is_null() {
            assert_eq!(answer, rig.direct("read", by_id("Version", id)).await);
        }
        seen.insert(expected);
    }
    assert_eq!(seen.len(), 2, "the site has Versions of both kinds");
}

/// Gives an entity the image of another one, past the proxy.
async fn share_image(rig: &Rig, from: &Value, to: i64) {
    let form = format!(
        "script_name=sgcache&script_key=sgcache-sim&source_entity=Version_{}&entities=Version_{to}",
        from["id"]
    );
    let request = reqwest::Client::new().post(format!("{}/upload/share_thumbnail", rig.site_url)).body(form);
    let shared = request.header("content-type", "application/x-www-form-urlencoded").send().await.expect("an answer");
    let words = shared.text().await.expect("a body");
    assert!(words.starts_with('1'), "{words}");
}

/// Returns the address of the image without its signature.
fn picture(answer: &Value) -> Option<&str> {
    entities(answer)[0]["image"].as_str()?.split('?').next()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_address_is_given_again_until_the_image_is_another_one() {
    let rig = Rig::start(Site::generated(5, 900), shipped(), Settings::default()).await;
    let versions = rig.direct("read", find("Version", json!([]), &["image"])).await;
    let with: Vec<_> = entities(&versions).iter().filter(|row| !row["image"].is_null()).take(2).collect();
    let without = entities(&versions).iter().find(|row| row["image"].is_null()).expect("one without");
    let (first, other) = (with[0]["id"].as_i64().expect("an id"), with[1]);
    let asked = by_id("Version", first);
    let (headers, answer) = rig.call("read", asked.clone()).await;
    assert_eq!(said(&headers), "signed_url");
    let (headers, again) = rig.call("read", asked.clone()).await;
    assert_eq!((said(&headers).as_str(), &again), ("hit", &answer), "the very same address");
    assert!(entities(&again)[0]["image"].as_str().is_some_and(|url| url.contains("X-Amz-Signature")), "{again}");
    // Whoever asks for images in another form is answered by the site.
    let mut bare = asked.clone();
    bare["api_return_image_urls"] = json!(false);
    assert_eq!(said(&rig.call("read", bare).await.0), "signed_url");

    // One that has an image gets another, one that has none gets its first.
    for id in [first, without["id"].as_i64().expect("an id")] {
        let asked = by_id("Version", id);
        let before = rig.call("read", asked.clone()).await;
        assert_eq!(said(&before.0), "hit");
        share_image(&rig, other, id).await;
        let mut after = before.clone();
        until(async || {
            after = rig.call("read", asked.clone()).await;
            after.1 != before.1
        })
        .await;
        let (headers, answer) = after;
        assert_eq!(said(&headers), "signed_url");
        assert_eq!(picture(&answer), picture(&rig.direct("read", asked.clone()).await));
        let (headers, again) = rig.call("read", asked).await;
        assert_eq!((said(&headers).as_str(), again), ("hit", answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_the_site_does_not_have_is_left_out_until_it_has_it() {
    let site = Site::empty();
    let project = site.create("Project", json!({"name": "Demo"})).expect("a project");
    let project = json!({"type": "Project", "id": project});
    site.create("Shot", json!({"code": "SH1", "project": project})).expect("a shot");
    let configs = [
        ("Project", r#"{"fields": {"name": {}, "archived": {}}}"#),
        ("Shot", r#"{"fields": {"code": {}, "project": {}}}"#),
    ];
    let rig = Rig::start(site, written(&configs), Settings::default()).await;
    let asked = || find("Shot", json!([]), &["code", "sg_money", "login", "project.Project.sg_money"]);
    // The first question has the schema read.
    until(async || said(&rig.call("read", asked()).await.0) == "hit").await;
    let (headers, answer) = rig.call("read", asked()).await;
    assert_eq!((said(&headers).as_str(), &answer), ("hit", &rig.direct("read", asked()).await));

    let properties = json!([{"property_name": "name", "value": "Money"}]);
    let field = json!({"type": "Shot", "data_type": "text", "properties": properties});
    let made = rig.direct("schema_field_create", field).await;
    assert_eq!(made["results"], "sg_money", "{made}");
    until(async || said(&rig.call("read", asked()).await.0) != "hit").await;
    let mut after = rig.call("read", asked()).await;
    until(async || {
        after = rig.call("read", asked()).await;
        said(&after.0) != "unknown_field"
    })
    .await;
    let (headers, answer) = after;
    assert_eq!(said(&headers), "uncached_field");
    assert_eq!(answer, rig.direct("read", asked()).await);
    assert!(entities(&answer)[0].get("sg_money").is_some_and(Value::is_null), "{answer}");
}
