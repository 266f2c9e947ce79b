//! Links in the documents lead to files and headings that there are.

use std::path::Path;

/// The targets of Markdown links in a text.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// Whether a document has a heading that this anchor leads to.
fn has_heading(text: &str, anchor: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| line.trim_start_matches('#').trim().to_lowercase()).any(|heading| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).eq(anchor.chars())
    })
}

#[test]
fn every_link_leads_somewhere() {
    let root = super::root();
    let mut documents = vec![root.join("README.md")];
    documents.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|e| e.unwrap().path()));
    let mut looked_at = 0;
    for document in documents.iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let text = std::fs::read_to_string(document).unwrap();
        for link in links(&text).filter(|link| !link.starts_with("http")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let beside = document.parent().unwrap_or_else(|| Path::new("."));
            let target = if path.is_empty() { document.clone() } else { beside.join(path) };
            assert!(target.exists(), "{}: {link}", document.display());
            let leads = anchor.is_empty()
                || has_heading(&std::fs::read_to_string(&target).unwrap(), anchor);
            assert!(leads, "{}: {link}: no such heading", document.display());
            looked_at += 1;
        }
    }
    assert!(looked_at > 20, "{looked_at}");
    assert!(has_heading("## What is, and is not\n", "what-is-and-is-not"));
    assert!(!has_heading("text\n", "text"));
}
