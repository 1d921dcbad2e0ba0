//! Counts that tell whether code explains and checks itself: assertions, heads of modules, and
//! parameters that are packed into tuples.

use quote::ToTokens;
use syn::visit::{self, Visit};

use crate::source::{Crate, SourceFile, is_for_tests};

/// In every library crate, for each thousand lines of code that are not tests.
const ASSERTIONS_MIN: f64 = 3.0;
/// Of all modules, in percent, have a head of as many lines as an explanation takes.
const HEADS_PERCENT_MIN: f64 = 25.0;
const HEAD_LINES: usize = 5;

const ASSERTIONS: [&str; 7] = [
    "assert",
    "assert_eq",
    "assert_ne",
    "debug_assert",
    "debug_assert_eq",
    "debug_assert_ne",
    "unreachable",
];

#[derive(Default)]
struct Counts {
    n_lines: usize,
    n_assertions: usize,
    n_modules: usize,
    n_heads: usize,
    /// Functions with a parameter that packs values of unlike types.
    packed: Vec<String>,
}

pub(super) fn problems(crates: &[Crate]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut total = Counts::default();
    for krate in crates {
        let counts = count(krate);
        // The testkit is made of assertions, and xtask is a program for developers.
        let is_library = !["xtask", "tier-testkit"].contains(&krate.name.as_str());
        let assertions = per_thousand(&counts);
        if is_library && assertions < ASSERTIONS_MIN {
            wrong.push(format!(
                "{}: {assertions:.1} assertions for each 1,000 lines; at least {ASSERTIONS_MIN}",
                krate.name
            ));
        }
        wrong.extend(counts.packed.iter().cloned());
        total.n_modules += counts.n_modules;
        total.n_heads += counts.n_heads;
    }
    if heads_percent(&total) < HEADS_PERCENT_MIN {
        wrong.push(format!(
            "{:.0} % of the modules have a head of {HEAD_LINES} lines; at least {HEADS_PERCENT_MIN} %",
            heads_percent(&total)
        ));
    }
    wrong
}

pub(super) fn summary(crates: &[Crate]) -> String {
    let mut total = Counts::default();
    for counts in crates.iter().map(count) {
        total.n_lines += counts.n_lines;
        total.n_assertions += counts.n_assertions;
        total.n_modules += counts.n_modules;
        total.n_heads += counts.n_heads;
    }
    format!(
        "{:.1} assertions for each 1,000 lines, {:.0} % of module heads of {HEAD_LINES} lines and more",
        per_thousand(&total),
        heads_percent(&total)
    )
}

fn count(krate: &Crate) -> Counts {
    let mut counts = Counts::default();
    for file in krate.files.iter().filter(|file| !file.is_test()) {
        counts.n_lines += code_lines(&file.text);
        counts.n_modules += 1;
        let head = file.text.lines().take_while(|line| line.starts_with("//!")).count();
        counts.n_heads += usize::from(head >= HEAD_LINES);
        let mut visitor = Visitor { file, counts: &mut counts };
        visitor.visit_file(&file.syntax);
    }
    counts
}

/// Lines up to the tests, which stand at the end.
fn code_lines(text: &str) -> usize {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "small numbers for people")]
fn ratio(part: usize, whole: usize, of: f64) -> f64 {
    part as f64 * of / whole.max(1) as f64
}

fn per_thousand(counts: &Counts) -> f64 {
    ratio(counts.n_assertions, counts.n_lines, 1000.0)
}

fn heads_percent(counts: &Counts) -> f64 {
    ratio(counts.n_heads, counts.n_modules, 100.0)
}

struct Visitor<'a> {
    file: &'a SourceFile,
    counts: &'a mut Counts,
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call.path.segments.last().map(|part| part.ident.to_string());
        let is_assertion = name.is_some_and(|name| ASSERTIONS.contains(&name.as_str()));
        self.counts.n_assertions += usize::from(is_assertion);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        // `#[expect(clippy::expect_used, reason = "…")]` states what cannot happen.
        let text = attribute.to_token_stream().to_string();
        let states = attribute.path().is_ident("expect")
            && (text.contains("expect_used") || text.contains("unwrap_used"));
        self.counts.n_assertions += usize::from(states);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        for input in &signature.inputs {
            if let syn::FnArg::Typed(input) = input
                && let (syn::Pat::Tuple(_), syn::Type::Tuple(tuple)) = (&*input.pat, &*input.ty)
                && are_unlike(tuple)
            {
                let path = self.file.path.display();
                self.counts.packed.push(format!(
                    "{path}: {} packs parameters of unlike types into a tuple",
                    signature.ident
                ));
            }
        }
        visit::visit_signature(self, signature);
    }
}

fn are_unlike(tuple: &syn::TypeTuple) -> bool {
    let mut types = tuple.elems.iter().map(|element| element.to_token_stream().to_string());
    let first = types.next();
    types.any(|other| Some(other) != first)
}
