//! `tier stats`: how much the tables of the key-value store and the index hold.

use anyhow::Result;
use serde_json::json;

use crate::args::StatsArgs;
use crate::console::output;
use crate::context::Context;

pub(super) fn run(context: &Context, args: &StatsArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let tables = store.fs.statistics();
    let mut text = String::from("key-value store\n");
    for (name, keys, bytes) in &tables {
        text.push_str(&format!(
            "  {name:<9} about {keys:>10} keys  {:>12}\n",
            output::bytes(*bytes)
        ));
    }
    text.push_str("index\n");
    for line in store.index().statistics().lines() {
        text.push_str(&format!("  {line}\n"));
    }
    let rows: Vec<_> = tables
        .iter()
        .map(|(name, keys, bytes)| json!({ "table": name, "keys": keys, "bytes": bytes }))
        .collect();
    context.console.report(&json!({ "kvs": rows, "index": store.index().statistics() }), &text)
}
