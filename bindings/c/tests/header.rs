//! `include/solon.h` is what cbindgen makes of the sources now, and every compiler takes it.
//!
//! `UPDATE=1 cargo test -p solon-c --test header` writes it.

use std::path::{Path, PathBuf};

mod tools;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The sources' notes for readers of Rust are not for those of C.
fn without_safety_notes(header: &str) -> String {
    let mut text = String::new();
    let mut skip = false;
    for line in header.lines() {
        let ends = line.trim_end().ends_with("*/");
        if line.trim_start().starts_with("* # Safety") {
            skip = true;
            // The blank line before it goes, too.
            while text.ends_with(" *\n") {
                text.truncate(text.len() - 3);
            }
        }
        if !skip || ends {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        skip &= !ends;
    }
    text
}

#[test]
fn the_header_is_made_from_the_sources() {
    let config = cbindgen::Config::from_file(here("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in ["status", "structs", "handle", "lib"] {
        builder = builder.with_src(here("src").join(source).with_extension("rs"));
    }
    let mut made = Vec::new();
    builder.generate().expect("the sources make a header").write(&mut made);
    let made = without_safety_notes(std::str::from_utf8(&made).unwrap());
    let path = here("include/solon.h");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, made).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let line = committed.lines().zip(made.lines()).position(|(committed, made)| committed != made);
    assert!(
        committed == made,
        "include/solon.h is behind the sources (line {}): UPDATE=1 cargo test -p solon-c --test header",
        line.map_or(committed.lines().count().min(made.lines().count()), |line| line) + 1
    );
}

#[test]
fn the_header_lists_what_the_shared_library_exports_and_nothing_else_is_exported() {
    use object::{Object, ObjectSymbol};
    let header = std::fs::read_to_string(here("include/solon.h")).unwrap();
    let mut declared: Vec<&str> = header
        .lines()
        .filter(|line| !line.trim_start().starts_with(['*', '/', '#']))
        .flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '(')))
        .filter_map(|word| word.strip_suffix('(').or(word.split_once('(').map(|(name, _)| name)))
        .filter(|name| name.starts_with("solon_"))
        .collect();
    declared.sort_unstable();
    let bytes = std::fs::read(tools::library("libsolon_c.so")).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let mut exported: Vec<&str> =
        file.dynamic_symbols().filter(|symbol| symbol.is_definition()).map(|symbol| symbol.name().unwrap()).collect();
    exported.sort_unstable();
    assert_eq!(exported, declared);
}

const INCLUDES_IT: &str = "
#include <solon.h>
#include <solon.h>
int main(void) {
    solon_options options = SOLON_OPTIONS_INIT;
    solon_report report;
    report.size = sizeof report;
    report.liars[0] = 8;
    return options.worker == -1 && SOLON_CONTAINS(report.liars, 3u) ? 0 : 1;
}
";

#[test]
fn c_compilers_take_the_header_without_a_warning() {
    for standard in ["-std=c99", "-std=c11", "-std=c17"] {
        tools::compile("c", INCLUDES_IT, &[standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror"]).unwrap();
    }
    let warned = tools::compile("c", "int main(void) { int x; return 0; }", &["-Wall", "-Wextra", "-Werror"]);
    assert!(warned.is_err(), "warnings are errors");
}

#[test]
fn cxx_compilers_take_the_header_without_a_warning() {
    if !tools::have(&tools::cxx(), "a C++ compiler (on Debian: g++)") {
        return;
    }
    for standard in ["-std=c++11", "-std=c++20"] {
        tools::compile("c++", INCLUDES_IT, &[standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror"]).unwrap();
    }
}
