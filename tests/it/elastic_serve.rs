//! More than one host: `sgcache serve` beside the daemon, over one Elasticsearch.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use sgcache::elastic::Client;
use sgcache::sim::{Sim, SimHandle, SimSettings};
use sgcache::state::{ReplicationStatus, SiteTime, TypeReplicationStatus, TypeState};
use sgcache::sync::{ClusterChannel, ClusterError, LeaderStatus};

use crate::elastic_store::settings;
use crate::loops::FAULTS;
use crate::program::{Place, Running};
use crate::proxy_rig::{call, find, said};
use crate::servers::{TestIndices, elasticsearch};

const SUITE: &str = "elastic_serve";

/// A host: a directory with the configuration, adapted to the cluster and the site.
fn host(url: &str, prefix: &str, site: &str) -> Place {
    let place = Place::new();
    let store = format!("store:\n  kind: elasticsearch\n  url: {url}\n  prefix: {prefix}\n  replicas: 0");
    place.edit("config.yaml", "store:\n  kind: embedded", &store);
    place.edit("config.yaml", &place.site, site);
    place.edit("config.yaml", "# api:\n", "api: { max_age: 5s, callers: [{ script: quiet }] }\n# api:\n");
    place
}

async fn site() -> SimHandle {
    Sim::start(SimSettings { entities: 600, ..Default::default() }).await.expect("a site")
}

fn own() -> Value {
    json!({"script_name": "sgcache", "script_key": "sgcache-sim"})
}

/// Reads the code of a shot through a host; returns also what was done.
async fn code(host: &Place, id: i64) -> (String, Value) {
    let asked = find("Shot", json!([["id", "is", id]]), &["code"]);
    let (headers, answer) = call(&format!("http://{}", host.api), own(), "read", asked).await;
    (said(&headers), answer["results"]["entities"][0]["code"].clone())
}

async fn rename(host: &Place, auth: Value, id: i64, code: &str) {
    let argument = json!({"type": "Shot", "id": id, "fields": [{"field_name": "code", "value": code}]});
    let (_, answer) = call(&format!("http://{}", host.api), auth, "update", argument).await;
    assert_eq!(answer["results"]["code"], code, "{answer}");
}

