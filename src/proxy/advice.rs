//! Which changes of the configuration would let the cache answer requests that went to
//! the site: each request is decided anew, by the same code, with the changes made.
//!
//! Pure. A request that needs several changes brings all of them or none. What depends on
//! single rows (addresses that expire) or on the moment (freshness, pending writes) is
//! not known here: a request with such fields counts as one that stays with the site.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::catalogue::{Catalogue, stored};
use super::decide::{Planned, Scope, plan};
use super::envelope::Asked;
use super::pending_writes::PendingWrites;
use super::reason::{Advice, Pass, Reason};
use super::settings::{CallerName, Limits, Semantics, Settings};
use crate::api3::{Auth, Request};
use crate::entity::EntityType;
use crate::entity_config::{EntityConfig, EntityConfigFile, FieldConfig, TypeLayout};
use crate::report::ledger::Example;
use crate::schema::Schema;
use crate::state::SiteTime;

/// Changes that one request may need; more are not worth a request.
const MAX_CHANGES: usize = 64;

/// The configuration that advice begins with.
pub struct Basis {
    /// The entity configs by type.
    pub configs: BTreeMap<EntityType, EntityConfig>,
    /// The same, checked.
    pub layouts: Vec<TypeLayout>,
    /// The schema of the site.
    pub schema: Arc<Schema>,
    /// `api` of `config.yaml`.
    pub settings: Settings,
    /// The script of sgcache itself, which sees everything.
    pub own_script: Option<String>,
    /// The most rows that a page of the site may have.
    pub max_page: u32,
}

/// A place of the configuration that is to change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangedPart {
    /// The entity config of a type.
    EntityConfig(EntityType),
    /// `api.semantics`.
    Semantics(Semantics),
    /// A caller in `api.callers`, with the types that it read.
    Caller(CallerName),
}

/// What to change, and what that is worth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    /// The entity configs that change, as they would be.
    pub configs: BTreeMap<EntityType, EntityConfig>,
    /// Readings to add to `api.semantics`.
    pub semantics: BTreeSet<Semantics>,
    /// Callers to add to `api.callers`, with the types that they read.
    pub callers: BTreeMap<CallerName, BTreeSet<EntityType>>,
    /// Calls that the cache would answer with all of the changes.
    pub calls: u64,
    /// Those of them that need a part.
    pub calls_by_part: BTreeMap<ChangedPart, u64>,
}

/// Proposes changes from requests and the number of their calls.
pub fn propose(basis: &Basis, examples: &[(Example, u64)]) -> Proposal {
    let mut proposal = Proposal::default();
    for (example, calls) in examples {
        let mut draft = proposal.clone();
        let Some(parts) = draft.extend_for(basis, example) else { continue };
        draft.calls += calls;
        for part in parts {
            *draft.calls_by_part.entry(part).or_default() += calls;
        }
        proposal = draft;
    }
    proposal
}

impl Proposal {
    /// Adds what a request needs, and returns the parts that it needs of the whole
    /// proposal; `None` when the cache could not answer it all the same.
    fn extend_for(&mut self, basis: &Basis, example: &Example) -> Option<BTreeSet<ChangedPart>> {
        let mut parts = BTreeSet::new();
        // Against the configuration as it is first: what an earlier request has brought
        // counts for this one, too.
        let mut applied = Self::default();
        for _ in 0..MAX_CHANGES {
            let advice = match applied.replay(basis, example) {
                Ok(()) => {
                    self.merge(applied);
                    return Some(parts);
                }
                Err(pass) => pass.advice?,
            };
            parts.insert(applied.apply(basis, advice, example)?);
        }
        None
    }

    fn merge(&mut self, other: Self) {
        for (ty, config) in other.configs {
            let known = self.configs.entry(ty).or_insert_with(|| config.clone());
            known.fields.extend(config.fields);
            known.filters.retain(|_| !config.filters.is_empty());
        }
        self.semantics.extend(other.semantics);
        for (caller, types) in other.callers {
            self.callers.entry(caller).or_default().extend(types);
        }
    }

