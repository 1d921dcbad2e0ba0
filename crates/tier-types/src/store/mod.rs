//! The port of an object store: immutable objects by name, in a directory or a cloud.
//!
//! An object is put whole and never changes; a name is used for one content only, so that a put
//! that is repeated after a lost acknowledgement does no harm. A store knows names, lengths and
//! byte ranges, and nothing of what is in an object. What it answers is not trusted: its reader
//! checks digests, and an object that ends too early is damage.
//!
//! No name is the directory of another one: with `a/b` there is no object `a`.
//!
//! There are two ways to put. Data has a name that no other writer uses, and is sent however it is
//! quickest, in parts and again. What decides the owner of a history has a fixed name: it is
//! *created*, in one request that succeeds only if the name is free. Such a request is not repeated
//! by the store, for a repeated one would find its own object: the caller compares.
//!
//! # Errors
//! Every error names the object, and has a kind that the caller acts on: `Missing` (the store is
//! there and the object is not), `Away` (later), `Throttled` (not before), `Denied` (not without
//! the operator), `NoSpace`, `Conflict` (the name has another object), `Damaged` (it ends too
//! early) and `Cancelled`. A store that cannot be reached is `Away` and never `Missing`: what is
//! missing is made again, and what is away is waited for.

mod cache;
mod call;
mod cloud;
mod content;
mod layer;
mod metadata;
mod name;
mod object_store;
mod staging;
mod stored_content;

pub use cache::{CacheStore, Dropped};
pub use call::{Call, CallClass, Cancel};
pub use cloud::{CloudId, CloudPlace};
pub use content::ObjectContent;
pub use layer::StoreLayer;
pub use metadata::{
    Created, ListPage, ListedObject, ObjectChecksum, ObjectMetadata, ObjectVersion, RangeRead,
    StorageClass,
};
pub use name::ObjectName;
pub use object_store::ObjectStore;
pub use staging::{Flush, StagedObject, StagingStore};
pub use stored_content::StoredContent;
