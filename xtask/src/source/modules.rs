//! Which module of a crate uses which.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use super::files::{Crate, SourceFile, is_for_tests};

/// A module's path within its crate.
pub(crate) type Module = Vec<String>;

/// The modules of a crate, and an edge for each that names something of another one.
pub(crate) struct Modules {
    pub(crate) edges: BTreeMap<Module, BTreeSet<Module>>,
}

impl Modules {
    pub(crate) fn of(krate: &Crate) -> Self {
        let files: Vec<_> = krate.files.iter().filter(|file| !file.is_test()).collect();
        let known: BTreeSet<Module> = files.iter().map(|file| file.module.clone()).collect();
        let exports = files.iter().map(|file| (file.module.clone(), exports(file))).collect();
        let names = Names { known, exports };
        let mut edges = BTreeMap::new();
        // A crate's root lists its modules and is used by none.
        for file in files.iter().filter(|file| !file.module.is_empty()) {
            let mut uses = Uses { module: file.module.clone(), paths: Vec::new() };
            uses.visit_file(&file.syntax);
            let used = uses.paths.iter().filter_map(|path| names.owner(path));
            let used = used.filter(|used| !used.is_empty() && *used != file.module);
            edges.insert(file.module.clone(), used.collect());
        }
        Self { edges }
    }

    /// Groups of modules that use each other in a circle.
    pub(crate) fn circles(&self) -> Vec<Vec<Module>> {
        let reach: BTreeMap<&Module, BTreeSet<Module>> =
            self.edges.keys().map(|module| (module, self.reachable(module))).collect();
        let mut seen: BTreeSet<Module> = BTreeSet::new();
        let mut circles = Vec::new();
        for (module, reachable) in &reach {
            if seen.contains(*module) || !reachable.contains(*module) {
                continue;
            }
            let back = |other: &&Module| reach.get(other).is_some_and(|r| r.contains(*module));
            let circle: Vec<Module> = reachable.iter().filter(back).cloned().collect();
            seen.extend(circle.iter().cloned());
            circles.push(circle);
        }
        circles
    }

    fn reachable(&self, from: &Module) -> BTreeSet<Module> {
        let mut found = BTreeSet::new();
        let mut todo: Vec<&Module> = self.edges.get(from).into_iter().flatten().collect();
        while let Some(module) = todo.pop() {
            if found.insert(module.clone()) {
                todo.extend(self.edges.get(module).into_iter().flatten());
            }
        }
        found
    }
}

/// What is needed to find the module in which something is defined.
struct Names {
    known: BTreeSet<Module>,
    /// Names that a module gives out, and where they come from.
    exports: BTreeMap<Module, BTreeMap<String, Module>>,
}

impl Names {
    /// The module that defines what a path from the crate's root names.
    fn owner(&self, path: &[String]) -> Option<Module> {
        let mut at = Module::new();
        for (n, part) in path.iter().enumerate() {
            let below = [at.as_slice(), std::slice::from_ref(part)].concat();
            if self.known.contains(&below) {
                at = below;
                continue;
            }
            let exported = self.exports.get(&at).and_then(|names| names.get(part));
            return match exported {
                Some(target) if target.as_slice() != path => {
                    let rest = path.get(n + 1..).unwrap_or_default();
                    self.owner(&[target.as_slice(), rest].concat())
                }
                _ => Some(at),
            };
        }
        Some(at)
    }
}

/// The names that a module re-exports.
fn exports(file: &SourceFile) -> BTreeMap<String, Module> {
    let mut names = BTreeMap::new();
    for item in &file.syntax.items {
        if let syn::Item::Use(item) = item
            && !matches!(item.vis, syn::Visibility::Inherited)
        {
            for (path, name) in leaves(&item.tree, &[]) {
                if let Some(target) = absolute(&path, &file.module, true) {
                    names.insert(name, target);
                }
            }
        }
    }
    names
}

/// The paths of a `use` tree, each with the name under which it is known.
fn leaves(tree: &syn::UseTree, before: &[String]) -> Vec<(Vec<String>, String)> {
    let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
    match tree {
        syn::UseTree::Path(path) => leaves(&path.tree, &with(&path.ident)),
        syn::UseTree::Name(name) => vec![(with(&name.ident), name.ident.to_string())],
        syn::UseTree::Rename(name) => vec![(with(&name.ident), name.rename.to_string())],
        syn::UseTree::Glob(_) => vec![(before.to_vec(), "*".into())],
        syn::UseTree::Group(group) => {
            group.items.iter().flat_map(|tree| leaves(tree, before)).collect()
        }
    }
}

/// A path as seen from the crate's root; `None` if it leads out of the crate.
fn absolute(path: &[String], module: &[String], in_use: bool) -> Option<Module> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => {
            let (_, parent) = module.split_last()?;
            if rest.first().is_some_and(|part| part == "super") {
                return absolute(rest, parent, in_use);
            }
            Some([parent, rest].concat())
        }
        // A child module, as in `pub use error::LogError`; or another crate, which then is no
        // known module.
        _ if in_use => Some([module, path].concat()),
        _ => None,
    }
}

/// Collects all paths into the crate outside of tests.
struct Uses {
    module: Module,
    paths: Vec<Vec<String>>,
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if is_for_tests(&item.attrs) {
            return;
        }
        for (path, _) in leaves(&item.tree, &[]) {
            let child = self.module.is_empty() || path.first().is_some_and(|part| part != "crate");
            self.paths.extend(absolute(&path, &self.module, child));
        }
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(super)` names a module and uses nothing of it.
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        // `module::function` with a module that a `use` brought in was counted there.
        self.paths.extend(absolute(&parts, &self.module, false));
        visit::visit_path(self, path);
    }
}
