//! The cloud of a disk that never fills, which can be away.

use std::fs;
use std::path::{Path, PathBuf};

use tier_testkit::servers::{Proxy, Seaweed};

pub(super) enum Cloud {
    Directory(PathBuf),
    Bucket { _server: Seaweed, proxy: Proxy },
}

impl Cloud {
    /// As the environment wants it; `None`, said loudly, on a machine without the server.
    pub(super) fn of_environment(dir: &Path) -> Option<Self> {
        if std::env::var("TIER_ENDLESS_CLOUD").as_deref() != Ok("seaweed") {
            return Some(Self::Directory(dir.join("cloud")));
        }
        let server = Seaweed::start()?;
        server.make_bucket("bucket");
        let proxy = Proxy::to(server.port());
        Some(Self::Bucket { _server: server, proxy })
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Directory(cloud) => format!("file://{}", cloud.display()),
            Self::Bucket { proxy, .. } => Seaweed::url_at(proxy.port(), "bucket"),
        }
    }

    pub(super) fn set_away(&self, is_away: bool) {
        match self {
            Self::Directory(cloud) => {
                let elsewhere = cloud.with_extension("away");
                let (from, to) = if is_away { (cloud, &elsewhere) } else { (&elsewhere, cloud) };
                fs::rename(from, to).unwrap();
            }
            Self::Bucket { proxy, .. } => proxy.set_away(is_away),
        }
    }
}
