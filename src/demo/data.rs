//! Images with labels: the digits compiled in, or a directory of IDX files.
//!
//! Pixels stay bytes, as they are in the files: Fashion-MNIST is 47 MB this way and 188 MB as `f32`, and every worker
//! process of the demonstration holds its own copy.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::idx;
pub use super::idx::FormatFault;
use crate::sampler::shuffled;

/// Labelled images, one row of pixels each.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    inputs: usize,
    classes: usize,
    brightest: u8,
}

/// What a model learns from, and what it is judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Samples to compute gradients from.
    pub train: Dataset,
    /// Samples that no gradient ever saw.
    pub test: Dataset,
}

/// Why a directory of data cannot be used; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file is not there, plain or compressed.
    #[error(
        "{}: found neither this file nor {}.gz; --data wants a directory with train-images-idx3-ubyte, \
         train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain or .gz: on Debian and Ubuntu \
         `apt-get install dataset-fashion-mnist` puts them in /usr/share/datasets/fashion-mnist",
        .0.display(), .0.display()
    )]
    Missing(PathBuf),
    /// A file cannot be read or decompressed.
    #[error("cannot read {}: {error} (a download cut short? fetch the file again)", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or the decompressor said.
        error: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {fault} (fetch the file again, or name another directory with --data)", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        fault: FormatFault,
    },
    /// Two files that belong together do not fit each other.
    #[error("{}: {found} {what}, but {} has {expected}: the files of one data set belong together", .path.display(), .other.display())]
    Mismatch {
        /// The file that does not fit.
        path: PathBuf,
        /// The file it was compared with.
        other: PathBuf,
        /// What was counted.
        what: &'static str,
        /// Count in `path`.
        found: usize,
        /// Count in `other`.
        expected: usize,
    },
}

impl Dataset {
    /// A data set of `labels.len()` samples with `inputs` pixels each, where `brightest` stands for 1.0.
    ///
    /// # Panics
    /// If the lengths do not fit, there is no sample, or a label or pixel is out of its range.
    pub fn new(pixels: Vec<u8>, labels: Vec<u8>, classes: usize, brightest: u8) -> Dataset {
        assert!(!labels.is_empty() && brightest > 0, "a data set has samples, and they are not all black");
        assert!(!pixels.is_empty() && pixels.len().is_multiple_of(labels.len()), "every sample has the same pixels");
        assert!(labels.iter().all(|&label| usize::from(label) < classes), "a label is not one of {classes} classes");
        assert!(pixels.iter().all(|&pixel| pixel <= brightest), "a pixel is brighter than {brightest}");
        Dataset { inputs: pixels.len() / labels.len(), pixels, labels, classes, brightest }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: a data set has at least one sample.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Pixels per sample.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of different labels.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// All pixels, a row per sample; `brightest` stands for 1.0.
    pub(crate) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// What stands for 1.0.
    pub(crate) fn brightest(&self) -> u8 {
        self.brightest
    }

    /// The class of sample `index`, `0..classes`.
    pub fn label(&self, index: usize) -> usize {
        usize::from(self.labels[index])
    }

    /// The pixels of sample `index`, scaled to 0..=1, in order.
    pub fn features(&self, index: usize) -> impl Iterator<Item = f32> + '_ {
        let scale = 1.0 / f32::from(self.brightest);
        self.pixels[index * self.inputs..][..self.inputs].iter().map(move |&pixel| f32::from(pixel) * scale)
    }

    /// The samples `order` names, in that order.
    fn select(&self, order: &[u32]) -> Dataset {
        let row = |&index: &u32| &self.pixels[index as usize * self.inputs..][..self.inputs];
        Dataset {
            pixels: order.iter().flat_map(row).copied().collect(),
            labels: order.iter().map(|&index| self.labels[index as usize]).collect(),
            ..*self
        }
    }
}

impl Split {
    /// The 1797 digits of 8 x 8 pixels that are compiled in: 1437 to train, 360 to test, always the same.
    ///
    /// E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, CC BY 4.0; see `digits.LICENSE.md`.
    pub fn digits() -> Split {
        let mut text = String::new();
        let file: &[u8] = include_bytes!("digits.csv.gz");
        GzDecoder::new(file).read_to_string(&mut text).expect("the embedded digits decompress: a test reads them");
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for line in text.lines() {
            pixels.extend(line.split(',').map(|number| number.parse::<u8>().expect("the embedded digits are numbers")));
            labels.extend(pixels.pop());
        }
        let all = Dataset::new(pixels, labels, 10, 16);
        let order = shuffled(all.len(), 1797, 0);
        let (train, test) = order.split_at(all.len() * 4 / 5);
        Split { train: all.select(train), test: all.select(test) }
    }

    /// The data set in `directory`: MNIST's four IDX files, plain or gzipped, as Debian's `dataset-fashion-mnist` ships
    /// them in `/usr/share/datasets/fashion-mnist`.
    ///
    /// # Errors
    /// If a file is missing, unreadable, not exactly as long as its header says, or does not fit the others.
    pub fn read(directory: &Path) -> Result<Split, DataError> {
        let pair = |prefix: &str| -> Result<(PathBuf, idx::Images, Vec<u8>), DataError> {
            let (path, images) = idx::images(&directory.join(format!("{prefix}-images-idx3-ubyte")))?;
            let (label_path, labels) = idx::labels(&directory.join(format!("{prefix}-labels-idx1-ubyte")))?;
            match labels.len() == images.count {
                true => Ok((path, images, labels)),
                false => Err(DataError::Mismatch {
                    path: label_path,
                    other: path,
                    what: "labels",
                    found: labels.len(),
                    expected: images.count,
                }),
            }
        };
        let (train_path, train, train_labels) = pair("train")?;
        let (test_path, test, test_labels) = pair("t10k")?;
        if train.inputs != test.inputs {
            return Err(DataError::Mismatch {
                path: test_path,
                other: train_path,
                what: "pixels per image",
                found: test.inputs,
                expected: train.inputs,
            });
        }
        let classes = 1 + usize::from(train_labels.iter().chain(&test_labels).copied().max().unwrap_or(0));
        Ok(Split {
            train: Dataset::new(train.pixels, train_labels, classes, u8::MAX),
            test: Dataset::new(test.pixels, test_labels, classes, u8::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_all_there_and_always_split_alike() {
        let split = Split::digits();
        assert_eq!((split.train.len(), split.test.len()), (1437, 360));
        assert_eq!((split.train.inputs(), split.train.classes()), (64, 10));
        assert_eq!(split, Split::digits());
        let mut seen = [0; 10];
        (0..split.test.len()).for_each(|index| seen[split.test.label(index)] += 1);
        assert!(seen.iter().all(|&count| count > 20), "every digit is tested: {seen:?}");
        assert!(split.train.features(0).all(|value| (0.0..=1.0).contains(&value)));
    }

    #[test]
    #[should_panic(expected = "not one of 3 classes")]
    fn a_label_beyond_the_classes_is_refused() {
        Dataset::new(vec![0, 1], vec![0, 3], 3, 1);
    }
}
