//! The token file: which secret shows that a peer is which worker.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::wire::Credential;

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token file {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// Others can read the secrets in it.
    #[error("the token file {} may be read by others (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its content is wrong.
    #[error("the token file {} is wrong:\n{}", path.display(), problems.join("\n"))]
    Content {
        /// The file.
        path: PathBuf,
        /// All that is wrong, with line numbers. No token is quoted.
        problems: Vec<String>,
    },
}

/// A token shorter than this can be guessed.
const TOKEN_CHARACTERS_MIN: usize = 16;

/// Reads the credentials of workers `0..workers`.
///
/// # Errors
/// If the file cannot be read, is readable by others, or does not have exactly one token for each worker.
pub fn read(path: &Path, workers: usize) -> Result<Vec<Credential>, TokenError> {
    let unreadable = |error| TokenError::Unreadable { path: path.to_owned(), error };
    let mode = std::fs::metadata(path).map_err(unreadable)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TokenError::Exposed { path: path.to_owned(), mode });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&text, workers).map_err(|problems| TokenError::Content { path: path.to_owned(), problems })
}

fn parse(text: &str, workers: usize) -> Result<Vec<Credential>, Vec<String>> {
    let mut tokens: Vec<Option<&str>> = vec![None; workers];
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let (index, token, more) = (words.next(), words.next(), words.next());
        let (Some(index), Some(token), None) = (index, token, more) else {
            problems.push(format!("line {number}: expected a worker's index and its token, and nothing else"));
            continue;
        };
        let Ok(worker) = index.parse::<usize>() else {
            problems.push(format!("line {number}: the first word is not a worker's index"));
            continue;
        };
        if token.len() < TOKEN_CHARACTERS_MIN {
            let found = token.len();
            problems.push(format!(
                "line {number}: a token of {found} characters, expected at least {TOKEN_CHARACTERS_MIN} (try: openssl rand -hex 32)"
            ));
        }
        match tokens.get_mut(worker) {
            None => {
                problems.push(format!("line {number}: worker {worker}, but the job has workers 0 to {}", workers - 1))
            }
            Some(Some(_)) => problems.push(format!("line {number}: worker {worker} has a token already")),
            Some(slot) => *slot = Some(token),
        }
    }
    let missing: Vec<String> =
        (0..workers).filter(|worker| tokens[*worker].is_none()).map(|worker| worker.to_string()).collect();
    if !missing.is_empty() {
        problems.push(format!("no token for the workers {}", missing.join(", ")));
    }
    if problems.is_empty() {
        Ok(tokens.into_iter().flatten().map(Credential::from_token).collect())
    } else {
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const GOOD: &str = "# tokens\n0 aaaaaaaaaaaaaaaa\n\n1 bbbbbbbbbbbbbbbb\n";

    #[test]
    fn everything_wrong_with_a_token_file_is_listed_and_no_token_is_quoted() {
        let problems =
            parse("0 short\n0 bbbbbbbbbbbbbbbb\nx yyyyyyyyyyyyyyyy\n7 zzzzzzzzzzzzzzzz\n1\n", 3).unwrap_err();
        let expected = [
            "line 1: a token of 5 characters, expected at least 16 (try: openssl rand -hex 32)",
            "line 2: worker 0 has a token already",
            "line 3: the first word is not a worker's index",
            "line 4: worker 7, but the job has workers 0 to 2",
            "line 5: expected a worker's index and its token, and nothing else",
            "no token for the workers 1, 2",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn a_token_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, GOOD).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = read(&path, 2).unwrap_err().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read(&path, 2).unwrap().len(), 2);
        assert!(matches!(read(&directory.path().join("none"), 2), Err(TokenError::Unreadable { .. })));
    }
}
