//! The cloud of a store: the place that a URL names, and whether it is the cloud that it was.
//!
//! A URL is no identity. The directory of a disk that is not mounted is another place under the
//! same path, and so is one that was emptied, or exchanged. Were such a place taken for the cloud,
//! what goes there would count as safe, be evicted here, and be gone when the right one is back. So
//! a cloud has an [identity](id), an object of its own, which a store remembers and
//! [compares](KnownCloud) before it relies on the place.

mod counted;
pub(crate) mod id;
mod known;
mod place;
mod probe;
mod thaws;

pub(crate) use counted::CountedCloud;
pub use counted::RestoreProgress;
pub(crate) use known::KnownCloud;
pub use probe::{Abilities, Ability};

pub(crate) use thaws::{ThawingCloud, Thaws};

pub(crate) use place::{completed, make_cloud, may_be_made, open_cloud, open_limited};
