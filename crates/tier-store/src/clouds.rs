//! The clouds of a store: giving it one, and asking what is there.

use tier_persist::{Archive, Claims, Fenced, Head, Heads};
use tier_types::{Call, CloudId, CloudPlace, Epoch, ErrorKind, HasKind, ObjectStore};

use crate::cloud::{id, make_cloud, open_cloud};
use crate::config::{Config, FormerCloud};
use crate::dir::StoreDir;
use crate::{StoreError, ownership, takeover};

/// What a cloud answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloudCheck {
    /// Its identity; `None` if the place has none.
    pub found: Option<CloudId>,
    /// Whether that is the one that the store knows.
    pub is_known: bool,
    /// Whether it creates nothing under a name that is taken. `None` if nothing may be written.
    pub honours_conditions: Option<bool>,
    /// What keeps this store from writing there.
    pub fenced: Option<Fenced>,
    /// The newest manifest of each epoch, the newest epoch first.
    pub heads: Vec<Head>,
    /// Manifests that cannot be read.
    pub n_unread: usize,
}

/// Gives a store a cloud, or another one. What was verified in the former one counts there alone:
/// all of the history goes up to the new one with the next uploads. The former one stays readable.
pub fn add_cloud(dir: &StoreDir, url: &str, adopts: bool) -> Result<CloudPlace, StoreError> {
    let writer = dir.writer.ok_or_else(|| {
        let message = "a follower has the cloud that it was restored from; take over first";
        StoreError::Unusable(message.into())
    })?;
    if dir.config.cloud.as_deref() == Some(url) {
        return Err(StoreError::Unusable(format!("{url} is this store's cloud already")));
    }
    let config = Config { cloud: Some(url.into()), cloud_id: None, ..dir.config.clone() };
    if let Some(problem) = config.unsound() {
        return Err(StoreError::Unusable(problem.into()));
    }
    // Before anything is made there.
    let call = Call::bulk();
    match id::read(&call, open_cloud(url)?.as_ref()) {
        Ok(Some(found)) if !adopts => return Err(id::is_there_already(found, url)),
        Err(error) if error.kind() != ErrorKind::Away => return Err(error.into()),
        Ok(_) | Err(_) => {}
    }
    let cloud = make_cloud(url)?;
    let id = id::make(cloud.as_ref(), adopts)?;
    let claims = Claims::new(cloud.as_ref(), &dir.keys, dir.filesystem);
    let epoch = Epoch::new(dir.config.epoch);
    // A copy of the former cloud has this store's claim; another store's history has another one.
    if let Some(fenced) = claims.after(&call, epoch)?.fenced {
        return Err(StoreError::Unusable(format!("in {url} {fenced}")));
    }
    let claim = ownership::claim(&dir.keys, dir.filesystem, epoch, writer, dir.clock.as_ref());
    claims.create(&call, &claim)?;
    let mut former_clouds = dir.config.former_clouds.clone();
    former_clouds.retain(|former| former.url != url);
    if let Some(url) = dir.config.cloud.clone() {
        former_clouds.push(FormerCloud { url, id: dir.config.cloud_id.clone() });
    }
    let config = Config { cloud_id: Some(id.to_string()), former_clouds, ..config };
    config.write(&dir.layout)?;
    tracing::info!(url, %id, "the store has another cloud");
    Ok(CloudPlace { id, url: url.into() })
}

/// Asks a store's cloud what it is and what is in it. A writer also tries what it does with
/// conditions, with an object that is deleted again.
pub fn check_cloud(dir: &StoreDir) -> Result<CloudCheck, StoreError> {
    let port = dir.cloud.as_ref().ok_or_else(|| {
        StoreError::Unusable("this store has no cloud; tier cloud add gives it one".into())
    })?;
    let (call, cloud): (_, &dyn ObjectStore) = (Call::bulk(), port.store.as_ref());
    let found = id::read(&call, cloud)?;
    let is_known = found.is_some() && found == port.id;
    let claims = Claims::new(cloud, &dir.keys, dir.filesystem);
    let is_writer = dir.writer.is_some();
    let honours_conditions = match is_writer && is_known {
        true => Some(takeover::honours_conditions(dir.filesystem, cloud)?),
        false => None,
    };
    let fenced = match is_writer {
        true => claims.after(&call, Epoch::new(dir.config.epoch))?.fenced,
        false => None,
    };
    let Heads { heads, unread, .. } = match Archive::heads(cloud, &dir.keys, dir.filesystem) {
        // What other keys wrote is no snapshot of this store.
        Err(error) if error.kind() == ErrorKind::WrongKey => Heads::default(),
        heads => heads?,
    };
    let n_unread = unread.len();
    Ok(CloudCheck { found, is_known, honours_conditions, fenced, heads, n_unread })
}
