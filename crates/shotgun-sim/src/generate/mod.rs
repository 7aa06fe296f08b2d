//! Makes a studio: projects of very different sizes with everything in them,
//! the same for the same seed.
//!
//! Rows are put straight into their tables; a history of a million writes would
//! take minutes. What a follower of the event log wants to see is made after that
//! by [`super::edits`].

mod base;
mod project;
mod words;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::cell::{Cell, Key};
use super::table::Row;
use super::world::World;
use shotgun_model::entity::Timestamp;

pub use words::{FIRST_NAMES, LAST_NAMES, SENTENCE};

/// The moment at which the generated data ends: 2026-01-01. A fixed one, so that
/// the same seed is the same site on every day.
pub const END: Timestamp = Timestamp(1_767_225_600);

/// The time that the data covers, in seconds: two years.
const SPAN: i64 = 2 * 365 * 86_400;

/// Fills an empty site with about `entities` rows.
pub fn generate(world: &mut World, seed: u64, entities: usize) {
    let mut studio = Studio::new(world, seed, entities);
    base::fill(&mut studio);
    project::fill(&mut studio);
}

/// What everything in the data refers to.
struct Studio<'w> {
    world: &'w mut World,
    rng: StdRng,
    /// The rows that are still to be made.
    left: usize,
    entities: usize,
    people: Vec<Key>,
    tags: Vec<Key>,
    shot_steps: Vec<(Key, &'static str)>,
    asset_steps: Vec<(Key, &'static str)>,
    file_types: Vec<Key>,
    storage: Option<Key>,
    templates: Vec<Key>,
}

type Cells = Vec<(&'static str, Cell)>;

impl<'w> Studio<'w> {
    fn new(world: &'w mut World, seed: u64, entities: usize) -> Self {
        Self {
            world,
            rng: StdRng::seed_from_u64(seed),
            left: entities,
            entities,
            people: Vec::new(),
            tags: Vec::new(),
            shot_steps: Vec::new(),
            asset_steps: Vec::new(),
            file_types: Vec::new(),
            storage: None,
            templates: Vec::new(),
        }
    }

    /// Makes a row and returns its key.
    fn put(&mut self, entity_type: &str, cells: Cells) -> Key {
        let ty = self.world.layout.type_id(entity_type).expect("the generator names types of the standard schema");
        let mut row = Row::default();
        for (name, cell) in cells {
            let field = self.world.layout.field_id(ty, name);
            let field = field.unwrap_or_else(|| panic!("the standard schema has no {entity_type}.{name}"));
            row.set(field, cell);
        }
        row.shrink();
        let key = Key { ty, id: self.world.take_id(ty) };
        self.world.insert(key, row);
        self.left = self.left.saturating_sub(1);
        key
    }

    /// Makes a row that knows who made it and when.
    fn put_stamped(&mut self, entity_type: &str, mut cells: Cells) -> Key {
        let made = END.0 - self.rng.random_range(0..SPAN);
        let touched = made + self.rng.random_range(0..=(END.0 - made));
        let (maker, editor) = (self.person(), self.person());
        cells.push(("created_at", Cell::Moment(Timestamp(made))));
        cells.push(("updated_at", Cell::Moment(Timestamp(touched))));
        cells.extend(maker.map(|key| ("created_by", Cell::Link(key))));
        cells.extend(editor.map(|key| ("updated_by", Cell::Link(key))));
        self.put(entity_type, cells)
    }

    fn person(&mut self) -> Option<Key> {
        self.pick(|studio| &studio.people)
    }

    fn pick(&mut self, list: impl Fn(&Self) -> &Vec<Key>) -> Option<Key> {
        let length = list(self).len();
        (length > 0).then(|| self.rng.random_range(0..length)).map(|at| list(self)[at])
    }

    /// Returns true in so many of a hundred cases.
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.rng.random_range(0..items.len())]
    }

    /// Makes a sentence of so many words.
    fn sentence(&mut self, words: usize) -> String {
        sentence(&mut self.rng, words)
    }

    /// Adds a value in so many of a hundred cases.
    fn maybe(&mut self, percent: u32, cells: &mut Cells, name: &'static str, cell: impl FnOnce(&mut Self) -> Cell) {
        if self.chance(percent) {
            cells.push((name, cell(self)));
        }
    }

    /// Makes the rows of a list that the site shows as connections.
    fn connect(&mut self, entity_type: &str, near: (&'static str, Key), far: &'static str, keys: &[Key]) {
        for key in keys {
            self.put(entity_type, vec![(near.0, Cell::Link(near.1)), (far, Cell::Link(*key))]);
        }
    }
}

/// Makes a sentence of so many words.
pub fn sentence(rng: &mut impl Rng, words: usize) -> String {
    let words: Vec<_> = (0..words).map(|_| SENTENCE[rng.random_range(0..SENTENCE.len())]).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::SiteSchema;

    fn world(seed: u64, entities: usize) -> World {
        let mut world = World::new(SiteSchema::standard());
        generate(&mut world, seed, entities);
        world
    }

    fn count(world: &World, entity_type: &str) -> usize {
        world.table(world.layout.type_id(entity_type).expect("a type")).active
    }

    #[test]
    fn a_studio_has_the_size_and_the_shape_that_were_asked_for() {
        let world = world(7, 20_000);
        let rows = world.active_rows();
        assert!((19_000..=20_100).contains(&rows), "{rows}");
        let counts = ["Shot", "Asset", "Task", "Version", "PublishedFile", "Note"].map(|ty| count(&world, ty));
        assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
        assert!(counts[2] > 3 * counts[0], "tasks outnumber shots: {counts:?}");
    }

    #[test]
    fn the_same_seed_is_the_same_studio() {
        let shown = |world: &World| {
            let ty = world.layout.type_id("Shot").expect("Shot");
            world.table(ty).range(0, u32::MAX).map(|(_, row)| row.clone()).collect::<Vec<_>>()
        };
        let (a, b, other) = (world(3, 3_000), world(3, 3_000), world(4, 3_000));
        assert_eq!(shown(&a), shown(&b));
        assert_ne!(shown(&a), shown(&other));
    }

    #[test]
    fn links_lead_to_rows_that_exist() {
        let world = world(5, 3_000);
        for (ty, info) in world.layout.types.iter().enumerate() {
            for (id, row) in world.table(ty as u16).range(0, u32::MAX) {
                for slot in row.slots() {
                    for target in slot.cell.keys() {
                        let name = &info.fields[usize::from(slot.field)].name;
                        assert!(world.row(*target).is_some(), "{} {id} {name}", info.name);
                    }
                }
            }
        }
    }
}
