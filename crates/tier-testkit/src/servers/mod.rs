//! Real servers for tests, each in a directory and on ports of its own.
//!
//! The programs are looked for in `PATH`, where `cargo xtask ci` puts those that it has installed.
//! A test that needs one which is not there is told so, and says loudly that it was skipped.
#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on must stop, and say so"
)]

mod azurite;
mod gcs;
mod http;
mod line;
mod moto;
mod process;
mod proxy;
mod s3rver;
mod seaweed;

pub use azurite::Azurite;
pub use gcs::FakeGcs;
pub use line::Line;
pub use moto::Moto;
pub use proxy::{NetworkFault, Proxy};
pub use s3rver::S3rver;
pub use seaweed::Seaweed;
