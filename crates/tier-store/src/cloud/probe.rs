//! What a cloud does, found out with objects of its own.
//!
//! Stores that speak one language differ in what they do: some create what is there already, some
//! take whatever arrives, some list an object a while after it was put. What a store relies on is
//! tried before it does, and written down with the place that it was seen in ([`Layout::probe`]).
//! Without that record nothing is relied on.

use std::collections::BTreeSet;
use std::fs;

use serde::{Deserialize, Serialize};
use tier_persist::{FilesystemId, WriterToken};
use tier_types::{Call, CloudPlace, Created, ErrorKind, ObjectName, ObjectStore, ObjectVersion};

use crate::{Layout, StoreError, durable};

/// What a cloud may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// It creates nothing under a name that is taken. Else no two writers can be kept apart.
    ConditionalCreation,
    /// It deletes no other object than the one that was meant.
    ConditionalDeletion,
    /// It refuses what changed on its way. Else all that is put must be read again.
    RefusesChanged,
    /// It gives parts of an object. Else evicted data cannot be recalled.
    Ranges,
    /// What was put is listed at once.
    ListsAtOnce,
}

impl Ability {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ConditionalCreation,
        Self::ConditionalDeletion,
        Self::RefusesChanged,
        Self::Ranges,
        Self::ListsAtOnce,
    ];
}

/// What a cloud was seen to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Abilities(BTreeSet<Ability>);

/// The file: what was seen, and where.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    url: String,
    id: String,
    abilities: Abilities,
}

const CONTENT: &[u8] = b"what an object of a probe has in it";

impl Abilities {
    /// Tries all of them. What is put is deleted again; after an error some of it may be left.
    pub(crate) fn find_out(
        filesystem: FilesystemId,
        cloud: &dyn ObjectStore,
    ) -> Result<Self, StoreError> {
        let call = &Call::bulk();
        let prefix = format!("{filesystem}/probes/{}", WriterToken::random()?);
        let (first, second) = (name(format!("{prefix}-1"))?, name(format!("{prefix}-2"))?);
        assert_ne!(first, second, "what is refused must not be there already");
        let created = cloud.create(call, &first, &CONTENT)?;
        let lists_at_once = cloud.names(call, &prefix)?.contains(&first);
        // Before it is replaced, if the store does that.
        let ranges = has_ranges(call, cloud, &first)?;
        let again = cloud.create(call, &first, &&b"another"[..])?;
        let refuses_changed = cloud.refuses_changed(call, &second)?;
        let keeps = keeps_what_is_not_meant(call, cloud, &first)?;
        cloud.delete(call, &first, None)?;
        let creates = created == Created::New && matches!(again, Created::Exists(_));
        let seen = [
            (Ability::ConditionalCreation, creates),
            (Ability::ConditionalDeletion, keeps),
            (Ability::RefusesChanged, refuses_changed),
            (Ability::Ranges, ranges),
            (Ability::ListsAtOnce, lists_at_once),
        ];
        Ok(Self(seen.into_iter().filter_map(|(ability, is)| is.then_some(ability)).collect()))
    }

    /// Whether it was seen to do this.
    pub fn has(&self, ability: Ability) -> bool {
        self.0.contains(&ability)
    }

    /// An error for a store that would rely on what is not there.
    pub(crate) fn check_usable(&self, url: &str) -> Result<(), StoreError> {
        match self.has(Ability::Ranges) {
            true => Ok(()),
            false => Err(StoreError::Unusable(format!(
                "{url} does not give parts of objects: what was evicted could not be recalled"
            ))),
        }
    }

    /// Writes down what was seen in a cloud.
    pub(crate) fn remember(&self, layout: &Layout, place: &CloudPlace) -> Result<(), StoreError> {
        let (url, id) = (place.url.clone(), place.id.to_string());
        let path = layout.probe();
        let text = toml::to_string(&Record { url, id, abilities: self.clone() });
        let text = text.map_err(|source| StoreError::Config {
            path: path.clone(),
            problem: format!("what the cloud does cannot be written down: {source}"),
        })?;
        durable::replace(&path, text.as_bytes())
    }

    /// What was seen in a cloud before; `None` if it was not tried, or elsewhere.
    pub(crate) fn remembered(layout: &Layout, place: &CloudPlace) -> Option<Self> {
        let text = fs::read_to_string(layout.probe()).ok()?;
        let Record { url, id, abilities } = toml::from_str(&text).ok()?;
        (url == place.url && id == place.id.to_string()).then_some(abilities)
    }
}

