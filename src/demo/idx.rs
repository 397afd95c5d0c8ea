//! The IDX format of the MNIST family: a big-endian header, then the bytes.
//!
//! ```text
//! images: 00000803 count rows columns, then count x rows x columns pixels
//! labels: 00000801 count, then count labels
//! ```
//!
//! A file must be exactly as long as its header says. Memory grows with the bytes that are there, never with the
//! header's promise, and stops at [`BODY_MAX`].

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::DataError;

/// Most bytes after the header: ten times Fashion-MNIST.
const BODY_MAX: u64 = 512 << 20;

/// The contents of an image file.
#[derive(Debug, PartialEq)]
pub(super) struct Images {
    pub pixels: Vec<u8>,
    pub count: usize,
    pub inputs: usize,
}

/// What is wrong with an IDX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatFault {
    /// The first four bytes name another format.
    #[error("starts with {found:#010x}, expected {expected:#010x}: not an IDX file of this kind")]
    Magic {
        /// What the file starts with.
        found: u32,
        /// What a file of this kind starts with.
        expected: u32,
    },
    /// The file ends within its header.
    #[error("is shorter than the header of {expected} bytes")]
    Header {
        /// Bytes a header has.
        expected: usize,
    },
    /// The bytes after the header are not as many as the header says.
    #[error("has {} bytes after the header, expected {expected}", at_least(*.found, *.expected))]
    Length {
        /// Bytes after the header; one more than expected stands for any number more.
        found: u64,
        /// Bytes the header promises.
        expected: u64,
    },
    /// The header promises nothing, or more than is ever read.
    #[error("its header promises {promised} bytes, expected 1 to {BODY_MAX}")]
    Promise {
        /// Bytes the header promises, as far as they can be counted.
        promised: u64,
    },
}

/// Reads the image file `path`, or `path` with `.gz`; returns which of them it was.
pub(super) fn images(path: &Path) -> Result<(PathBuf, Images), DataError> {
    let (path, [count, rows, columns], pixels) = read(path, 0x803)?;
    // Their product was compared with the bytes read, so it does not overflow.
    Ok((path, Images { pixels, count: count as usize, inputs: rows as usize * columns as usize }))
}

/// Reads the label file `path`, or `path` with `.gz`; returns which of them it was.
pub(super) fn labels(path: &Path) -> Result<(PathBuf, Vec<u8>), DataError> {
    let (path, [_], labels) = read(path, 0x801)?;
    Ok((path, labels))
}

fn read<const AXES: usize>(path: &Path, magic: u32) -> Result<(PathBuf, [u32; AXES], Vec<u8>), DataError> {
    let zipped = PathBuf::from(format!("{}.gz", path.display()));
    for path in [path, &zipped] {
        let file = match File::open(path) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(DataError::Read { path: path.into(), error }),
        };
        let parsed = if path == zipped { parse(MultiGzDecoder::new(file), magic) } else { parse(file, magic) };
        return match parsed {
            Ok((axes, body)) => Ok((path.into(), axes, body)),
            Err(ParseError::Read(error)) => Err(DataError::Read { path: path.into(), error }),
            Err(ParseError::Format(fault)) => Err(DataError::Format { path: path.into(), fault }),
        };
    }
    Err(DataError::Missing(path.into()))
}

#[derive(Debug)]
enum ParseError {
    Read(std::io::Error),
    Format(FormatFault),
}

impl From<FormatFault> for ParseError {
    fn from(fault: FormatFault) -> ParseError {
        ParseError::Format(fault)
    }
}

fn parse<const AXES: usize>(mut source: impl Read, magic: u32) -> Result<([u32; AXES], Vec<u8>), ParseError> {
    let mut word = || {
        let mut bytes = [0; 4];
        match source.read_exact(&mut bytes) {
            Ok(()) => Ok(u32::from_be_bytes(bytes)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(ParseError::Format(FormatFault::Header { expected: 4 + 4 * AXES }))
            }
            Err(error) => Err(ParseError::Read(error)),
        }
    };
    let found = word()?;
    if found != magic {
        return Err(FormatFault::Magic { found, expected: magic }.into());
    }
    let mut axes = [0; AXES];
    for axis in &mut axes {
        *axis = word()?;
    }
    let expected = axes.iter().fold(1u64, |product, &axis| product.saturating_mul(u64::from(axis)));
    if !(1..=BODY_MAX).contains(&expected) {
        return Err(FormatFault::Promise { promised: expected }.into());
    }
    let mut body = Vec::new();
    // One byte further than expected, to see that the file ends there.
    let found = source.take(expected + 1).read_to_end(&mut body).map_err(ParseError::Read)? as u64;
    if found != expected { Err(FormatFault::Length { found, expected }.into()) } else { Ok((axes, body)) }
}

