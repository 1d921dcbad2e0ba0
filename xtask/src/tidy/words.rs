//! One word, one meaning: words that are not used, in code or in prose.

/// Words for which the glossary has another one, also as parts of names.
const OLD: [&str; 13] = [
    "reign",
    "folder",
    "folders",
    "crew",
    "survivor",
    "manners",
    "patience",
    "surroundings",
    "circumstances",
    "outlet",
    "mender",
    "audience",
    "secured",
];

/// The subject of a sentence is a component, never a person.
const PERSONS: [&str; 18] = [
    "who",
    "whoever",
    "whom",
    "whomever",
    "somebody",
    "someone",
    "nobody",
    "anybody",
    "anyone",
    "everybody",
    "everyone",
    "he",
    "him",
    "his",
    "himself",
    "she",
    "her",
    "hers",
];

/// Old words anywhere in a source file, persons in its comments.
pub(super) fn in_source(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (line_idx, line) in text.lines().enumerate() {
        // The lists of this very rule are not uses of the words.
        if line.trim_start().starts_with('"') && line.trim_end().ends_with("\",") {
            continue;
        }
        problems.extend(old_words(line, line_idx));
        if let Some((_, comment)) = line.split_once("//") {
            problems.extend(persons(comment, line_idx));
        }
    }
    problems
}

/// Old words and persons in prose; what stands in backquotes is code, and quoted.
pub(super) fn in_document(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (line_idx, line) in text.lines().enumerate() {
        let prose: String = line.split('`').step_by(2).collect();
        problems.extend(old_words(&prose, line_idx));
        problems.extend(persons(&prose, line_idx));
    }
    problems
}

fn old_words(line: &str, line_idx: usize) -> impl Iterator<Item = String> {
    let lower = line.to_lowercase();
    let found = OLD.into_iter().filter(move |old| {
        lower.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == *old)
    });
    found.map(move |word| format!("line {}: the word {word}", line_idx + 1))
}

fn persons(line: &str, line_idx: usize) -> impl Iterator<Item = String> {
    let lower = line.to_lowercase();
    let found = PERSONS.into_iter().filter(move |person| {
        lower.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == *person)
    });
    found.map(move |word| format!("line {}: a person ({word}); name the component", line_idx + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_as_words() {
        // In parts, so that the rule does not find its own tests.
        let (person, old) =
            (["/", "/ Wh", "oever asks."].concat(), ["let fold", "er_bytes = 3;"].concat());
        assert_eq!(in_source(&person).len(), 1);
        assert_eq!(in_source(&old).len(), 1);
        assert_eq!(in_source("let whole = \"nobody\";"), [""; 0]);
        assert_eq!(in_document("the theory of `nobody`"), [""; 0]);
        assert_eq!(in_document(&["H", "e reads."].concat()).len(), 1);
    }
}
