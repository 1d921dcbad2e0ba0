//! What a cloud was seen to do, for operators.

use serde_json::{Value, json};
use tier_store::{Abilities, Ability};

/// A line for each of them.
pub(super) fn text(abilities: &Abilities) -> String {
    let lines = Ability::ALL.map(|ability| {
        let (verb, what, if_not) = words(ability);
        match abilities.has(ability) {
            true => format!("{verb:<12} {what}\n"),
            false => format!("{verb:<12} NOT {what}: {if_not}\n"),
        }
    });
    lines.concat()
}

/// What a cloud does, and what it means that it does not.
fn words(ability: Ability) -> (&'static str, &'static str, &'static str) {
    match ability {
        Ability::ConditionalCreation => {
            ("creates", "only under a name that is free", "a takeover needs --force")
        }
        Ability::ConditionalDeletion => {
            ("deletes", "only the object that is meant", "another of its name may go")
        }
        Ability::RefusesChanged => {
            ("takes", "only what arrives as it was sent", "all that is put is read again")
        }
        Ability::Ranges => ("gives", "parts of objects", "it cannot be used"),
        Ability::ListsAtOnce => {
            ("lists", "what was put a moment ago", "a restore may miss the newest snapshots")
        }
    }
}

/// What the operator must know at once.
pub(super) fn warnings(abilities: &Abilities) -> String {
    let mut text = String::new();
    if !abilities.has(Ability::ConditionalCreation) {
        text.push_str(
            "WARNING: this cloud ignores conditions. Two stores that write to one archive may not \
             notice each other: tier takeover needs --force, and you must rule that out yourself.\n",
        );
    }
    if !abilities.has(Ability::ListsAtOnce) {
        text.push_str(
            "WARNING: this cloud lists an object some time after it was put. A restore may miss \
             the newest snapshots; repeat it then.\n",
        );
    }
    text
}

pub(super) fn json(abilities: &Abilities) -> Value {
    let has = |ability| abilities.has(ability);
    json!({
        "conditional_creation": has(Ability::ConditionalCreation),
        "conditional_deletion": has(Ability::ConditionalDeletion),
        "refuses_changed": has(Ability::RefusesChanged),
        "ranges": has(Ability::Ranges),
        "lists_at_once": has(Ability::ListsAtOnce),
    })
}
