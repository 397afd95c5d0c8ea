//! What holds for any file, variable and flag.

use super::*;
use proptest::prelude::*;

#[test]
fn a_syntax_error_never_goes_unreported() {
    for file in [
        "\u{a0}",
        "\u{b}",
        "=",
        "[",
        "[[",
        "a",
        "x = \"\"\"",
        "a = [[1,\n\n",
        "\"",
        "[job]\nmap = [\n [\n",
        "\r",
        "é = é",
    ] {
        let found = problems(file, &[], &[]);
        assert!(found.iter().any(|problem| problem.object == "syntax"), "{file:?} {found:?}");
        assert!(found.iter().all(|problem| problem.object != "job.dimension"), "{file:?} {found:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(file in "\\PC*", flag in "\\PC*", env in "\\PC*") {
        let _ = request(&file, &[("SOLON_CORES_MAP", &env), (&env, &flag)], &["--job-scale", &flag, "--job-name", &flag]);
    }

    #[test]
    fn no_toml_makes_it_panic(lines in proptest::collection::vec(
        prop_oneof![
            "\\[{0,2}(job|chunks|rounds|cores|listen|log)?(\\.[a-z]{1,3})?\\]{0,2}",
            "(job\\.)?(name|rule|groups|workers|adversaries|dimension|window|map|address|open) ?= ?(-?[0-9]{1,20}|true|\"[a-z\"é]*\"|\\[{1,3}\"?(push|decode)?\"?,?\\]{0,3}|\\{[a-z=1]*\\}|1979-05-27|1e[0-9]{1,3})",
            "\\PC{0,12}",
            "[\\[\\]{}\"'=#., \\t\\r\u{0}a]{0,8}",
        ], 0..12)) {
        let file = lines.join("\n") + "\n";
        match request(&file, &[], &[]) {
            Err(Refusal::Wrong { problems, .. }) => {
                prop_assert!(!problems.is_empty());
                for problem in &problems {
                    if let Place::File { line, .. } = problem.place {
                        prop_assert!(line <= 1 + file.matches('\n').count());
                    }
                }
            }
            Err(Refusal::Usage(error)) => prop_assert!(false, "{error}"),
            Ok(_) => {}
        }
    }

    #[test]
    fn any_settings_are_served_or_refused_with_a_reason(
        groups in 0u32..100, adversaries in 0u32..40, stragglers in 0u32..70, compression in 0u32..70, workers in 0u32..4000,
    ) {
        let file = format!(
            "[job]\ndimension = 9\ngroups = {groups}\nadversaries = {adversaries}\nstragglers = {stragglers}\n\
             compression = {compression}\nworkers = {workers}\n"
        );
        match request(&file, &[], &[]) {
            Ok(Request::Serve(loaded)) => prop_assert_eq!(loaded.config.job.parameters.workers(), workers as usize),
            Err(Refusal::Wrong { problems, .. }) => prop_assert!(!problems.is_empty()),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
