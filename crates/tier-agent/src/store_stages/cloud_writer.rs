//! The cloud as it is written to: objects of data that are put and compared, several at a time, and
//! the question whether another store writes there by now.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;
use tier_persist::{
    CheckedContent, Claims, PersistError, StoredObject, check_object, check_sample,
};
use tier_status::{Event, StatusSink};
use tier_types::{Call, CloudPlace, ErrorKind, HasKind, ObjectChecksum, ObjectStore};

use super::context::StageContext;
use super::ports::Arrival;
use crate::AgentError;

/// Objects that are put at a time.
const N_AT_A_TIME: usize = 4;

/// Writes to one cloud.
#[derive(Clone)]
pub(super) struct CloudWriter<'a> {
    pub(super) context: &'a StageContext,
    pub(super) cloud: &'a dyn ObjectStore,
    /// `None` if it has lost its identity.
    pub(super) place: Option<CloudPlace>,
    arrival: Arrival,
    pub(super) stop: &'a AtomicBool,
}

impl<'a> CloudWriter<'a> {
    /// `None` if there is no cloud.
    pub(super) fn new(context: &'a StageContext, stop: &'a AtomicBool) -> Option<Self> {
        let cloud = context.ports.cloud.as_ref()?;
        let (store, place, arrival) = (cloud.store.as_ref(), cloud.place(), cloud.arrival);
        Some(Self { context, cloud: store, place, arrival, stop })
    }