    /// Makes one change; `None` where that is not possible.
    fn apply(&mut self, basis: &Basis, advice: Advice, example: &Example) -> Option<ChangedPart> {
        let config = |ty: &EntityType| self.configs.get(ty).or_else(|| basis.configs.get(ty)).cloned();
        match advice {
            Advice::AddType(ty) => {
                let config = config(&ty).unwrap_or_default();
                self.configs.insert(ty.clone(), config);
                Some(ChangedPart::EntityConfig(ty))
            }
            Advice::AddField(ty, field) => {
                let mut config = config(&ty)?;
                config.fields.insert(field, FieldConfig::default());
                self.configs.insert(ty.clone(), config);
                Some(ChangedPart::EntityConfig(ty))
            }
            Advice::DropFilter(ty) => {
                let config = EntityConfig { filters: Vec::new(), ..config(&ty)? };
                self.configs.insert(ty.clone(), config);
                Some(ChangedPart::EntityConfig(ty))
            }
            Advice::ChooseSemantics(semantics) => {
                self.semantics.insert(semantics);
                Some(ChangedPart::Semantics(semantics))
            }
            Advice::MapCaller => {
                let caller: CallerName = example.caller.parse().ok()?;
                let ty = example.argument.get("type").and_then(|ty| ty.as_str()).map(EntityType::new);
                self.callers.entry(caller.clone()).or_default().extend(ty);
                Some(ChangedPart::Caller(caller))
            }
            Advice::Wait => None,
        }
    }

    /// Decides a request with the changes made.
    fn replay(&self, basis: &Basis, example: &Example) -> Result<(), Pass> {
        let request = Request {
            method: example.method.clone(),
            // Never sent: which one it is only the scope depends on.
            auth: Some(Auth::script("", "")),
            argument: example.argument.clone(),
        };
        let asked = Asked { request, odd: false, unread: None };
        let planned = plan(&asked, &self.scope(basis, &example.caller), &self.catalogue(basis)?)?;
        match planned {
            Planned::Read(question, _) if !question.addresses.is_empty() => {
                Err(Pass::new(Reason::SignedUrl, "depends on the rows of the answer"))
            }
            _ => Ok(()),
        }
    }

    fn scope(&self, basis: &Basis, caller: &str) -> Scope {
        let unknown = || Scope::Nothing(Pass::new(Reason::UnknownCaller, caller).advise(Advice::MapCaller));
        let Ok(name) = caller.parse::<CallerName>() else { return unknown() };
        if matches!((&name, &basis.own_script), (CallerName::Script(script), Some(own)) if script == own) {
            return Scope::Full;
        }
        let limited = |limits: &Limits| if limits.is_full() { Scope::Full } else { Scope::Limited(limits.clone()) };
        match basis.settings.callers.iter().find(|rule| rule.name == name) {
            Some(rule) => limited(&rule.limits),
            // How much of the cache it may see is chosen when it is mapped.
            None if self.callers.contains_key(&name) => Scope::Full,
            None => unknown(),
        }
    }

    fn catalogue(&self, basis: &Basis) -> Result<Catalogue, Pass> {
        let same = basis.layouts.iter().filter(|layout| !self.configs.contains_key(&layout.entity_type));
        let mut layouts: Vec<TypeLayout> = same.cloned().collect();
        for (ty, config) in &self.configs {
            let text = serde_json::to_string(config).unwrap_or_default();
            let file = EntityConfigFile::parse(&PathBuf::from(format!("{ty}.json")), text);
            let layout = file.ok().and_then(|file| TypeLayout::check(&file, &basis.schema).ok());
            let cannot = || Pass::new(Reason::UncachedType, format!("`{ty}` cannot be cached so"));
            layouts.push(layout.ok_or_else(cannot)?);
        }
        let mut settings = basis.settings.clone();
        settings.semantics.extend(&self.semantics);
        Ok(Catalogue {
            schema: Arc::clone(&basis.schema),
            schema_is_current: true,
            stored: Arc::new(stored(&layouts)),
            standing: Arc::default(),
            pending_writes: PendingWrites::default(),
            now: SiteTime::default(),
            settings: Arc::new(settings),
            max_page: basis.max_page,
            site_is_down: false,
        })
    }
}
