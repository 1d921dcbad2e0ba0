//! The clouds of a store: giving it one, and asking what is there.

use tier_persist::{Archive, Claims, Fenced, Head, Heads};
use tier_types::{Call, CloudId, CloudPlace, Epoch, ErrorKind, HasKind, ObjectStore};

use crate::cloud::{Abilities, completed, id, make_cloud, may_be_made, open_cloud};
use crate::config::{Cloud, Config, FormerCloud};
use crate::dir::StoreDir;
use crate::{StoreError, ownership};

/// What a cloud answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CloudCheck {
    /// Its identity; `None` if the place has none.
    pub found: Option<CloudId>,
    /// Whether that is the one that the store knows.
    pub is_known: bool,
    /// What it was seen to do. `None` if nothing may be written.
    pub abilities: Option<Abilities>,
    /// What keeps this store from writing there.
    pub fenced: Option<Fenced>,
    /// The newest manifest of each epoch, the newest epoch first.
    pub heads: Vec<Head>,
    /// Manifests that cannot be read.
    pub n_unread: usize,
}

/// A cloud that a store was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddedCloud {
    /// Which one.
    pub place: CloudPlace,
    /// What it was seen to do. `None` if nothing may be written.
    pub abilities: Option<Abilities>,
}

/// Gives a store a cloud, or another one. What was verified in the former one counts there alone:
/// all of the history goes up to the new one with the next uploads. The former one stays readable.
pub fn add_cloud(dir: &StoreDir, url: &str, adopts: bool) -> Result<AddedCloud, StoreError> {
    // The URL that the store remembers is complete, whatever the environment says by now.
    let is_remembered = dir.config.cloud_url() == Some(url);
    let url = if is_remembered { url.to_owned() } else { completed(url)? };
    let url = url.as_str();
    let is_current = dir.config.cloud_url() == Some(url);
    if is_current && has_its_identity(dir)? {
        return Err(StoreError::Unusable(format!("{url} is this store's cloud already")));
    }
    if dir.writer.is_none() && !is_current {
        let message = "a follower has the cloud that it was restored from; take over first";
        return Err(StoreError::Unusable(message.into()));
    }
    check_not_fenced_here(dir)?;
    // How a cloud is used is the operator's choice, for this one as well.
    let usual = Cloud::new(url);
    let settings = dir.config.cloud.as_ref().unwrap_or(&usual);
    let settings = Cloud { url: url.into(), id: None, ..settings.clone() };
    let config = Config { cloud: Some(settings.clone()), ..dir.config.clone() };
    if let Some(problem) = config.unsound() {
        return Err(StoreError::Unusable(problem.into()));
    }
    // Before anything is made there.
    let call = Call::bulk();
    match id::read(&call, open_cloud(url)?.as_ref()) {
        Ok(Some(found)) if !adopts => return Err(id::is_there_already(found, url)),
        Err(error) if error.kind() == ErrorKind::Away && may_be_made(url) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => {}
    }
    let cloud = make_cloud(url)?;
    // A follower writes nothing there.
    let writer = dir.writer;
    let abilities = writer.map(|_| Abilities::find_out(dir.filesystem, cloud.as_ref()));
    let abilities = abilities.transpose()?;
    abilities.as_ref().map_or(Ok(()), |abilities| abilities.check_usable(url))?;
    let id = id::make(cloud.as_ref(), adopts)?;
    let claims = Claims::new(cloud.as_ref(), &dir.keys, dir.filesystem);
    let epoch = Epoch::new(dir.config.epoch);
    // A copy of the former cloud has this store's claim; another store's history has another one.
    if let Some(fenced) = claims.fenced(&call, epoch, dir.writer)? {
        return Err(StoreError::Unusable(format!("in {url} {fenced}")));
    }
    // A follower claims nothing, also of a place that had lost its identity.
    if let Some(writer) = writer {
        let claim = ownership::claim(&dir.keys, dir.filesystem, epoch, writer, dir.clock.as_ref());
        claims.create(&call, &claim)?;
    }
    let mut former_clouds = dir.config.former_clouds.clone();
    former_clouds.retain(|former| former.url != url);
    if let Some(Cloud { url, id, .. }) = dir.config.cloud.clone().filter(|_| !is_current) {
        former_clouds.push(FormerCloud { url, id });
    }
    let place = CloudPlace { id, url: url.into() };
    abilities.as_ref().map_or(Ok(()), |abilities| abilities.remember(&dir.layout, &place))?;
    let settings = Cloud { id: Some(id.to_string()), ..settings };
    assert_eq!(settings.id(), Some(id), "what is written down is what was made");
    Config { cloud: Some(settings), former_clouds, ..config }.write(&dir.layout)?;
    tracing::info!(url, %id, ?abilities, "the store has another cloud");
    Ok(AddedCloud { place, abilities })
}

