//! False and missed alarms of `validateCounts` while people work.
//!
//! The second look comes at once (`confirm_pause` is zero) and edits come as fast
//! as every 20 ms while a validation runs: harsher than two edits a second and
//! the pauses that a daemon makes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sgcache::entity::EntityRef;
use sgcache::report::StepResult;
use sgcache::sim::{Edits, Sim, SimSettings};
use sgcache::state::State;
use sgcache::store::{FetchedRow, Fields, ReadVersion, Store};
use sgcache::sync::Replica;
use sgcache::validate::{Settings, Validator};
use tokio_util::sync::CancellationToken;

use super::Options;
use super::rig::{self, Parts, Room};

const ENTITIES: usize = 20_000;
const EDIT_EVERY: Duration = Duration::from_millis(20);
/// No edit touches rows of this type that exist already.
const VICTIMS: &str = "PublishedFile";

/// What is validated again and again.
struct Bench {
    parts: Parts,
    replica: Replica,
    validator: Validator,
    edits: Option<Edits>,
    made: u64,
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let sim = Sim::start(SimSettings { entities: ENTITIES, ..SimSettings::default() }).await?;
    let parts = Parts::of(&sim.url()).await?;
    let room = Room::own()?;
    let (state, store) = (State::open(&room.path).await?, rig::store(options, &room.path).await?);
    let rows = rig::go_live(&parts, &store, &state).await?;
    let replica = parts.replica(&store, &state);
    let settings = Settings { confirm_pause: Duration::ZERO, ..Settings::default() };
    let validator = Validator::new(replica.clone()).with_settings(settings);
    let edits = Some(Edits::new(Arc::clone(sim.site()), 7));
    let mut bench = Bench { parts, replica, validator, edits, made: 0 };
    bench.count_false_alarms(options.runs, rows).await?;
    bench.count_missed(options.runs, &store).await?;
    sim.shutdown().await;
    Ok(())
}

impl Bench {
    async fn count_false_alarms(&mut self, runs: u64, rows: u64) -> anyhow::Result<()> {
        let (begun, made) = (Instant::now(), self.made);
        let (mut alarms, mut unverifiable) = (0, 0);
        for _ in 0..runs {
            let result = self.validate(false).await?;
            if result.drift > 0 {
                alarms += 1;
                println!("counts: a false alarm: {:?}", result.mismatches);
            }
            unverifiable += result.unverifiable;
        }
        let (seconds, made) = (begun.elapsed().as_secs_f64(), self.made - made);
        println!(
            "counts on a correct cache of {rows} rows: {alarms} false alarms in {runs} runs, {made} edits meanwhile ({:.1} a second), {unverifiable} rows unverifiable, {:.0} ms a run",
            made as f64 / seconds,
            seconds * 1e3 / runs as f64,
        );
        Ok(())
    }

    async fn count_missed(&mut self, runs: u64, store: &Arc<dyn Store>) -> anyhow::Result<()> {
        let mut rng = StdRng::seed_from_u64(3);
        let last = last_id(&self.parts).await?;
        let (begun, made) = (Instant::now(), self.made);
        let (mut found, mut repaired, mut others) = (0, 0, 0);
        for _ in 0..runs {
            let victim = self.remove_one(store, &mut rng, last).await?;
            let result = self.validate(true).await?;
            let named =
                result.mismatches.iter().any(|mismatch| mismatch.id == victim.id && mismatch.entity_type == VICTIMS);
            found += u64::from(named);
            others += result.drift - u64::from(named);
            repaired += u64::from(!store.get(&[victim], &Fields::Only(Vec::new())).await?.is_empty());
        }
        let (seconds, made) = (begun.elapsed().as_secs_f64(), self.made - made);
        println!(
            "counts with one row removed: found {found} of {runs}, {repaired} repaired, {others} other alarms, {made} edits meanwhile ({:.1} a second), {:.0} ms a run",
            made as f64 / seconds,
            seconds * 1e3 / runs as f64,
        );
        Ok(())
    }

    /// Validates every type while edits go on.
    async fn validate(&mut self, repair: bool) -> anyhow::Result<StepResult> {
        let Some(mut edits) = self.edits.take() else { anyhow::bail!("a validation was broken off") };
        let stop = CancellationToken::new();
        let until = stop.clone();
        let working = tokio::spawn(async move {
            let mut made = 0;
            while !until.is_cancelled() {
                edits.step();
                made += 1;
                tokio::time::sleep(EDIT_EVERY).await;
            }
            (edits, made)
        });
        let result = self.validator.counts(&self.parts.layouts, repair).await;
        stop.cancel();
        let (edits, made) = working.await?;
        self.edits = Some(edits);
        self.made += made;
        Ok(result?)
    }

    /// Removes a stored row that is there, and returns its key.
    async fn remove_one(&self, store: &Arc<dyn Store>, rng: &mut StdRng, last: i64) -> anyhow::Result<EntityRef> {
        loop {
            let key = EntityRef::new(VICTIMS, rng.random_range(1..=last));
            if store.get(std::slice::from_ref(&key), &Fields::Only(Vec::new())).await?.is_empty() {
                continue;
            }
            let rv = ReadVersion(self.replica.state().next_rv().await?);
            store.put(&[FetchedRow::absent(key.clone(), rv, self.replica.now().timestamp(), None)]).await?;
            return Ok(key);
        }
    }
}

/// Returns the highest id among the victims.
async fn last_id(parts: &Parts) -> anyhow::Result<i64> {
    use sgcache::api3::Read;
    use sgcache::filter::{RawFilter, RawSort};
    use sgcache::shotgun::{Answer, Purpose};
    let order = vec![RawSort { path: "id".into(), descending: true }];
    let read = Read { order, ..Read::new(VICTIMS, RawFilter::everything(), 1) };
    let newest: Answer = parts.client.read(&read, Purpose::Validate).await?;
    Ok(newest.last_id().unwrap_or(1))
}