    /// Does something with each object, several at a time. The first error lets no more begin, but
    /// for one of a frozen object.
    pub(super) fn each<'o>(
        &self,
        objects: impl Iterator<Item = &'o StoredObject> + Send,
        work: &(dyn Fn(&StoredObject) -> Result<(), AgentError> + Sync),
    ) -> Result<(), AgentError> {
        let left = Mutex::new(objects);
        let (failed, frozen) = (Mutex::new(None), Mutex::new(None));
        let work_off = || {
            while failed.lock().is_none() {
                let Some(object) = left.lock().next() else { return };
                let done = check_stop(self.stop).and_then(|()| work(object));
                let Err(error) = done else { continue };
                // It was asked for, as the others are to be: that takes hours.
                let is_frozen = matches!(error.kind(), ErrorKind::Frozen { .. });
                let kept = if is_frozen { &frozen } else { &failed };
                kept.lock().get_or_insert(error);
            }
        };
        thread::scope(|scope| {
            for number in 1..N_AT_A_TIME {
                let builder = thread::Builder::new().name(format!("tier-upload-{number}"));
                // Fewer threads take longer, and this one is there in any case.
                if let Err(error) = builder.spawn_scoped(scope, work_off) {
                    tracing::debug!(%error, "an upload has one thread less");
                }
            }
            work_off();
        });
        if let Some(error) = failed.into_inner() {
            return Err(error);
        }
        assert!(left.into_inner().next().is_none(), "none is left if none has failed");
        frozen.into_inner().map_or(Ok(()), Err)
    }

    /// Records that an object was put and compared.
    pub(super) fn report_pushed(
        &self,
        object: &StoredObject,
        status: &dyn StatusSink,
    ) -> Result<(), AgentError> {
        let Some(cloud) = self.place.clone() else { return Ok(()) };
        let (name, bytes) = (object.name.to_string(), object.content.len_bytes);
        Ok(status.report(Event::Pushed { name, bytes, cloud })?)
    }

    /// Puts an object of data, unless it is there, and compares it.
    pub(super) fn put(&self, object: &StoredObject) -> Result<(), AgentError> {
        let (call, start) = (self.call(), Instant::now());
        let StoredObject { name, content } = object;
        // An upload that was interrupted, or a copy of the cloud, has it already.
        match check_object(&call, self.cloud, object) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Missing => {}
            Err(error) if matches!(error.kind(), ErrorKind::Frozen { .. }) => {
                return self.check_frozen(object, error.into());
            }
            // The name is this object's alone, so that nothing else is lost with what has it; and
            // it is removed only if there is a whole one to put in its place.
            Err(error) if error.kind() == ErrorKind::Damaged => {
                check_object(&call, self.source_of(object)?, object)?;
                let found = self.cloud.metadata(&call, name)?;
                self.cloud.delete(&call, name, Some(&found.version))?;
            }
            Err(error) => return Err(error.into()),
        }
        let from = self.source_of(object)?;
        let sent = CheckedContent::new(from, object);
        self.cloud.put(&call, name, &sent)?;
        match self.arrival {
            // What was sent was right, and the store refuses what changed on its way.
            Arrival::Refused if sent.was_compared() => {
                check_sample(&call, self.cloud, object, from)?;
            }
            Arrival::Refused | Arrival::Read => check_object(&call, self.cloud, object)?,
        }
        let len_bytes = content.len_bytes;
        tracing::debug!(%name, len_bytes, elapsed = ?start.elapsed(), "object uploaded and verified");
        Ok(())
    }

    /// Whether an object that was frozen before it was compared is what it must be. If the store
    /// says no checksum of it, it is thawed to be compared.
    fn check_frozen(&self, object: &StoredObject, error: AgentError) -> Result<(), AgentError> {
        let call = self.call();
        let found = self.cloud.metadata(&call, &object.name)?;
        if found.checksum == Some(ObjectChecksum::Sha256(object.content.sha256)) {
            return Ok(());
        }
        let within = self.cloud.thaw(&call, &object.name)?;
        tracing::warn!(name = %object.name, ?within, "it is thawed to be compared");
        Err(error)
    }

    /// The store that has an object: the local one, or a cloud that this store had before.
    pub(super) fn source_of(
        &self,
        object: &StoredObject,
    ) -> Result<&'a dyn ObjectStore, AgentError> {
        let local: &dyn ObjectStore = self.context.ports.local.as_ref();
        let former = self.context.ports.former_clouds.iter().map(AsRef::as_ref);
        let mut why = None;
        for store in std::iter::once(local).chain(former) {
            match store.metadata(&self.call(), &object.name) {
                Ok(_) => return Ok(store),
                // Whichever says more: that it is away, and not only that it is not here.
                Err(error) if error.kind() == ErrorKind::Missing => why = why.or(Some(error)),
                Err(error) => why = Some(error),
            }
        }
        Err(why.map_or_else(|| missing(object), AgentError::Port))
    }

    /// An error if a later epoch was claimed.
    pub(super) fn check_not_fenced(&self) -> Result<(), AgentError> {
        let (call, epoch) = (self.call(), self.context.ports.epoch);
        let (claims, owns_epoch) = (self.claims(), &self.context.owns_epoch);
        // A claim that was made while this store was not running may be lost by now, and its own
        // epoch be claimed anew. That is found out once: what is claimed from here on is there for
        // the next look.
        let fenced = match owns_epoch.load(Ordering::Relaxed) {
            true => claims.after(&call, epoch)?.fenced,
            false => claims.fenced(&call, epoch, self.context.ports.writer)?,
        };
        owns_epoch.store(fenced.is_none(), Ordering::Relaxed);
        fenced.map_or(Ok(()), |fenced| Err(AgentError::Fenced(fenced)))
    }

    pub(super) fn claims(&self) -> Claims<'_> {
        Claims::new(self.cloud, &self.context.ports.keys, self.context.ports.filesystem)
    }

    pub(super) fn call(&self) -> Call<'_> {
        Call::bulk().cancelled_by(self.stop)
    }
}

pub(super) fn missing(object: &StoredObject) -> AgentError {
    PersistError::Missing(object.name.to_string()).into()
}

pub(super) fn check_stop(stop: &AtomicBool) -> Result<(), AgentError> {
    if stop.load(Ordering::Relaxed) { Err(AgentError::Stopped) } else { Ok(()) }
}