/// Takes a former cloud out of the places where objects are looked for. What was only in it is lost
/// from then on, and a repair goes on without that.
pub fn forget_cloud(dir: &StoreDir, url: &str) -> Result<(), StoreError> {
    let is_remembered = dir.config.former_clouds.iter().any(|former| former.url == url);
    let url = if is_remembered { url.to_owned() } else { completed(url)? };
    let url = url.as_str();
    let mut former_clouds = dir.config.former_clouds.clone();
    former_clouds.retain(|former| former.url != url);
    if former_clouds.len() == dir.config.former_clouds.len() {
        return Err(StoreError::Unusable(match dir.config.cloud_url() == Some(url) {
            true => format!("{url} is this store's cloud; tier cloud add gives it another one"),
            false => format!("{url} is no former cloud of this store; tier cloud list names them"),
        }));
    }
    Config { former_clouds, ..dir.config.clone() }.write(&dir.layout)?;
    tracing::info!(url, "a former cloud is not asked any more");
    Ok(())
}

/// Whether the place of a store's cloud has the identity that the store knows. One that has lost it
/// may be given another.
fn has_its_identity(dir: &StoreDir) -> Result<bool, StoreError> {
    let Some(cloud) = &dir.cloud else { return Ok(false) };
    let found = id::read(&Call::bulk(), open_cloud(&cloud.store.url())?.as_ref())?;
    Ok(found.is_some() && found == cloud.id)
}

/// A store that another one has replaced does not escape to another cloud.
fn check_not_fenced_here(dir: &StoreDir) -> Result<(), StoreError> {
    let (Some(cloud), true) = (&dir.cloud, dir.writer.is_some()) else { return Ok(()) };
    let claims = Claims::new(cloud.store.as_ref(), &dir.keys, dir.filesystem);
    match claims.fenced(&Call::bulk(), Epoch::new(dir.config.epoch), dir.writer) {
        // A cloud that is gone is left.
        Err(error) if matches!(error.kind(), ErrorKind::Away | ErrorKind::Denied) => Ok(()),
        fenced => match fenced? {
            Some(fenced) => Err(StoreError::Unusable(fenced.to_string())),
            None => Ok(()),
        },
    }
}

/// Asks a store's cloud what it is and what is in it. A writer also tries what it does, with
/// objects that are deleted again, and remembers that.
pub fn check_cloud(dir: &StoreDir) -> Result<CloudCheck, StoreError> {
    let port = dir.cloud.as_ref().ok_or_else(|| {
        StoreError::Unusable("this store has no cloud; tier cloud add gives it one".into())
    })?;
    let (call, cloud): (_, &dyn ObjectStore) = (Call::bulk(), port.store.as_ref());
    // Asked of the place itself: through the store's own eyes another cloud answers nothing.
    let found = id::read(&call, open_cloud(&cloud.url())?.as_ref())?;
    let is_known = found.is_some() && found == port.id;
    if port.id.is_some() && !is_known {
        return Ok(CloudCheck { found, ..CloudCheck::default() });
    }
    let claims = Claims::new(cloud, &dir.keys, dir.filesystem);
    let is_writer = dir.writer.is_some();
    let abilities = match (is_writer && is_known, port.place()) {
        (true, Some(place)) => {
            let abilities = Abilities::find_out(dir.filesystem, cloud)?;
            abilities.remember(&dir.layout, &place)?;
            Some(abilities)
        }
        _ => None,
    };
    let fenced = match is_writer {
        true => claims.fenced(&call, Epoch::new(dir.config.epoch), dir.writer)?,
        false => None,
    };
    let own = dir.keys.signer();
    let Heads { heads, unread, .. } =
        match Archive::heads(cloud, &dir.keys, dir.filesystem, &|signer| signer == own) {
            // What other keys wrote is no snapshot of this store.
            Err(error) if error.kind() == ErrorKind::WrongKey => Heads::default(),
            heads => heads?,
        };
    let n_unread = unread.len();
    Ok(CloudCheck { found, is_known, abilities, fenced, heads, n_unread })
}