/// Reads until it is as wanted; what is read before must be one of the others.
async fn until(host: &Place, id: i64, wanted: (&str, &str), before: &[&str]) {
    let mut last = (String::new(), String::new());
    for _ in 0..1_200 {
        let (how, value) = code(host, id).await;
        let value = value.as_str().expect("a code").to_owned();
        if (how.as_str(), value.as_str()) == wanted {
            return;
        }
        assert!(value == wanted.1 || before.contains(&value.as_str()), "{value} is neither");
        last = (how, value);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{last:?} never became {wanted:?}");
}

/// The id of some shot, and its code.
async fn some_shot(url: &str) -> (i64, String) {
    let asked = find("Shot", json!([]), &["code"]);
    let (_, answer) = call(url, own(), "read", asked).await;
    let shot = &answer["results"]["entities"][3];
    (shot["id"].as_i64().expect("an id"), shot["code"].as_str().expect("a code").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_show_their_own_writes_at_once_and_those_of_others_soon() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let (indices, sim) = (TestIndices::new(url), site().await);
    let address = sim.url().replace("http://", "");
    let [leader, one, two] = [(); 3].map(|()| host(url, indices.prefix(), &address));
    let (one_running, two_running) = (one.serving(), two.serving());
    let (id, first) = some_shot(&sim.url()).await;
    // Before a leader has said anything, the site answers; first of all for the credential.
    assert_eq!(code(&one, id).await, ("unverified".into(), json!(first)));
    assert_eq!(code(&one, id).await, ("not_live".into(), json!(first)));
    let daemon = leader.daemon();
    until(&one, id, ("hit", &first), &[]).await;
    until(&two, id, ("hit", &first), &[]).await;

    for round in 0..3 {
        let (code_now, before) = (format!("round-{round}"), code(&one, id).await.1);
        let (writer, other) = if round == 1 { (&two, &one) } else { (&one, &two) };
        rename(writer, own(), id, &code_now).await;
        assert_eq!(code(writer, id).await.1, json!(code_now), "its own write");
        until(other, id, ("hit", &code_now), &[before.as_str().expect("a code")]).await;
        until(writer, id, ("hit", &code_now), &[]).await;
    }

    // A script whose changes no event tells: the leader is told by the host.
    let quiet = json!({"type": "ApiUser", "fields": [{"field_name": "firstname", "value": "quiet"},
        {"field_name": "salted_password", "value": "key"}, {"field_name": "generate_event_log_entries", "value": false}]});
    call(&sim.url(), own(), "create", quiet).await;
    rename(&one, json!({"script_name": "quiet", "script_key": "key"}), id, "silent").await;
    assert_eq!(code(&one, id).await.1, json!("silent"));
    until(&one, id, ("hit", "silent"), &[]).await;
    until(&two, id, ("hit", "silent"), &["round-2"]).await;

    // Without a leader nothing is vouched for; a new one goes on where it stopped.
    drop(daemon);
    until(&one, id, ("stale", "silent"), &[]).await;
    rename(&one, own(), id, "alone").await;
    assert_eq!(code(&one, id).await.1, json!("alone"));
    let daemon = leader.daemon();
    until(&one, id, ("hit", "alone"), &[]).await;
    until(&two, id, ("hit", "alone"), &["silent"]).await;
    drop(daemon);
    for host in [one_running, two_running] {
        assert_eq!(host.terminate().0, Some(0));
    }
    sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_loop_of_a_host_that_panics_is_started_again_or_ends_the_process() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let (indices, sim) = (TestIndices::new(url), site().await);
    let address = sim.url().replace("http://", "");
    let [leader, one] = [(); 2].map(|()| host(url, indices.prefix(), &address));
    let (id, first) = some_shot(&sim.url()).await;
    let (daemon, running) = (leader.daemon(), one.serving());
    until(&one, id, ("hit", &first), &[]).await;
    let loops = ["freshness", "api_listener", "ops_listener"];
    for name in loops {
        one.order(name, "panic");
    }
    for name in loops {
        one.until_restarted(name, "panic");
    }
    // Written and followed through the loops that came after.
    rename(&one, own(), id, "after every panic").await;
    until(&one, id, ("hit", "after every panic"), &[]).await;
    one.until("/readyz", |status, _| status == 200);

    one.order("freshness", "panic always");
    let (code, said) = running.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the freshness loop was given up"), "{said}");
    assert_eq!(daemon.terminate().0, Some(0));
    sim.shutdown().await;
}

impl Place {
    /// Starts `sgcache serve` and waits until it listens.
    fn serving(&self) -> Running {
        let running = Running::spawn(self.command(&["serve"]).envs(FAULTS).stdout(Stdio::piped()));
        self.until("/livez", |status, _| status == 200);
        running
    }
}

#[test]
fn rows_on_one_machine_cannot_be_served_from_another() {
    let place = Place::new();
    place.run(&["serve"]).expect_code(78).says(&["sgcache serve", "store.kind: elasticsearch", "pipelines run"]);
    let store = "store:\n  kind: elasticsearch\n  url: http://127.0.0.1:1";
    place.edit("config.yaml", "store:\n  kind: embedded", store);
    place.edit("config.yaml", "# api:\n", "api: { mode: shadow }\n# api:\n");
    place.run(&["serve"]).expect_code(78).says(&["api.mode: shadow", "at the daemon"]);
}

fn notice(leader: &str, at: i64) -> LeaderStatus {
    let shot = TypeReplicationStatus {
        state: TypeState::Live,
        layout_hash: "1".into(),
        breaker: false,
        quarantined: [3].into(),
    };
    let standing = ReplicationStatus {
        complete_as_of: Some(SiteTime(at)),
        types: BTreeMap::from([("Shot".into(), shot)]),
        marked: BTreeMap::from([("Shot".into(), SiteTime(at - 1))]),
        ..ReplicationStatus::default()
    };
    LeaderStatus { leader: leader.into(), now: SiteTime(at + 1), standing }
}

#[tokio::test]
async fn a_leader_that_was_replaced_is_not_heard() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let channel = ClusterChannel::new(Client::new(&settings(url)).expect("a client"), indices.prefix());
    assert_eq!(channel.read().await.expect("no index yet"), None);
    channel.prepare().await.expect("indices");
    channel.prepare().await.expect("the same ones");
    assert_eq!(channel.read().await.expect("no notice yet"), None);
    assert!(channel.publish(&notice("new", 1_000), (7 << 40) | 1).await.expect("an answer"));
    assert!(!channel.publish(&notice("old", 9_000), (6 << 40) | 99).await.expect("an answer"));
    assert_eq!(channel.read().await.expect("a notice").map(|(_, notice)| notice), Some(notice("new", 1_000)));
}

#[tokio::test]
async fn an_index_of_somebody_else_is_not_written_to() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let foreign = format!("{url}/{}/_doc/1?refresh=true", indices.name("marks"));
    let body = json!({"keys": "of a house"});
    reqwest::Client::new().put(foreign).json(&body).send().await.expect("an answer").error_for_status().expect("made");
    let channel = ClusterChannel::new(Client::new(&settings(url)).expect("a client"), indices.prefix());
    let error = channel.prepare().await.expect_err("not ours");
    assert!(matches!(error, ClusterError::NotOurs(_)) && error.to_string().contains("store.prefix"), "{error}");
}
