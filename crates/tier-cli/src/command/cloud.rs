//! `tier cloud`: the clouds of a store.

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tier_persist::Head;
use tier_store::{
    AddedCloud, Cloud, CloudCheck, Config, FormerCloud, Layout, StoreDir, add_cloud, check_cloud,
    forget_cloud,
};

use super::abilities;
use crate::args::{CloudAddArgs, CloudCheckArgs, CloudForgetArgs, CloudListArgs};
use crate::context::Context;

/// Gives a store a cloud, or another one. The store must not be open: what it uploads to is fixed
/// while it is.
pub(super) fn add(context: &Context, args: &CloudAddArgs) -> Result<()> {
    let dir = StoreDir::open(&args.store)?;
    let former = dir.config.cloud_url().map(str::to_owned);
    let AddedCloud { place, abilities } = add_cloud(&dir, &args.url, args.adopt_cloud)?;
    let mut text = format!("The cloud of {} is {place} now.\n", args.store.display());
    if let Some(former) = former {
        text.push_str(&format!(
            "Nothing counts as verified there until all of it was uploaded: tier push does that, \
             and so does the agent. What is only in {former} is read from there meanwhile.\n"
        ));
    }
    text.extend(abilities.as_ref().map(abilities::warnings));
    let json = json!({
        "url": place.url,
        "id": place.id.to_string(),
        "abilities": abilities.as_ref().map(abilities::json),
    });
    context.console.report(&json, &text)
}

/// Takes a former cloud out of the places where a store looks.
pub(super) fn forget(context: &Context, args: &CloudForgetArgs) -> Result<()> {
    let dir = StoreDir::open(&args.store)?;
    forget_cloud(&dir, &args.url)?;
    let text = format!(
        "{} looks in {} no more. What was only there is lost: tier repair says what that is, and \
         goes on without it.\n",
        args.store.display(),
        args.url
    );
    context.console.report(&json!({ "forgotten": args.url }), &text)
}

/// Lists the clouds that a store has, and had.
pub(super) fn list(context: &Context, args: &CloudListArgs) -> Result<()> {
    let Config { cloud, former_clouds, .. } = Config::read(&Layout::new(&args.store))?;
    let current = cloud.map(|Cloud { url, id, .. }| FormerCloud { url, id });
    let (mut text, mut rows) = (String::new(), Vec::new());
    let clouds = current.iter().map(|cloud| (cloud, "now"));
    for (FormerCloud { url, id }, when) in
        clouds.chain(former_clouds.iter().map(|cloud| (cloud, "former")))
    {
        let shown = id.as_deref().unwrap_or("no identity");
        text.push_str(&format!("{when:<7} {url}  {shown}\n"));
        rows.push(json!({ "url": url, "id": id, "is_current": when == "now" }));
    }
    if rows.is_empty() {
        text.push_str("This store has no cloud: what it evicts is in its own tarballs alone.\n");
    }
    context.console.report(&json!(rows), &text)
}

/// Says whether a store's cloud answers, and what it is.
pub(super) fn check(context: &Context, args: &CloudCheckArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let dir = store.store.dir();
    let check = check_cloud(dir)?;
    let CloudCheck { found, is_known, abilities, fenced, heads, n_unread } = &check;
    let url = dir.config.cloud_url().context("this store has no cloud")?;
    let identity = found.map_or("none".into(), |id| id.to_string());
    let mut text = format!("cloud        {url}\nidentity     {identity}\n");
    text.push_str(match (is_known, dir.writer.is_some()) {
        (false, _) => "             it is not the one that this store knows\n",
        (true, true) => "             it is this store's\n",
        (true, false) => "             it is this store's, which is a follower and only reads it\n",
    });
    text.extend(abilities.as_ref().map(abilities::text));
    text.extend(heads.iter().map(head_text));
    if *n_unread > 0 {
        text.push_str(&format!("             {n_unread} manifests cannot be read\n"));
    }
    let json = json!({
        "url": url,
        "id": found.map(|id| id.to_string()),
        "is_known": is_known,
        "abilities": abilities.as_ref().map(abilities::json),
        "fenced": fenced.as_ref().map(ToString::to_string),
        "epochs": heads.iter().map(head_json).collect::<Vec<_>>(),
        "unread_manifests": n_unread,
    });
    context.console.report(&json, &text)?;
    if let Some(fenced) = fenced {
        bail!("{fenced}");
    }
    if !is_known {
        bail!("{url} is not the cloud that this store knows: nothing is uploaded to it");
    }
    Ok(())
}

fn head_text(head: &Head) -> String {
    let Head { summary, signer, .. } = head;
    format!(
        "epoch {:<6} snapshot {} of {}, signed by {}\n",
        summary.epoch.get(),
        summary.snapshot,
        summary.created,
        signer.fingerprint()
    )
}

fn head_json(head: &Head) -> serde_json::Value {
    let Head { summary, signer, .. } = head;
    json!({
        "epoch": summary.epoch.get(),
        "snapshot": summary.snapshot.get(),
        "created": summary.created.to_string(),
        "signer": signer.fingerprint(),
    })
}
