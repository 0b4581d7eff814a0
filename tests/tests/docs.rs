//! The documentation is checked like code: pages that are generated are current, links lead somewhere, commands
//! that are shown can be run.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use gst::prelude::*;
use nvr_tests::markdown::{self, words};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the workspace").to_owned()
}

/// Every Markdown page of the project: name from the root, and text.
fn pages() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("folder can be read").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        found.push(root.join(name));
    }
    for folder in
        ["docs", "docker", "config", "pipelines", "tests/bench", "tests/tools", "fuzz", "gst-plugins"]
    {
        if root.join(folder).is_dir() {
            walk(&root.join(folder), &mut found);
        }
    }
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (path.strip_prefix(&root).expect("below the root").to_owned(), text)
        })
        .collect()
}

/// Identifier that a renderer gives a heading: lower case, words joined by hyphens, punctuation dropped.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn elements_page_is_current() {
    let output = Command::new(env!("CARGO_BIN_EXE_element-docs")).output().expect("the generator starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let wanted = String::from_utf8(output.stdout).expect("the page is UTF-8");
    let found = fs::read_to_string(root().join("docs/ref/elements.md")).expect("docs/ref/elements.md exists");
    if let Some((number, (wanted, found))) =
        wanted.lines().zip(found.lines()).enumerate().find(|(_, (wanted, found))| wanted != found)
    {
        panic!(
            "docs/ref/elements.md is out of date, run `make docs`. Line {}:\n  has   {found}\n  needs {wanted}",
            number + 1
        );
    }
    assert_eq!(
        wanted.lines().count(),
        found.lines().count(),
        "docs/ref/elements.md is out of date, run `make docs`"
    );
}

