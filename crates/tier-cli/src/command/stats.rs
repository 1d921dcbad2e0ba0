//! `tier stats`: how much the tables of the key-value store and the index hold.

use anyhow::Result;
use kvfs::TableStatistics;
use serde_json::json;

use crate::args::StatsArgs;
use crate::console::output;
use crate::context::Context;

pub(super) fn run(context: &Context, args: &StatsArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let tables = store.fs.statistics()?;
    let mut text = String::from("key-value store\n");
    for TableStatistics { table, n_keys, file_bytes } in &tables {
        let bytes = output::bytes(*file_bytes);
        text.push_str(&format!("  {table:<9} about {n_keys:>10} keys  {bytes:>12}\n"));
    }
    text.push_str("index\n");
    for line in store.index().statistics().lines() {
        text.push_str(&format!("  {line}\n"));
    }
    let row = |TableStatistics { table, n_keys, file_bytes }: &TableStatistics| json!({ "table": table, "keys": n_keys, "bytes": file_bytes });
    let rows: Vec<_> = tables.iter().map(row).collect();
    context.console.report(&json!({ "kvs": rows, "index": store.index().statistics() }), &text)
}
