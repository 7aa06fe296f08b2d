//! Answers of several parts over a real Elasticsearch, which counts no moments: they are of
//! one moment all the same.

use std::sync::Arc;

use sgcache::proxy::Settings;
use sgcache::sim::{Sim, SimSettings};
use sgcache::store::elasticsearch::ElasticsearchStore;

use crate::elastic_store::settings;
use crate::proxy_listener::{CONFIGS, filled, read_counted_pages, summarize_in_parts, while_a_row_comes_and_goes};
use crate::proxy_rig::{Rig, written};
use crate::servers::{TestIndices, elasticsearch};

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_rows_of_an_answer_are_of_one_moment() {
    let Some(url) = elasticsearch("elastic_answers") else { return };
    let indices = TestIndices::new(url);
    let store = ElasticsearchStore::open(&settings(url), indices.prefix()).await.expect("a store");
    let sim = Sim::serve(filled(), &SimSettings::default()).await.expect("a site");
    let (address, directory) = (sim.url(), tempfile::tempdir().expect("a directory"));
    let over = (directory, Arc::new(store) as Arc<_>);
    let rig = Rig::begin_over(sim, address, written(CONFIGS), Settings::default(), over).await;
    rig.live().await;
    while_a_row_comes_and_goes(&rig, async || {
        assert!(read_counted_pages(&rig, 25).await > 0);
        assert!(summarize_in_parts(&rig, 25).await > 0);
    })
    .await;
    rig.shutdown().await;
}