/// What an element counts before it has started is explained; what it adds while it runs, its own tests know.
#[test]
fn statistics_are_explained() {
    assert_eq!(
        nvr_launch::cli::main(["nvr-launch", "check", "processor"].map(Into::into)),
        ExitCode::SUCCESS
    );
    let page = fs::read_to_string(root().join("docs/ref/messages.md")).expect("docs/ref/messages.md");
    for feature in &gst::Registry::get().features_by_plugin("nvr") {
        let Some(factory) = feature.downcast_ref::<gst::ElementFactory>() else { continue };
        let element = factory.create().build().expect("the element is made");
        let stats: Option<gst::Structure> = element.property("stats");
        for field in stats.iter().flat_map(|stats| stats.fields()) {
            assert!(
                page.contains(&format!("`{field}`")),
                "stats field {field} of {} is not explained",
                factory.name()
            );
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for (page, text) in pages() {
        let prose = markdown::prose(&text);
        for part in prose.split("](").skip(1) {
            let Some((link, _)) = part.split_once(')') else { continue };
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                root().join(&page)
            } else {
                root().join(page.parent().expect("a page is in a folder")).join(file)
            };
            if !target.exists() {
                broken.push(format!("{}: {link} does not exist", page.display()));
            } else if !fragment.is_empty() {
                let text = fs::read_to_string(&target).unwrap_or_default();
                if !text.lines().any(|line| line.starts_with('#') && anchor(line) == fragment) {
                    broken.push(format!("{}: {link} has no such heading", page.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn gst_launch_examples_parse() {
    // The launcher registers the elements, once for the process however often it is asked.
    assert_eq!(
        nvr_launch::cli::main(["nvr-launch", "check", "processor"].map(Into::into)),
        ExitCode::SUCCESS
    );
    let (mut count, mut bad) = (0, Vec::new());
    for (page, text) in pages() {
        for command in markdown::commands(&text) {
            let words = words(&command);
            let mut words = words.iter().map(String::as_str).skip_while(|word| word.contains('=')).peekable();
            if words.next() != Some("gst-launch-1.0") {
                continue;
            }
            while words.next_if(|word| word.starts_with('-')).is_some() {}
            let description: Vec<_> = words.collect();
            count += 1;
            if let Err(error) = gst::parse::launchv(&description) {
                bad.push(format!("{}: {error}\n  {command}", page.display()));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(count >= 5, "only {count} examples were found");
}

/// Every `nvr-launch GRAPH …` that a page shows is right: its flags exist and their values fit. For a site file
/// that is only an example, the sample stands in.
#[test]
fn nvr_launch_examples_are_right() {
    let commands = nvr_launch::cli::commands();
    let (mut count, mut bad) = (0, Vec::new());
    for (page, text) in pages() {
        for command in markdown::commands(&text) {
            let words = words(&command);
            let mut words = words.iter().map(String::as_str).skip_while(|word| word.contains('='));
            if words.next().is_none_or(|program| program.rsplit('/').next() != Some("nvr-launch")) {
                continue;
            }
            let Some(graph) = words.next() else { continue };
            if commands.iter().any(|command| command == graph) || graph.starts_with('-') {
                continue;
            }
            if nvr_launch::graph::SHIPPED.iter().all(|shipped| shipped.name != graph) {
                if Path::new(graph).extension().is_none_or(|extension| extension != "toml") {
                    bad.push(format!("{}: no graph and no command {graph}\n  {command}", page.display()));
                }
                continue;
            }
            let mut arguments = vec!["nvr-launch", graph, "--check"];
            let sample = root().join("config/site-server.toml").display().to_string();
            while let Some(word) = words.next() {
                match word {
                    "--check" | "--help" => {}
                    "--config" => {
                        words.next();
                        arguments.extend(["--config", &sample]);
                    }
                    // An example's file is not here.
                    "--model" => {
                        let model = words.next().filter(|model| !model.contains('/'));
                        arguments.extend(["--model", model.unwrap_or("demo")]);
                    }
                    word => arguments.push(word),
                }
            }
            count += 1;
            if nvr_launch::cli::main(arguments.iter().map(Into::into)) != ExitCode::SUCCESS {
                bad.push(format!("{}: {command}", page.display()));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(count >= 3, "only {count} examples were found");
}

#[test]
fn make_targets_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("Makefile");
    let mut missing = Vec::new();
    for (page, text) in pages() {
        for command in markdown::commands(&text) {
            let words = words(&command);
            let mut words = words.iter().skip_while(|word| *word == "sudo");
            if words.next().is_some_and(|program| program == "make") {
                let targets = words.filter(|word| !word.contains('=') && !word.starts_with('-'));
                let unknown = targets
                    .filter(|target| !makefile.lines().any(|line| line.starts_with(&format!("{target}:"))));
                missing.extend(unknown.map(|target| format!("{}: make {target}", page.display())));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// The samples are right as they are.
#[test]
fn sample_site_files_are_right() {
    for file in ["config/site.toml", "config/site-server.toml", "docker/site.toml"] {
        let file = root().join(file).display().to_string();
        let arguments = ["nvr-launch", "check", "processor", "--config", &file];
        assert_eq!(nvr_launch::cli::main(arguments.map(Into::into)), ExitCode::SUCCESS, "{file}");
    }
}

/// Files of the project that a page names by their path.
#[test]
fn named_files_exist() {
    let mut missing = BTreeSet::new();
    for (page, text) in pages() {
        let named = text.split(|c: char| c.is_whitespace() || "`()[]\"'|,;<>".contains(c));
        for name in named.map(|name| name.trim_end_matches(['.', ':'])) {
            let ours =
                ["pipelines/", "config/", "docker/", "scripts/", "tests/", "gst-plugins/", "launcher/"];
            if ours.iter().any(|folder| name.starts_with(folder))
                && !name.contains(['*', '{', '…', '$'])
                && !root().join(name).exists()
            {
                missing.insert(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "pages name files that do not exist:\n{}",
        Vec::from_iter(missing).join("\n")
    );
}
