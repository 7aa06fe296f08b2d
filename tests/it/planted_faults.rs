//! Faults that are planted at real daemons, and the alerts that a real Prometheus fires for
//! them: exactly those, and none for a daemon beside them that is well.
//!
//! The rules are the shipped ones with shorter waits: minutes of `for` are a few seconds, and
//! ranges are as long as a few scrapes. Limits in seconds stay as they are, so that this takes
//! two minutes, most of them waiting.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use regex_lite::{Captures, Regex};
use serde_json::{Value, json};
use sgcache::entity::{EntityRef, EntityType};
use sgcache::sim::{Sim, SimHandle, SimSettings, Trouble};
use sgcache::state::{DeadKind, Finish, NewDead, SiteTime, State};

use crate::program::{Place, free_address};
use crate::prometheus::{Prometheus, program, repository};
use crate::proxy_rig::{call_with_status, find};

/// The shipped rules with shorter waits.
pub fn scaled_rules() -> String {
    let rules = std::fs::read_to_string(repository("metrics/prometheus/sgcache.rules.yml")).expect("the rules");
    let wait = Regex::new(r"for: (\d+)m\b").expect("a pattern");
    let rules = wait.replace_all(&rules, |found: &Captures<'_>| {
        let minutes: u32 = found[1].parse().expect("a number");
        // Sync measures its gauges every five seconds: what one of them shows once is not for long.
        format!("for: {}s", if minutes < 5 { 1 } else { 6 })
    });
    let rules = rules.into_owned();
    [("[5m]", "[20s]"), ("[15m]", "[5s]"), ("[1h]", "[60s]")]
        .iter()
        .fold(rules, |rules, (long, short)| rules.replace(long, short))
}

/// A filled site on the address of a place, in this process.
async fn site(place: &Place) -> SimHandle {
    let listen = place.site.parse().expect("an address");
    Sim::start(SimSettings { listen, entities: 600, edits_per_second: 0.0, ..Default::default() })
        .await
        .expect("a site")
}

/// Waits until exactly these alerts fire for a daemon; `work` goes on meanwhile.
pub async fn fires(prometheus: &Prometheus, place: &Place, expected: &[&str], mut work: impl AsyncFnMut()) {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        work().await;
        let firing = prometheus.firing(&place.ops).await;
        if firing == expected {
            return;
        }
        assert!(Instant::now() < deadline, "firing: {firing:?}, expected: {expected:?}");
        // Between two looks at another process, which evaluates its rules every second.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Waits until no alert fires any more, and demands that only these ever did.
pub async fn clears(prometheus: &Prometheus, place: &Place, fired: &[&str], work: impl AsyncFnMut()) {
    fires(prometheus, place, &[], work).await;
    let ever: Vec<String> = prometheus.ever_fired(&place.ops).await.into_iter().collect();
    assert_eq!(ever, fired, "what ever fired");
}

/// Makes a dead letter of an event log entry, which no later read resolves.
async fn refuse_entry(state: &State) {
    let now = SiteTime(1_000_000);
    let read = state.begin_read(&EntityType::new("Shot"), now).await.expect("a read");
    let key = EntityRef::new("EventLogEntry", 99);
    let dead = vec![NewDead { kind: DeadKind::Event, key, payload: "{}".into(), error: "it has no entity".into() }];
    state.finish(Finish { dead, ..Finish::new(read, now) }).await.expect("a finish");
}

/// Asks the proxy of a place; returns the status of the answer.
pub async fn ask(place: &Place, method: &str, argument: Value) -> u16 {
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    call_with_status(&format!("http://{}", place.api), auth, method, argument).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_fault_fires_exactly_its_alerts() {
    if program("SGCACHE_TEST_PROMETHEUS", "planted_faults").is_none() {
        return;
    }
    let [well, down, denied, wrong, slow] = [(); 5].map(|()| Place::new());
    // Reports go to an address at which no cluster is.
    let config = std::fs::read_to_string(wrong.path("config.yaml")).expect("the configuration");
    let cluster = format!("{config}\nreports: {{elasticsearch: {{url: \"http://{}\"}}}}\n", free_address());
    std::fs::write(wrong.path("config.yaml"), cluster).expect("the configuration is written");
    let (_well, down_site, denied_site, _wrong) =
        (site(&well).await, down.sim(600, 0.0), site(&denied).await, site(&wrong).await);
    let slow_site = site(&slow).await;
    let often = "name: often\nschedule: { cron: \"*/5 * * * * *\", seconds: true }\n\
                 steps: [{ id: prune, job: pruneReports }]\n";
    std::fs::write(wrong.path("pipelines/often.yaml"), often).expect("a file");
    let places = [&well, &down, &denied, &wrong, &slow];
    let _daemons = places.map(Place::daemon);
    assert_eq!(ask(&down, "read", find("Shot", json!([]), &["code"])).await, 200);
    let targets: Vec<String> = places.iter().map(|place| place.ops.clone()).collect();
    let prometheus = Prometheus::with_rules(&targets, &scaled_rules()).await.expect("a Prometheus");
    prometheus.wait_for_scrapes(3).await;

    down_site.kill();
    slow_site.site().troubles.delay(Duration::from_secs(4).into());
    denied_site.site().troubles.next(u32::MAX, Trouble::Status(403));
    // Planted one after the other: each adds its own alert and no other.
    let idle = async || {};
    wrong.run(&["job", "corrupt", "--rows", "3"]).expect_code(0);
    wrong.run(&["job", "validateData", "--limit", "5000"]).expect_code(10);
    fires(&prometheus, &wrong, &["SgcacheDrift", "SgcacheReportsWaiting"], idle).await;
    let state = State::open(&wrong.path("data")).await.expect("a state");
    refuse_entry(&state).await;
    fires(&prometheus, &wrong, &["SgcacheDeadLetters", "SgcacheDrift", "SgcacheReportsWaiting"], idle).await;
    wrong.run(&["pipelines", "pause", "often", "--reason", "it is forgotten"]).expect_code(0);
    let forgotten = ["SgcacheDeadLetters", "SgcacheDrift", "SgcacheReportsWaiting", "SgcacheTaskOverdue"];
    fires(&prometheus, &wrong, &forgotten, idle).await;
    std::fs::write(wrong.path("pipelines/mine.yaml"), "name: mine\nstep: []\n").expect("a file");
    let all = [&forgotten[..], &["SgcacheConfigInvalid"]].concat();
    fires(&prometheus, &wrong, &all, idle).await;
    fires(&prometheus, &slow, &["SgcacheSourceSlow"], idle).await;

    let silent = ["SgcacheSourceErrors", "SgcacheSyncStalled", "SgcacheTypeNotFresh"];
    let refused = [&silent[..], &["SgcacheSourceDenied"]].concat();
    fires(&prometheus, &denied, &refused, idle).await;
    let away = [&silent[..], &["SgcacheServingStale", "SgcacheWritesFailing"]].concat();
    fires(&prometheus, &down, &away, async || {
        ask(&down, "read", find("Shot", json!([]), &["code"])).await;
        ask(&down, "create", json!({"type": "Shot", "fields": [{"field_name": "code", "value": "x"}]})).await;
    })
    .await;
    assert_eq!(prometheus.ever_alerted(&well.ops).await, BTreeSet::new(), "a daemon that is well");
}
