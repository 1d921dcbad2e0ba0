//! A bucket as requests see it: its clients, its keys, and whether it answers.

use std::sync::Arc;

use object_store::GetOptions;
use object_store::path::Path;
use tier_types::{
    Call, ErrorKind, ObjectMetadata, ObjectName, ObjectVersion, PortError, StorageClass,
};

use super::attempts::Attempts;
use super::headers;
use super::open::{Clients, Variables, open};
use super::refusal::Failure;
use super::runtime;
use super::second::SecondRequests;
use super::url::RemoteUrl;
use super::wire::{AnswerHeaders, Connector, Counters, Tampering};

pub(super) struct Bucket {
    pub(super) url: RemoteUrl,
    pub(super) clients: Clients,
    pub(super) attempts: Attempts,
    pub(super) seconds: SecondRequests,
    pub(super) counters: Arc<Counters>,
    pub(super) tampering: Tampering,
}

impl Bucket {
    pub(super) fn open(url: &RemoteUrl, variables: &Variables) -> Result<Self, PortError> {
        runtime::start()?;
        let counters = Arc::new(Counters::default());
        let tampering = Tampering::default();
        let connector = Connector {
            url: url.clone(),
            counters: Arc::clone(&counters),
            tampering: tampering.clone(),
        };
        let clients = open(url, variables, &connector)?;
        let attempts = Attempts::new(url.place());
        let seconds = SecondRequests::default();
        Ok(Self { url: url.clone(), clients, attempts, seconds, counters, tampering })
    }

    /// The key of an object.
    pub(super) fn path(&self, name: &ObjectName) -> Path {
        Path::from(format!("{}{name}", self.root()))
    }

    /// The start of the keys of all objects.
    pub(super) fn root(&self) -> String {
        match self.url.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }

    /// What the store says of an object.
    pub(super) async fn ask(
        &self,
        call: &Call<'_>,
        path: &Path,
    ) -> Result<ObjectMetadata, Failure> {
        let asked = self.attempts.run(call, || async {
            let options = GetOptions { head: true, ..GetOptions::default() };
            let answer = self.clients.asker.get_opts(path, options).await;
            answer.map_err(|error| Failure::of(&error))
        });
        let answer = asked.await?;
        // Without either every object would be the same one, also to a deletion.
        let version = match (answer.meta.e_tag, answer.meta.version) {
            (Some(e_tag), Some(version)) => format!("{e_tag} {version}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => {
                let text = "the store names no version of it";
                return Err(Failure::new(ErrorKind::Failed, text));
            }
        };
        let said = answer.extensions.get::<AnswerHeaders>().map(|AnswerHeaders(headers)| headers);
        Ok(ObjectMetadata {
            len_bytes: answer.meta.size,
            checksum: said.and_then(headers::checksum),
            class: said.map_or(StorageClass::Online, headers::class),
            version: ObjectVersion(version),
        })
    }
}
