//! Stores behind a network: S3 and what speaks it, Google Cloud Storage, Azure.
//!
//! The library below knows how each provider signs and answers. Here is what it does not decide:
//! which place a URL is ([`url`]), how often and when a request is repeated ([`attempts`]), what an
//! answer means ([`refusal`], [`headers`]), how ranges, parts and pages become
//! requests ([`read`], [`upload`], [`list`]), and how many there may be ([`pace`]).
//!
//! The port is synchronous: a caller waits on its own thread, and connections live on one thread of
//! their own ([`runtime`]). Nothing is sent that no caller waits for, so that an idle store makes
//! no requests.

mod attempts;
mod bucket;
mod headers;
mod list;
mod open;
mod pace;
mod read;
mod refusal;
mod runtime;
mod second;
mod store;
mod thaw;
mod upload;
mod url;
mod wire;

pub use pace::RateLimits;
pub use store::RemoteStore;
pub use url::RemoteUrl;
pub use wire::RequestCounts;
