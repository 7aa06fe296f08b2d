//! Which ids a filter can match at all: the part of it that needs no look at the
//! rows.
//!
//! Conditions on `id` and on links that are followed backwards become ranges of
//! ids; everything else is asked of each row in them. So a page by keyset, a poll
//! of the event log and the tasks of a shot cost what they return.

use super::schema::{Role, TypeId};
use super::world::World;
use shotgun_model::entity::{EntityRef, FieldValue};
use shotgun_model::filter::{Filter, Leaf, Test};

/// Disjoint ranges of ids, in order, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids(pub Vec<(u32, u32)>);

impl Ids {
    /// Every id.
    pub fn all() -> Self {
        Self(vec![(0, u32::MAX)])
    }

    fn of_points(mut points: Vec<u32>) -> Self {
        points.sort_unstable();
        points.dedup();
        Self(points.into_iter().map(|id| (id, id)).collect())
    }

    fn intersect(&self, other: &Self) -> Self {
        let (mut a, mut b) = (0, 0);
        let mut both = Vec::new();
        while let (Some(x), Some(y)) = (self.0.get(a), other.0.get(b)) {
            let (first, last) = (x.0.max(y.0), x.1.min(y.1));
            if first <= last {
                both.push((first, last));
            }
            if x.1 < y.1 { a += 1 } else { b += 1 }
        }
        Self(both)
    }

    fn unite(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.0 <= last.1.saturating_add(1) => last.1 = last.1.max(range.1),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

/// Returns the ids that rows passing the filter can have.
pub fn candidates(world: &World, ty: TypeId, filter: &Filter) -> Ids {
    narrow(world, ty, filter).unwrap_or_else(Ids::all)
}

/// `None`: any id.
fn narrow(world: &World, ty: TypeId, filter: &Filter) -> Option<Ids> {
    match filter {
        Filter::All(conditions) => {
            let narrowed = conditions.iter().filter_map(|condition| narrow(world, ty, condition));
            narrowed.reduce(|a, b| a.intersect(&b))
        }
        Filter::Any(conditions) => {
            let mut ranges = Vec::new();
            for condition in conditions {
                ranges.extend(narrow(world, ty, condition)?.0);
            }
            Some(Ids::unite(ranges))
        }
        Filter::Leaf(leaf) => of_leaf(world, ty, leaf),
    }
}

fn of_leaf(world: &World, ty: TypeId, leaf: &Leaf) -> Option<Ids> {
    if leaf.negated || !leaf.path.is_local() {
        return None;
    }
    if leaf.path.field == "id" {
        return of_id(&leaf.test);
    }
    let Test::LinkTo(targets) = &leaf.test else { return None };
    of_link(world, ty, &leaf.path.field, targets)
}

fn of_id(test: &Test) -> Option<Ids> {
    let int = |value: &FieldValue| match value {
        FieldValue::Int(number) => Some(*number),
        _ => None,
    };
    let id = |number: i64| u32::try_from(number.clamp(0, i64::from(u32::MAX))).unwrap_or(0);
    let range = |first: i64, last: i64| {
        let inside = first <= last && last >= 0 && first <= i64::from(u32::MAX);
        Ids(if inside { vec![(id(first), id(last))] } else { Vec::new() })
    };
    Some(match test {
        Test::OneOf(values) => {
            Ids::of_points(values.iter().filter_map(int).filter_map(|n| u32::try_from(n).ok()).collect())
        }
        Test::Less(bound) => range(0, int(bound)?.saturating_sub(1)),
        Test::Greater(bound) => range(int(bound)?.saturating_add(1), i64::from(u32::MAX)),
        Test::Between(first, last) => range(int(first)?, int(last)?),
        _ => return None,
    })
}

fn of_link(world: &World, ty: TypeId, field: &str, targets: &[EntityRef]) -> Option<Ids> {
    let field = world.layout.field_id(ty, field)?;
    let info = world.layout.field(ty, field);
    let mut points = Vec::new();
    for target in targets {
        // A target that the site does not know is in no link.
        let Some(target) = world.key(target) else { continue };
        match info.role {
            Role::Stored if info.indexed => points.extend_from_slice(world.referrers(ty, field, target)),
            // The list is stored at the target: whom it names is the answer.
            Role::Back(owner, forward) if owner == target.ty => {
                let keys = world.cell(target, forward).keys().iter();
                points.extend(keys.filter(|key| key.ty == ty).map(|key| key.id));
            }
            Role::Back(..) => {}
            _ => return None,
        }
    }
    Some(Ids::of_points(points))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_intersect_and_unite() {
        let a = Ids(vec![(1, 10), (20, 30)]);
        assert_eq!(a.intersect(&Ids(vec![(5, 22), (30, 40)])), Ids(vec![(5, 10), (20, 22), (30, 30)]));
        assert_eq!(Ids::unite(vec![(20, 30), (1, 5), (6, 10), (25, 40)]), Ids(vec![(1, 10), (20, 40)]));
        assert_eq!(Ids::of_points(vec![3, 1, 3]), Ids(vec![(1, 1), (3, 3)]));
    }
}
