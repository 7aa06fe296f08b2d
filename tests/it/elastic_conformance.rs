//! The Elasticsearch store does what every store must do, and answers every scenario.

use std::time::Duration;

use sgcache::elastic::Settings;
use sgcache::store::elasticsearch::ElasticsearchStore;

use crate::servers::{TestIndices, elasticsearch};
use crate::{scenarios, store_conformance, store_property};

async fn open(url: &str, indices: &TestIndices) -> ElasticsearchStore {
    let mut settings = Settings::new([url]);
    settings.retry.first_pause = Duration::from_millis(1);
    ElasticsearchStore::open(&settings, indices.prefix()).await.unwrap()
}

#[tokio::test]
async fn the_elasticsearch_store_conforms() {
    let Some(url) = elasticsearch("elastic_conformance") else { return };
    let indices = TestIndices::new(url);
    store_conformance::run(&open(url, &indices).await).await;
}

#[tokio::test]
async fn the_elasticsearch_store_answers_every_scenario() {
    let Some(url) = elasticsearch("elastic_conformance") else { return };
    let indices = TestIndices::new(url);
    scenarios::run(&open(url, &indices).await).await;
}

#[test]
fn the_elasticsearch_store_agrees_with_local_evaluation() {
    let Some(url) = elasticsearch("elastic_conformance") else { return };
    let indices = TestIndices::new(url);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(open(url, &indices));
    store_property::agree(&runtime, &store, &[], 8);
}
