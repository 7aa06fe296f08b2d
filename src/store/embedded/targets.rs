//! What is known of the targets of links: name, dead or alive.
//!
//! Three sources, in this order: the target's own row where its type is cached,
//! a `relink`, the name that came along in a link. Within one source, and between
//! the first two, the newest read wins.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, Transaction, params};

use super::super::{FetchedRow, LinkTarget, ReadVersion, Referrers, Relinked, Result};
use super::changes;
use super::layouts::{Layouts, Numbers, Tables};
use super::memory::{Needs, Values};
use super::plan::Finder;
use crate::entity::{EntityRef, Shape, fold};
use crate::schema;

/// Names that came along in links, with the read that showed them; by number of
/// the type and id.
pub(super) type Learned<'a> = BTreeMap<(i64, i64), (Cow<'a, str>, ReadVersion)>;

const LEARN: &str = "
INSERT INTO targets (type, id, name, folded, name_rv, own, dead, state_rv, kept)
VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0, 0)
ON CONFLICT DO UPDATE SET
  name = excluded.name, folded = excluded.folded, name_rv = excluded.name_rv,
  -- The site leaves dead targets out of links: who is seen in one is alive.
  state_rv = CASE WHEN kept = 0 AND dead = 1 AND excluded.name_rv > state_rv THEN excluded.name_rv ELSE state_rv END,
  dead = CASE WHEN kept = 0 AND excluded.name_rv > state_rv THEN 0 ELSE dead END
WHERE own = 0 AND excluded.name_rv > name_rv";

const OWN_NAME: &str = "
INSERT INTO targets (type, id, name, folded, name_rv, own, dead, state_rv, kept)
VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?5, 1)
ON CONFLICT DO UPDATE SET
  name = CASE WHEN own = 0 OR excluded.name_rv >= name_rv THEN excluded.name ELSE name END,
  folded = CASE WHEN own = 0 OR excluded.name_rv >= name_rv THEN excluded.folded ELSE folded END,
  name_rv = CASE WHEN own = 0 OR excluded.name_rv >= name_rv THEN excluded.name_rv ELSE name_rv END,
  dead = CASE WHEN excluded.state_rv >= state_rv THEN excluded.dead ELSE dead END,
  state_rv = max(state_rv, excluded.state_rv), own = 1, kept = 1";

const OWN_STATE: &str = "
INSERT INTO targets (type, id, name_rv, own, dead, state_rv, kept) VALUES (?1, ?2, 0, 0, ?4, ?3, 1)
ON CONFLICT DO UPDATE SET
  dead = CASE WHEN excluded.state_rv >= state_rv THEN excluded.dead ELSE dead END,
  state_rv = max(state_rv, excluded.state_rv), own = 0, kept = 1";

/// Keeps the names that came along in links.
pub(super) fn learn(transaction: &Transaction<'_>, learned: &Learned<'_>) -> Result<()> {
    let mut statement = transaction.prepare_cached(LEARN)?;
    for ((ty, id), (name, rv)) in learned {
        statement.execute(params![ty, id, name, fold(name), rv.0])?;
    }
    Ok(())
}

/// Keeps name and state of a stored row.
pub(super) fn own_row(transaction: &Transaction<'_>, tables: &Tables, row: &FetchedRow) -> Result<()> {
    let (ty, id, rv, dead) = (tables.number, row.key().id, row.rv().0, row.state().is_dead());
    if row.state().has_document() && names_itself(tables) {
        let name = row.display_name();
        let mut statement = transaction.prepare_cached(OWN_NAME)?;
        statement.execute(params![ty, id, name, name.map(fold), rv, dead])?;
    } else {
        transaction.prepare_cached(OWN_STATE)?.execute(params![ty, id, rv, dead])?;
    }
    Ok(())
}

/// Tells whether rows of the type hold the name that links to them show.
fn names_itself(tables: &Tables) -> bool {
    let fields = &tables.layout.cached.fields;
    [schema::display_name_field(tables.entity_type()), "cached_display_name"]
        .iter()
        .any(|name| fields.contains_key(*name))
}

/// See [`super::super::Store::relink`].
pub(super) fn relink(transaction: &Transaction<'_>, layouts: &Layouts, target: &LinkTarget) -> Result<Relinked> {
    let ty = Numbers::new(transaction, layouts).of(target.key.entity_type.as_str())?;
    let (id, rv, dead) = (target.key.id, target.rv.0, target.state.is_dead());
    let known: Option<(i64, i64)> = transaction
        .prepare_cached("SELECT name_rv, state_rv FROM targets WHERE type = ?1 AND id = ?2")?
        .query_row([ty, id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if known.is_some_and(|(name_rv, state_rv)| name_rv.max(state_rv) > rv) {
        return Ok(Relinked { stale: true, ..Relinked::default() });
    }
    let sql = "
INSERT INTO targets (type, id, name, folded, name_rv, own, dead, state_rv, kept)
VALUES (?1, ?2, ?3, ?4, iif(?3 IS NULL, 0, ?5), 0, ?6, ?5, 0)
ON CONFLICT DO UPDATE SET
  name = coalesce(excluded.name, name), folded = coalesce(excluded.folded, folded),
  name_rv = max(name_rv, excluded.name_rv), dead = excluded.dead, state_rv = excluded.state_rv";
    let name = target.name.as_deref();
    transaction.prepare_cached(sql)?.execute(params![ty, id, name, name.map(fold), rv, dead])?;
    changes::note(transaction, ty, std::iter::once(id))?;
    Ok(Relinked::default())
}

/// Returns every column that holds links.
pub(super) fn links(layouts: &Layouts) -> Needs {
    let columns = |tables: &Tables| {
        let links = tables.columns().iter().filter(|column| column.shape() == Shape::Link);
        links.map(|column| column.number).collect::<BTreeSet<_>>()
    };
    layouts.all().map(|tables| (tables.number, columns(tables))).collect()
}

/// See [`super::super::Store::referrers`].
pub(super) fn referrers(finder: &Finder<'_>, target: &EntityRef, limit: usize) -> Result<Referrers> {
    let ty = finder.layouts.number(target.entity_type.as_str());
    let wanted = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut keys = BTreeSet::new();
    for tables in finder.layouts.all() {
        let rows = finder.rows(tables)?;
        let mut there = rows.active().clone();
        there.add(rows.retired());
        let mut ids = Vec::new();
        for column in tables.columns() {
            match column.shape() {
                Shape::Links => {
                    let (links, field) = (tables.links(), column.number);
                    let sql =
                        format!("SELECT id FROM {links} WHERE field = {field} AND type = ?1 AND target = ?2 LIMIT ?3");
                    let mut statement = finder.reader.prepare_cached(&sql)?;
                    let found = statement.query_map([ty, target.id, wanted], |row| row.get::<_, i64>(0))?;
                    ids.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
                }
                Shape::Link => {
                    let Values::Links(links, _) = finder.values(tables, &column.field)? else { continue };
                    let Some(code) = links.code(&(ty, target.id)) else { continue };
                    let found = links.having(&there, &[code]);
                    ids.extend(found.iter().take(limit.saturating_add(1)).map(|slot| rows.ids()[slot as usize]));
                }
                _ => {}
            }
        }
        keys.extend(ids.into_iter().map(|id| EntityRef { entity_type: tables.entity_type().clone(), id }));
    }
    let more = keys.len() > limit;
    Ok(Referrers { keys: keys.into_iter().take(limit).collect(), more })
}
