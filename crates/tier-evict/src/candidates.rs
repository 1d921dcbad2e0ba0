//! Who comes up in a pass: everybody once, in order of inodes.

use tier_types::{Change, FileUpdate, Ino, MountedInstance};

use crate::EvictError;
use crate::carry_over::CarryOver;
use tier_log::NetChanges;

const N_WARM: usize = 1024;

/// Merges who changed, who was spared before and who was recalled.
pub(crate) struct Candidates<'a> {
    changed: Box<dyn Iterator<Item = Result<Ino, EvictError>> + 'a>,
    spared: CarryOver,
    instance: &'a dyn MountedInstance,
    warm: std::vec::IntoIter<Ino>,
    heads: Heads,
    started: bool,
}

/// The next one of each kind.
#[derive(Default)]
struct Heads {
    changed: Option<Ino>,
    spared: Option<Ino>,
    warm: Option<Ino>,
}

impl<'a> Candidates<'a> {
    pub(crate) fn new(
        changed: Option<NetChanges>,
        spared: CarryOver,
        instance: &'a dyn MountedInstance,
    ) -> Self {
        let changed = changed.into_iter().flatten().filter_map(|update| match update {
            Ok(FileUpdate { ino, change: Change::Touched(_) }) => Some(Ok(ino)),
            Ok(FileUpdate { change: Change::Gone(_), .. }) => None,
            Err(error) => Some(Err(error.into())),
        });
        Self {
            changed: Box::new(changed),
            spared,
            instance,
            warm: Vec::new().into_iter(),
            heads: Heads::default(),
            started: false,
        }
    }

    fn step(&mut self) -> Result<Option<Ino>, EvictError> {
        if !self.started {
            self.started = true;
            self.heads.changed = self.changed.next().transpose()?;
            self.heads.spared = self.spared.next().transpose()?;
            self.heads.warm = self.next_warm(Ino::new(0))?;
        }
        let Heads { changed, spared, warm } = self.heads;
        let Some(next) = [changed, spared, warm].into_iter().flatten().min() else {
            return Ok(None);
        };
        if changed == Some(next) {
            self.heads.changed = self.changed.next().transpose()?;
        }
        if spared == Some(next) {
            self.heads.spared = self.spared.next().transpose()?;
        }
        if warm == Some(next) {
            self.heads.warm = self.next_warm(next)?;
        }
        Ok(Some(next))
    }

    fn next_warm(&mut self, after: Ino) -> Result<Option<Ino>, EvictError> {
        if let Some(ino) = self.warm.next() {
            return Ok(Some(ino));
        }
        self.warm = self.instance.warm_inodes(after, N_WARM)?.into_iter();
        Ok(self.warm.next())
    }
}

impl Iterator for Candidates<'_> {
    type Item = Result<Ino, EvictError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
