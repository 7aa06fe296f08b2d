//! Imports, next to the same reads without a store.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;
use sgcache::api3::{Read, RowText, Summarize};
use sgcache::entity_config::TypeLayout;
use sgcache::filter::{RawFilter, RawLeaf, RawSort};
use sgcache::shotgun::{Answer, Client, Purpose};
use sgcache::state::State;
use sgcache::sync::{Follower, Settings};
use tokio::sync::Semaphore;

use super::Options;
use super::rig::{self, Cost, Parts, Room, Site};

const LATENCY: Duration = Duration::from_millis(150);
/// More rows say nothing new about a site that is waited for.
const ROWS_WITH_LATENCY: usize = 200_000;

/// An import that was made.
struct Taken {
    rows: u64,
    seconds: f64,
    requests: f64,
    cost: Cost,
    site_cpu: f64,
    server_cpu: f64,
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let site = Site::start(options.rows, Duration::ZERO)?;
    let room = Room::new(options)?;
    let store = if options.elasticsearch.is_some() { "elasticsearch" } else { "sqlite" };
    let (parts, taken) = import(&site, &room, options).await?;
    let rate = taken.rows as f64 / taken.seconds;
    println!(
        "import {store}: {} rows in {:.1} s, {rate:.0} rows/s; peak RSS {} MB ({} MB at the end without mapped files); CPU {:.1} s ({:.0} us a row), the site's {:.1} s, the server's {:.1} s",
        taken.rows,
        taken.seconds,
        taken.cost.peak_mb,
        taken.cost.own_mb,
        taken.cost.cpu_seconds,
        taken.cost.cpu_seconds * 1e6 / taken.rows as f64,
        taken.site_cpu,
        taken.server_cpu,
    );
    let (rows, seconds) = read_all(&parts).await?;
    println!(
        "import floor, the same pages read without a store: {rows} rows in {seconds:.1} s, {:.0} rows/s; import / floor {:.2}",
        rows as f64 / seconds,
        taken.seconds / seconds,
    );
    Ok(())
}

pub async fn run_with_latency(options: &Options) -> anyhow::Result<()> {
    let site = Site::start(options.at_most(ROWS_WITH_LATENCY), LATENCY)?;
    let room = Room::own()?;
    let (parts, taken) = import(&site, &room, options).await?;
    let (_, floor) = read_all(&parts).await?;
    let slots = Settings::default().imports_in_flight as f64;
    let latency = taken.requests * LATENCY.as_secs_f64() / slots;
    println!(
        "latency: {} rows in {:.1} s at {slots} in flight, {:.0} requests; the site explains {:.1} % ({floor:.1} s without a store), latency alone {:.1} %",
        taken.rows,
        taken.seconds,
        taken.requests,
        100.0 * floor / taken.seconds,
        100.0 * latency / taken.seconds,
    );
    Ok(())
}

async fn import(site: &Site, room: &Room, options: &Options) -> anyhow::Result<(Parts, Taken)> {
    let parts = Parts::of(&site.url).await?;
    let state = State::open(&room.path).await?;
    let store = rig::empty_store(options, &room.path).await?;
    let server_before = rig::server_cpu(options).await?;
    let follower = Follower::start_up(parts.replica(&store, &state), None).await?;
    let (before, site_before, begun) = (Cost::own(), site.cost(), Instant::now());
    let rows = rig::import(follower.replica()).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut cost = Cost::own();
    cost.cpu_seconds -= before.cpu_seconds;
    let site_cpu = site.cost().cpu_seconds - site_before.cpu_seconds;
    let server_cpu = rig::server_cpu(options).await? - server_before;
    let requests = parts.requests("import");
    Ok((parts, Taken { rows, seconds, requests, cost, site_cpu, server_cpu }))
}

/// Reads every page that an import reads, as many at once, and drops them.
async fn read_all(parts: &Parts) -> anyhow::Result<(u64, f64)> {
    let settings = Settings::default();
    let slots = Semaphore::new(settings.imports_in_flight);
    let begun = Instant::now();
    let types = stream::iter(&parts.layouts).map(|layout| read_type(&parts.client, layout, &slots));
    let rows: Vec<u64> = types.buffer_unordered(settings.imports_at_once).try_collect().await?;
    Ok((rows.iter().sum(), begun.elapsed().as_secs_f64()))
}

async fn read_type(client: &Client, layout: &TypeLayout, slots: &Semaphore) -> anyhow::Result<u64> {
    let summarize = Summarize::count(layout.entity_type.clone(), layout.raw_filter.clone());
    let count = client.summarize(&summarize, Purpose::Import).await?["summaries"]["id"].as_i64().unwrap_or(1);
    let newest = Read {
        order: vec![RawSort { path: "id".into(), descending: true }],
        ..Read::new(layout.entity_type.clone(), layout.raw_filter.clone(), 1)
    };
    let newest: Answer = client.read(&newest, Purpose::Import).await?;
    let last = newest.last_id().unwrap_or(0);
    let parts = (count / (i64::from(client.page_size()) * 2)).clamp(1, 32);
    let segments = (0..parts).map(|part| (last * part / parts, (part + 1 < parts).then(|| last * (part + 1) / parts)));
    let walks = stream::iter(segments).map(|(after, end)| walk(client, layout, after, end, slots));
    let rows: Vec<u64> = walks.buffer_unordered(8).try_collect().await?;
    Ok(rows.iter().sum())
}

async fn walk(
    client: &Client,
    layout: &TypeLayout,
    mut after: i64,
    end: Option<i64>,
    slots: &Semaphore,
) -> anyhow::Result<u64> {
    let mut conditions = vec![layout.raw_filter.clone()];
    conditions.extend(end.map(|end| {
        let values = vec![Value::from(end + 1)];
        RawFilter::Leaf(RawLeaf { path: "id".into(), relation: "less_than".into(), values })
    }));
    let filter = RawFilter::Group { any: false, conditions };
    let read = Read::new(layout.entity_type.clone(), filter, client.page_size()).fields(layout.field_names());
    let mut rows = 0;
    loop {
        let slot = slots.acquire().await?;
        let page: Answer<RowText> = client.read_after(&read, after, Purpose::Import).await?;
        drop(slot);
        rows += page.rows.len() as u64;
        after = page.last_id().unwrap_or(after);
        if !page.has_next_page {
            return Ok(rows);
        }
    }
}
