//! The Elasticsearch store does what every store must do.

use std::time::Duration;

use sgcache::elastic::Settings;
use sgcache::store::elasticsearch::ElasticsearchStore;

use crate::servers::{TestIndices, elasticsearch};
use crate::store_conformance;

#[tokio::test]
async fn the_elasticsearch_store_conforms() {
    let Some(url) = elasticsearch("elastic_conformance") else { return };
    let indices = TestIndices::new(url);
    let mut settings = Settings::new([url]);
    settings.retry.first_pause = Duration::from_millis(1);
    let store = ElasticsearchStore::open(&settings, indices.prefix()).await.unwrap();
    store_conformance::run(&store).await;
}
