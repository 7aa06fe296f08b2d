//! Sites with the rows that known programs expect on one.

use serde_json::json;

use super::event::Actor;
use super::site::Site;
use shotgun_model::api3::Fault;

/// What a site holds besides its generated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// What the vendor's live tests of shotgun_api3 expect: the script
    /// `test script name` with the key `test script api key`, a project besides
    /// the one that they make, a page that a user has seen.
    ClientTests,
}

impl Preset {
    /// Adds the rows to a site.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the site has rows that are in the way.
    pub fn fill(self, site: &Site) -> Result<(), Fault> {
        match self {
            Self::ClientTests => client_tests(site),
        }
    }
}

fn client_tests(site: &Site) -> Result<(), Fault> {
    let script: Actor = site.add_script("test script name", "test script api key", true);
    site.create_as(script.clone(), "Project", json!({"name": "Template Project"}))?;
    let seen = json!({"name": "All Projects", "entity_type": "Project", "last_accessed": site.clock.now()});
    if site.count("Page") == 0 {
        site.create_as(script, "Page", seen).map(|_| ())
    } else {
        // The tests look at the page with the lowest id.
        let first = site.read("Page", &json!([]), &[])?.first().and_then(|page| page["id"].as_i64());
        first.map_or(Ok(()), |first| site.update_as(script, "Page", first, seen))
    }
}