fn name(text: String) -> Result<ObjectName, StoreError> {
    let no_name = || StoreError::Unusable("a probe has no valid name".into());
    ObjectName::new(text).ok_or_else(no_name)
}

fn has_ranges(
    call: &Call<'_>,
    cloud: &dyn ObjectStore,
    name: &ObjectName,
) -> Result<bool, StoreError> {
    let (_, end) = CONTENT.split_at(8);
    let mut bytes = vec![0; end.len()];
    match cloud.read_range(call, name, 8, &mut bytes) {
        Err(error) if error.kind().may_pass() || error.kind() == ErrorKind::Denied => {
            Err(error.into())
        }
        read => Ok(read.is_ok() && end == bytes),
    }
}

fn keeps_what_is_not_meant(
    call: &Call<'_>,
    cloud: &dyn ObjectStore,
    name: &ObjectName,
) -> Result<bool, StoreError> {
    let other = ObjectVersion("another version".into());
    match cloud.delete(call, name, Some(&other)) {
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(true),
        deleted => Ok(deleted.map(|()| false)?),
    }
}

#[cfg(test)]
mod tests {
    use tier_testkit::MemoryStore;
    use tier_types::{CloudId, ObjectContent, PortError, RangeRead, StoreLayer};

    use super::*;

    const CALL: Call<'static> = Call::bulk();

    /// A store that replaces what is there, and answers each range with the start of the object.
    struct Careless(MemoryStore);

    impl StoreLayer for Careless {
        fn inner(&self) -> &dyn ObjectStore {
            &self.0
        }

        fn create(
            &self,
            call: &Call<'_>,
            name: &ObjectName,
            content: &dyn ObjectContent,
        ) -> Result<Created, PortError> {
            self.0.delete(call, name, None)?;
            self.0.create(call, name, content)
        }

        fn read_ranges(
            &self,
            call: &Call<'_>,
            name: &ObjectName,
            ranges: &mut [RangeRead<'_>],
        ) -> Result<(), PortError> {
            for range in ranges.iter_mut() {
                range.offset_bytes = 0;
            }
            self.0.read_ranges(call, name, ranges)
        }

        fn delete(
            &self,
            call: &Call<'_>,
            name: &ObjectName,
            _: Option<&ObjectVersion>,
        ) -> Result<(), PortError> {
            self.0.delete(call, name, None)
        }
    }

    fn find_out(cloud: &dyn ObjectStore) -> Abilities {
        let found = Abilities::find_out(FilesystemId::from_bytes([1; 16]), cloud).unwrap();
        assert_eq!(cloud.names(&CALL, "").unwrap(), [], "nothing is left");
        found
    }

    #[test]
    fn what_a_store_does_is_found_out() {
        let good = find_out(&MemoryStore::default());
        let has_not = |seen: &Abilities| Ability::ALL.into_iter().find(|one| !seen.has(*one));
        assert_eq!(has_not(&good), Some(Ability::RefusesChanged), "that cannot be told");
        assert_eq!(good.0.len(), 4);
        let careless = find_out(&Careless(MemoryStore::default()));
        assert_eq!(careless.0, BTreeSet::from([Ability::ListsAtOnce]));
        let refused = careless.check_usable("s3://careless").unwrap_err().to_string();
        assert!(refused.contains("s3://careless does not give parts"), "{refused}");
    }

    #[test]
    fn what_was_seen_counts_for_that_place_alone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let place = |byte, url: &str| CloudPlace {
            id: CloudId::from_bytes([byte; 16]),
            url: url.to_owned(),
        };
        let here = place(1, "s3://here");
        assert_eq!(Abilities::remembered(&layout, &here), None);
        let seen = find_out(&MemoryStore::default());
        seen.remember(&layout, &here).unwrap();
        assert_eq!(Abilities::remembered(&layout, &here), Some(seen));
        for other in [place(2, "s3://here"), place(1, "s3://there")] {
            assert_eq!(Abilities::remembered(&layout, &other), None);
        }
        fs::write(layout.probe(), "torn").unwrap();
        assert_eq!(Abilities::remembered(&layout, &here), None, "nothing is relied on");
    }
}
