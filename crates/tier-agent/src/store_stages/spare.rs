//! What is spare of the local store: objects that the cloud has whole.
//!
//! An object is spare from when its snapshot is safe in the cloud, with all before it. Without a
//! cloud nothing ever is: then the local store is all there is. The local store is told so once
//! after an opening, for all that is in it, and then for each snapshot that becomes safe; when a
//! snapshot is safe no more, all is taken back and told anew.

use tier_persist::{Archive, DataObject, StoredObject, each_data_object};
use tier_types::{Call, HasKind, SnapshotId};

use super::context::StageContext;
use crate::AgentError;

/// Tells the local store what has become spare.
pub(super) fn tell(context: &StageContext) -> Result<(), AgentError> {
    if context.ports.cloud.is_none() {
        return Ok(());
    }
    let archive = context.archive()?;
    // Held all the while: what is taken back meanwhile comes behind this.
    let mut told = context.told_spare.lock();
    let Some(safe) = context.how_far(&archive)?.safe else { return Ok(()) };
    // Less is safe than before while another thread is about to take back all that was told.
    if told.is_some_and(|(_, told)| told >= safe.snapshot) {
        return Ok(());
    }
    match *told {
        None => tell_all(context, &archive, safe.snapshot)?,
        Some((_, told)) => {
            let newly = archive.after(Some(told)).filter(|step| !step.is_lost);
            for step in newly.take_while(|step| step.snapshot <= safe.snapshot) {
                for object in data_of(context, &archive, step.snapshot)? {
                    context.ports.local.spare(&object.name, object.content.len_bytes);
                }
            }
        }
    }
    *told = Some((safe.epoch, safe.snapshot));
    Ok(())
}

/// What a snapshot wrote: of one whose manifest no copy has, what the index knows.
fn data_of(
    context: &StageContext,
    archive: &Archive<'_>,
    snapshot: SnapshotId,
) -> Result<Vec<StoredObject>, AgentError> {
    match archive.objects(snapshot) {
        Err(error) if error.kind().is_of_object() => {
            Ok(archive.indexed_tarballs(context.ports.history.index(), snapshot)?)
        }
        objects => Ok(objects?.data),
    }
}

/// Tells what is spare of all that is there.
fn tell_all(
    context: &StageContext,
    archive: &Archive<'_>,
    safe: SnapshotId,
) -> Result<(), AgentError> {
    let local = context.ports.local.as_ref();
    let is_safe = |object: &DataObject| {
        let known = archive.snapshot(object.snapshot);
        object.snapshot <= safe
            && known.is_some_and(|known| !known.is_lost && known.epoch == object.epoch)
    };
    each_data_object(&Call::bulk(), local, context.ports.filesystem, &mut |object| {
        if is_safe(&object) {
            local.spare(&object.name, object.len_bytes);
        }
    })?;
    Ok(())
}