fn at_least(found: u64, expected: u64) -> String {
    if found > expected { "more".into() } else { found.to_string() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::super::Split;
    use super::*;

    fn file(magic: u32, axes: &[u32], body: &[u8]) -> Vec<u8> {
        let header = std::iter::once(magic).chain(axes.iter().copied());
        header.flat_map(u32::to_be_bytes).chain(body.iter().copied()).collect()
    }

    fn fault<const AXES: usize>(bytes: &[u8], magic: u32) -> FormatFault {
        match parse::<AXES>(bytes, magic).unwrap_err() {
            ParseError::Format(fault) => fault,
            ParseError::Read(error) => panic!("{error}"),
        }
    }

    /// A directory with four small files; `change` may spoil them.
    fn directory(change: impl Fn(&str, Vec<u8>) -> Vec<u8>) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for prefix in ["train", "t10k"] {
            let images = file(0x803, &[2, 1, 3], &[0, 255, 0, 1, 2, 3]);
            let labels = file(0x801, &[2], &[1, 0]);
            // One kind plain, the other zipped.
            std::fs::write(directory.path().join(format!("{prefix}-images-idx3-ubyte")), change(prefix, images))
                .unwrap();
            let zipped = File::create(directory.path().join(format!("{prefix}-labels-idx1-ubyte.gz"))).unwrap();
            let mut zipped = GzEncoder::new(zipped, Compression::fast());
            zipped.write_all(&labels).unwrap();
            zipped.finish().unwrap();
        }
        directory
    }

    #[test]
    fn plain_and_zipped_files_are_read() {
        let split = Split::read(directory(|_, bytes| bytes).path()).unwrap();
        assert_eq!((split.train.len(), split.train.inputs(), split.train.classes()), (2, 3, 2));
        assert_eq!(split.test.features(0).collect::<Vec<_>>(), [0.0, 1.0, 0.0]);
        assert_eq!(split.test.label(0), 1);
    }

    #[test]
    fn a_missing_file_names_the_package_that_has_it() {
        let text = Split::read(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
        assert!(text.contains("train-images-idx3-ubyte") && text.contains("dataset-fashion-mnist"), "{text}");
    }

    #[test]
    fn files_that_do_not_fit_each_other_are_refused() {
        let more = directory(|prefix, bytes| match prefix {
            "train" => file(0x803, &[3, 1, 2], &[0; 6]),
            _ => bytes,
        });
        let text = Split::read(more.path()).unwrap_err().to_string();
        assert!(text.contains("2 labels, but") && text.contains("has 3"), "{text}");
        let wider = directory(|prefix, bytes| if prefix == "t10k" { file(0x803, &[2, 2, 3], &[0; 12]) } else { bytes });
        let text = Split::read(wider.path()).unwrap_err().to_string();
        assert!(text.contains("6 pixels per image") && text.contains("has 3"), "{text}");
    }

    #[test]
    fn a_file_one_byte_short_or_long_is_refused_and_named() {
        for (length, found) in [(5, "5"), (7, "more")] {
            let spoiled = directory(|_, _| file(0x803, &[2, 1, 3], &vec![0; length]));
            let text = Split::read(spoiled.path()).unwrap_err().to_string();
            assert!(text.contains(&format!("has {found} bytes after the header, expected 6")), "{text}");
            assert!(text.contains("train-images-idx3-ubyte"), "{text}");
        }
    }

    #[test]
    fn a_cut_gzip_file_is_a_read_error() {
        let cut = directory(|_, bytes| bytes);
        let path = cut.path().join("train-labels-idx1-ubyte.gz");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        let text = Split::read(cut.path()).unwrap_err().to_string();
        assert!(text.contains("train-labels-idx1-ubyte.gz") && text.contains("fetch the file again"), "{text}");
    }

    #[test]
    fn a_header_is_not_believed() {
        assert_eq!(fault::<1>(&[0, 0, 8], 0x801), FormatFault::Header { expected: 8 });
        assert_eq!(fault::<1>(b"PK\x03\x04....", 0x801), FormatFault::Magic { found: 0x504b_0304, expected: 0x801 });
        let huge = file(0x803, &[u32::MAX, u32::MAX, u32::MAX], &[]);
        assert_eq!(fault::<3>(&huge, 0x803), FormatFault::Promise { promised: u64::MAX });
        assert_eq!(fault::<3>(&file(0x803, &[0, 28, 28], &[]), 0x803), FormatFault::Promise { promised: 0 });
        let large = file(0x803, &[60_000, 28, 28], &[7; 10]);
        assert_eq!(fault::<3>(&large, 0x803), FormatFault::Length { found: 10, expected: 47_040_000 });
    }
}
